"""Columns of a batch into input tensors, with as few copies as the layout allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ANY_WIDTH, NUMPY_DTYPES, Column, ContractBreach, DType, FieldSpec, InputSpec

__all__ = ["build_feed"]


def build_feed(inputs: Sequence[InputSpec], columns: Mapping[str, Column], n_rows: int) -> dict[str, NDArray[Any]]:
    """Return the tensors of one call.

    A column that already has a tensor's type, shape and order is passed as it is, without a copy.

    Parameters
    ----------
    inputs : sequence of InputSpec
        What to build.
    columns : mapping of str to Column
        At least the fields of the inputs.
    n_rows : int
        Rows of the batch.

    Raises
    ------
    ContractBreach
        If a column is missing, or its shape, type or a value does not fit.

    Examples
    --------
    >>> fields = (FieldSpec("hour", "float32"), FieldSpec("distance", "float32"))
    >>> build_feed([InputSpec("x", fields)], {"hour": np.array([7, 8]), "distance": np.array([1.5, 2.5])}, 2)
    {'x': array([[7. , 1.5],
           [8. , 2.5]], dtype=float32)}
    """
    return {
        spec.tensor: _whole(spec, columns, n_rows) if len(spec.fields) == 1 else _packed(spec, columns, n_rows)
        for spec in inputs
    }


def _whole(spec: InputSpec, columns: Mapping[str, Column], n_rows: int) -> NDArray[Any]:
    """Return the tensor of one field."""
    field = spec.fields[0]
    array = _cast(field.name, _column(field, columns, n_rows), field.dtype)
    if field.width == ANY_WIDTH and array.ndim == 2:
        shape = array.shape  # the rows of this call have one length, whichever it is
    else:
        shape = (n_rows, field.width or 1) if spec.rank == 2 else (n_rows,)
    if array.shape != shape:
        if field.width not in (None, 1):
            wanted = f"({n_rows}, any)" if field.width == ANY_WIDTH else shape
            raise ContractBreach(f"column {field.name!r} has shape {array.shape}, expected {wanted}")
        array = _one_per_row(field.name, array, n_rows).reshape(shape)
    # ONNX Runtime would copy as well, and then once more for each of its runs.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _packed(spec: InputSpec, columns: Mapping[str, Column], n_rows: int) -> NDArray[Any]:
    """Return scalar fields side by side, each written, and cast while it is written, into its place."""
    dtype = NUMPY_DTYPES[spec.fields[0].dtype]
    block = np.empty((n_rows, len(spec.fields)), dtype)
    with np.errstate(over="ignore"):
        for position, field in enumerate(spec.fields):
            column = _column(field, columns, n_rows)
            # Into floats numpy casts as it writes; into anything else it would do so without a check.
            fits = dtype.kind == "f" and isinstance(column, np.ndarray) and column.dtype.kind in "biuf"
            array = column if fits else _cast(field.name, column, field.dtype)
            block[:, position] = _one_per_row(field.name, array, n_rows)  # type: ignore[arg-type]
    return block


def _column(field: FieldSpec, columns: Mapping[str, Column], n_rows: int) -> Column:
    column = columns.get(field.name)
    if column is None:
        raise ContractBreach(f"column {field.name!r} is missing")
    if len(column) != n_rows:
        raise ContractBreach(f"column {field.name!r} has {len(column)} rows, the batch has {n_rows}")
    return column


def _one_per_row(name: str, array: NDArray[Any], n_rows: int) -> NDArray[Any]:
    if array.ndim == 1:
        return array
    if array.shape != (n_rows, 1):
        raise ContractBreach(f"column {name!r} has shape {array.shape}, expected one value per row")
    return array[:, 0]


def _cast(name: str, column: Column, dtype: DType) -> NDArray[Any]:
    """Return the column as the type; floats may lose digits, integers and flags must come out as they were."""
    if dtype == "string":
        return _text(name, column)
    array = column if isinstance(column, np.ndarray) else _numbers(name, column)
    target = NUMPY_DTYPES[dtype]
    if array.dtype == target:
        return array
    if array.dtype.kind not in "biuf":
        raise ContractBreach(f"column {name!r} holds {_held(array)}, the model reads {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(target, order="C")
    if target.kind != "f":
        changed = cast != array
        if changed.any():
            raise ContractBreach(f"column {name!r}: {array[changed][0]} is no {dtype}")
    return cast


def _numbers(name: str, column: list[Any]) -> NDArray[Any]:
    try:
        return np.asarray(column)
    except (ValueError, OverflowError):
        raise ContractBreach(f"column {name!r}: its rows differ in shape, or hold integers too large") from None


def _text(name: str, column: Column) -> NDArray[Any]:
    """Return text as an array of objects; whole numbers are written out, as categories often come."""
    array = column if isinstance(column, np.ndarray) else np.array(column, dtype=object)
    if array.dtype.kind in "iu":
        array = array.astype(str)
    if array.dtype.kind == "U":
        return array.astype(object)
    # ONNX Runtime would write anything else out too: None as 'None', and the model would never know.
    if array.dtype.kind != "O" or not all(issubclass(one, str) for one in set(map(type, array.flat))):
        raise ContractBreach(f"column {name!r} holds {_held(array)}, the model reads text")
    return array


def _held(array: NDArray[Any]) -> str:
    """Return what an array holds, for a message: of mixed objects the types."""
    if array.dtype.kind != "O":
        return "text" if array.dtype.kind == "U" else str(array.dtype)
    return " and ".join(sorted({type(one).__name__ for one in array.flat}))
