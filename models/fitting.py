"""From `model.toml` and the ONNX graph to the whole contract: what was left out is worked out, all is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelstream.models.contract import (
    ANY_WIDTH,
    ContractBreach,
    DType,
    FieldSpec,
    InputSpec,
    OutputKind,
    OutputSpec,
)
from modelstream.models.contract_file import CONTRACT_FILE, ContractFile, InputTable, OutputTable
from modelstream.models.errors import did_you_mean
from modelstream.models.outputs import is_zipmap

__all__ = ["fit_inputs", "fit_outputs", "takes_single_rows"]

_INPUT_TYPES: Mapping[str, DType] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}


def fit_inputs(file: ContractFile, tensors: Sequence[Any]) -> tuple[InputSpec, ...]:
    """Return how every input of the graph is filled.

    Parameters
    ----------
    file : ContractFile
        What `model.toml` says; an input that it leaves out is filled from the field of the same name.
    tensors : sequence of onnxruntime.NodeArg
        The inputs of the graph.

    Raises
    ------
    ContractBreach
        If `model.toml` names no such input, or an input's type, rank, batch axis or width does not fit.
    """
    known = [tensor.name for tensor in tensors]
    for name in file.inputs:
        if name not in known:
            raise _unknown_tensor(f"inputs.{name}", "input", name, known)
    if not tensors:
        raise ContractBreach("has no input; there is nothing to predict from")
    return tuple(_fit_input(tensor, file.inputs.get(tensor.name)) for tensor in tensors)


def takes_single_rows(tensors: Sequence[Any]) -> bool:
    """Return whether the batch axis of an input is fixed at 1, so that rows have to go through one by one.

    Parameters
    ----------
    tensors : sequence of onnxruntime.NodeArg
        The inputs of the graph.
    """
    return any(list(tensor.shape)[:1] == [1] for tensor in tensors)


def _fit_input(tensor: Any, table: InputTable | None) -> InputSpec:
    name, shape = tensor.name, list(tensor.shape)
    dtype = _INPUT_TYPES.get(tensor.type)
    if dtype is None:
        raise ContractBreach(
            f"input {name!r} is {tensor.type}; supported are {', '.join(_INPUT_TYPES.values())} tensors"
        )
    if len(shape) not in (1, 2):
        raise ContractBreach(f"input {name!r} has shape {_shape(shape)}; supported are [N], [N, 1] and [N, values]")
    # With one row the graph works, row by row: `takes_single_rows`.
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ContractBreach(
            f"input {name!r} has shape {_shape(shape)}: its batch axis is fixed at {shape[0]}; "
            "export the model with a dynamic batch axis"
        )
    width = 1 if len(shape) == 1 else shape[1] if isinstance(shape[1], int) else None
    return InputSpec(name, _fields(name, table or InputTable(field=name), dtype, width), len(shape))


def _fields(tensor: str, table: InputTable, dtype: DType, width: int | None) -> tuple[FieldSpec, ...]:
    """Return the fields that fill a tensor of some width; None where the graph leaves the width open."""
    where = f"inputs.{tensor}"
    if table.fields is not None:
        if width not in (None, len(table.fields)):
            problem = f"names {_count(len(table.fields), 'field')}, but the input takes {_count(width or 0, 'value')}"
            raise ContractBreach(f"{where}.fields: {problem}", CONTRACT_FILE)
        return tuple(FieldSpec(field, dtype) for field in table.fields)
    assert table.field is not None
    if table.width is None and width is None:
        hint = f'add [{where}] with fields = ["…", "…"], or field = "…" and width = … or "any"'
        raise ContractBreach(f"{where}: the graph leaves the width of this input open: {hint}", CONTRACT_FILE)
    if table.width is not None and width not in (None, table.width):
        said = '"any"' if table.width == ANY_WIDTH else table.width
        raise ContractBreach(f"{where}.width: is {said}, but the input takes {width}", CONTRACT_FILE)
    # An input of one value reads a scalar column; a vector of one has to be asked for.
    return (FieldSpec(table.field, dtype, table.width or (width if width != 1 else None)),)


def fit_outputs(file: ContractFile, results: Mapping[str, Any]) -> tuple[OutputSpec, ...]:
    """Return what every output field means.

    Parameters
    ----------
    file : ContractFile
        What `model.toml` says.
    results : mapping of str to ndarray or list of dict
        Each output of the graph for a few rows: what a graph declares of its outputs is often incomplete.

    Raises
    ------
    ContractBreach
        If `model.toml` names no such output, or says nothing where the graph leaves a choice.
    """
    if file.outputs:
        return tuple(_fit_output(field, table, results) for field, table in file.outputs.items())
    guesses = {name: _guess(result) for name, result in results.items()}
    if len(guesses) == 1:
        [(name, kind)] = guesses.items()
        if kind in ("value", "label", "vector"):
            return (OutputSpec(kind, name, kind),)
    labels = [name for name, guess in guesses.items() if guess == "label"]
    if len(guesses) == 2 and len(labels) == 1:
        [score] = guesses.keys() - labels
        return OutputSpec("label", labels[0], "label"), OutputSpec("score", score, "score")
    has = ", ".join(f"{name!r} ({_look(result)})" for name, result in results.items())
    hint = 'add [outputs.value] with tensor = "…", or what they are'
    raise ContractBreach(f"outputs: cannot tell what the outputs {has} mean; {hint}", CONTRACT_FILE)


def _fit_output(field: str, table: OutputTable, results: Mapping[str, Any]) -> OutputSpec:
    where = f"outputs.{field}"
    tensor = table.tensor or (next(iter(results)) if len(results) == 1 else field)
    if tensor not in results:
        raise _unknown_tensor(f"{where}.tensor" if table.tensor else where, "output", tensor, list(results))
    kind: OutputKind = table.kind or field  # type: ignore[assignment]  # checked when the file was read
    result = results[tensor]
    index = None if is_zipmap(result) else _class_index(where, table)
    if index is not None and isinstance(result, np.ndarray) and result.ndim == 2 and index >= result.shape[1]:
        problem = f"of {table.of_class!r} is column {index}, counted from 0, but output {tensor!r} has"
        hint = "" if table.classes else "; if it has that class, list all in the order of the columns: classes = […]"
        raise ContractBreach(f"{where}.class: that {problem} {_count(result.shape[1], 'column')}{hint}", CONTRACT_FILE)
    return OutputSpec(field, tensor, kind, table.of_class, index)


def _class_index(where: str, table: OutputTable) -> int | None:
    """Return the column of a score's class."""
    if table.of_class is None:
        return None
    classes = table.classes
    if classes is None:
        if isinstance(table.of_class, str) or table.of_class < 0:
            hint = "list the columns' classes in order"
            raise ContractBreach(
                f"{where}.classes: is needed to find the column of {table.of_class!r}; {hint}", CONTRACT_FILE
            )
        return table.of_class
    if table.of_class not in classes:
        raise ContractBreach(f"{where}.class: {table.of_class!r} is not among its classes", CONTRACT_FILE)
    return [*classes].index(table.of_class)


def _guess(result: Any) -> OutputKind | None:
    if is_zipmap(result):
        return "score"
    if not isinstance(result, np.ndarray) or result.ndim not in (1, 2):
        return None
    if result.size != len(result):
        return "vector" if result.dtype.kind == "f" else None
    return "value" if result.dtype.kind == "f" else "label"


def _look(result: Any) -> str:
    if isinstance(result, np.ndarray):
        return f"{'text' if result.dtype.kind == 'O' else result.dtype} of shape {_shape(['N', *result.shape[1:]])}"
    return "ZipMap" if is_zipmap(result) else type(result).__name__


def _unknown_tensor(where: str, role: str, name: str, known: list[str]) -> ContractBreach:
    listed = ", ".join(map(repr, known))
    return ContractBreach(
        f"{where}: the model has no {role} {name!r}, only {listed}{did_you_mean(name, known)}", CONTRACT_FILE
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _shape(dims: Sequence[Any]) -> str:
    return "[" + ", ".join(str(dim) if isinstance(dim, int) else dim or "?" for dim in dims) + "]"
