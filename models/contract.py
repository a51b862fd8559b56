"""The contract of a model version: which event fields it reads, how they are laid out, what its outputs mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError

__all__ = [
    "ANY_WIDTH",
    "NUMPY_DTYPES",
    "Column",
    "ContractBreach",
    "DType",
    "FieldSpec",
    "InputSpec",
    "ModelContract",
    "OutputKind",
    "OutputSpec",
    "merge_fields",
]

#: A column: numbers as an array whose first axis is the rows, strings as a list.
Column = NDArray[Any] | list[Any]

#: The width of a vector field whose rows differ in length: all rows of one call are padded to one length.
ANY_WIDTH = -1

#: Types that a model's input can have.
DType = Literal["float32", "float64", "int32", "int64", "bool", "string"]

#: What an output says: a number, a class, how sure it is of a class, or several numbers.
OutputKind = Literal["value", "label", "score", "vector"]

#: How a column of each type is held in numpy.
NUMPY_DTYPES: Mapping[DType, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
    "string": np.dtype(object),
}


class ContractBreach(Exception):
    """A model, its `model.toml` or its data do not keep the contract.

    It never leaves `models`: `load_model` turns it into a `ModelLoadError`, `OnnxModel.predict` into an
    `InferenceError`, because only they know the model's name and version.

    Parameters
    ----------
    problem : str
        One line for a person.
    file : str, optional
        The file of the model version that is to blame.
    """

    def __init__(self, problem: str, file: str = "model.onnx") -> None:
        self.file = file
        # Names come from the files, and may hold anything.
        super().__init__(" ".join(problem.splitlines()))


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One event field that a model reads.

    Parameters
    ----------
    name : str
        Name of the column.
    dtype : DType
        Type that the column is cast to.
    width : int, optional
        Number of values in each row of a vector field; `ANY_WIDTH` where rows may differ; None for a scalar field.
    """

    name: str
    dtype: DType
    width: int | None = None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input tensor, and the fields that fill it from left to right.

    Parameters
    ----------
    tensor : str
        Name of the ONNX input.
    fields : tuple of FieldSpec
        Either one vector field, or one or more scalar fields; all of the tensor's type.
    rank : int
        2 for a tensor of shape (n_rows, n_values), 1 for shape (n_rows,).
    """

    tensor: str
    fields: tuple[FieldSpec, ...]
    rank: int = 2


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output field, and the tensor that it is read from.

    Parameters
    ----------
    field : str
        Name in the prediction, such as ``value``.
    tensor : str
        Name of the ONNX output.
    kind : {"value", "label", "score", "vector"}
        What it says.
    of_class : int or str, optional
        For a score, the class that it is about; None takes the largest score in each row, which is the label's own.
    class_index : int, optional
        The column of that class, where the scores come as a tensor.
    """

    field: str
    tensor: str
    kind: OutputKind
    of_class: int | str | None = None
    class_index: int | None = None


@dataclass(frozen=True, slots=True)
class ModelContract:
    """What a model version promises: `model.toml`, completed by what the ONNX graph says of itself.

    Parameters
    ----------
    name, version : str
        Which model version it is.
    sha256 : str
        Digest of the ONNX file, in lower-case hexadecimal digits.
    inputs : tuple of InputSpec
        Every input of the graph.
    outputs : tuple of OutputSpec
        What `OnnxModel.predict` returns, in this order.
    metrics, training : mapping
        As they stand in `model.toml`: how good the model was, and where it comes from.
    row_by_row : bool, optional
        Whether the graph takes one row at a time, because its batch axis is fixed at 1.
    examples : mapping of str to list, optional
        Values by field for trial rows, as they stand in `model.toml`.

    Examples
    --------
    >>> hour = FieldSpec("hour", "float32")
    >>> contract = ModelContract("delay", "1", "0" * 64, (InputSpec("x", (hour,)),), (), {}, {})
    >>> contract.required_fields
    (FieldSpec(name='hour', dtype='float32', width=None),)
    """

    name: str
    version: str
    sha256: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    row_by_row: bool = False
    examples: Mapping[str, list[Any]] = field(default_factory=dict)

    @property
    def required_fields(self) -> tuple[FieldSpec, ...]:
        """Every field that the model reads, once, in the order of its inputs."""
        return merge_fields(field for spec in self.inputs for field in spec.fields)


def merge_fields(fields: Iterable[FieldSpec]) -> tuple[FieldSpec, ...]:
    """Return each field once; where tensors of several types read one field, it gets the widest of the types.

    Parameters
    ----------
    fields : iterable of FieldSpec
        Fields, possibly of several models, in order.

    Raises
    ------
    ConfigError
        If a field is wanted as text and as a number, or in two widths.

    Examples
    --------
    >>> merge_fields([FieldSpec("n", "int64"), FieldSpec("n", "float32")])
    (FieldSpec(name='n', dtype='float64', width=None),)
    """
    merged: dict[str, FieldSpec] = {}
    for one in fields:
        known = merged.setdefault(one.name, one)
        if known.width != one.width:
            raise ConfigError("", f"field {one.name!r} is read {_width(known)} and {_width(one)}")
        if known.dtype != one.dtype:
            if "string" in (known.dtype, one.dtype):
                raise ConfigError("", f"field {one.name!r} is read as {known.dtype} and as {one.dtype}")
            merged[one.name] = FieldSpec(one.name, _widest(known.dtype, one.dtype), one.width)
    return tuple(merged.values())


def _width(field: FieldSpec) -> str:
    if field.width == ANY_WIDTH:
        return "as a vector of any length"
    return "as a scalar" if field.width is None else f"as a vector of {field.width}"


def _widest(first: DType, second: DType) -> DType:
    # numpy's promotion of the closed list of types stays within it.
    widest: DType = np.result_type(NUMPY_DTYPES[first], NUMPY_DTYPES[second]).name  # type: ignore[assignment]
    return widest
