"""Output tensors into the fields of a prediction: values, labels, scores and vectors, one per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column, ContractBreach, OutputKind, OutputSpec

__all__ = ["is_zipmap", "non_finite_rows", "read_output"]


def read_output(spec: OutputSpec, result: Any, n_rows: int) -> Column:
    """Return one output field of every row.

    Parameters
    ----------
    spec : OutputSpec
        What the output means.
    result : ndarray or list of dict
        What ONNX Runtime returned for its tensor.
    n_rows : int
        Rows of the batch.

    Returns
    -------
    ndarray or list of str
        A value as float32 or float64, shape (n_rows,); a label as int64, shape (n_rows,), or as a list of text; a score
        as float32, shape (n_rows,); a vector as shape (n_rows, n_values). Not-a-number and infinity stay as they are.

    Raises
    ------
    ContractBreach
        If it has other rows, another shape or another type.

    Examples
    --------
    >>> read_output(OutputSpec("score", "p", "score"), np.array([[0.25, 0.75]], np.float32), 1)
    array([0.75], dtype=float32)
    """
    rows = result.shape[:1] if isinstance(result, np.ndarray) else (len(result),) if isinstance(result, list) else ()
    if rows != (n_rows,):
        raise _wrong(spec, result, f"one row for each of {n_rows}")
    return _READERS[spec.kind](spec, result, n_rows)


def is_zipmap(result: Any) -> bool:
    """Return whether a result is a list of dicts, class to score, as scikit-learn exports have it by default."""
    return isinstance(result, list) and bool(result) and isinstance(result[0], dict)


def non_finite_rows(outputs: Mapping[str, Column]) -> NDArray[np.bool_]:
    """Return for each row whether one of its numbers is infinite or not a number.

    Parameters
    ----------
    outputs : mapping of str to Column
        What `OnnxModel.predict` returned.

    Examples
    --------
    >>> non_finite_rows({"value": np.array([1.0, np.nan]), "label": ["late", "on time"]})
    array([False,  True])
    """
    bad = np.zeros(len(next(iter(outputs.values()))), np.bool_)
    for column in outputs.values():
        if isinstance(column, np.ndarray) and column.dtype.kind == "f":
            finite = np.isfinite(column)
            if not finite.all():
                bad |= ~finite.reshape(len(finite), -1).all(axis=1)
    return bad


def _value(spec: OutputSpec, result: Any, n_rows: int) -> Column:
    array = _flat(spec, result, n_rows)
    if array.dtype.kind not in "biuf":
        raise _wrong(spec, result, "numbers")
    return _float(array) if array.dtype.kind == "f" else array.astype(np.float64)


def _label(spec: OutputSpec, result: Any, n_rows: int) -> Column:
    array = _flat(spec, result, n_rows)
    if array.dtype.kind == "O":
        labels: list[str] = array.tolist()
        return labels
    if array.dtype.kind not in "biu":
        raise _wrong(spec, result, "integers or text")
    return array.astype(np.int64, copy=False)


def _score(spec: OutputSpec, result: Any, n_rows: int) -> Column:
    if is_zipmap(result):
        return _zipmap_score(spec, result, n_rows)
    if not isinstance(result, np.ndarray) or result.dtype.kind != "f" or result.ndim > 2:
        raise _wrong(spec, result, "scores in floats, one or one per class")
    if spec.class_index is None:
        best = result if result.ndim == 1 else result[:, 0] if result.shape[1] == 1 else result.max(axis=1)
    elif result.ndim == 2 and spec.class_index < result.shape[1]:
        best = result[:, spec.class_index]
    else:
        raise _wrong(spec, result, f"a column for class {spec.of_class!r}, number {spec.class_index}")
    # A copy where it was a column of a matrix: the matrix is not kept alive, and what follows is faster.
    return np.ascontiguousarray(best, np.float32)


def _zipmap_score(spec: OutputSpec, rows: list[dict[Any, float]], n_rows: int) -> Column:
    """Return scores out of a dict for each row; both loops run in C, making the dicts is what takes long."""
    if spec.of_class is None:
        return np.fromiter(map(max, map(dict.values, rows)), np.float32, n_rows)
    try:
        return np.fromiter(map(itemgetter(spec.of_class), rows), np.float32, n_rows)
    except KeyError:
        known = ", ".join(map(repr, rows[0]))
        raise ContractBreach(f"output {spec.tensor!r} has no class {spec.of_class!r}, only {known}") from None


def _vector(spec: OutputSpec, result: Any, n_rows: int) -> Column:
    if not isinstance(result, np.ndarray) or result.dtype.kind not in "biuf" or result.ndim > 2:
        hint = "; export the model without ZipMap (options={'zipmap': False})" if is_zipmap(result) else ""
        raise _wrong(spec, result, f"numbers of shape (n_rows, n_values){hint}")
    return _float(result.reshape(n_rows, -1))


_READERS: Mapping[OutputKind, Callable[[OutputSpec, Any, int], Column]] = {
    "value": _value,
    "label": _label,
    "score": _score,
    "vector": _vector,
}


def _flat(spec: OutputSpec, result: Any, n_rows: int) -> NDArray[Any]:
    if not isinstance(result, np.ndarray) or result.size != n_rows:
        raise _wrong(spec, result, "one value per row")
    return result if result.ndim == 1 else result.reshape(n_rows)


def _float(array: NDArray[Any]) -> NDArray[Any]:
    # Half precision ends here: JSON and every reader behind it know float32 and float64.
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _wrong(spec: OutputSpec, result: Any, expected: str) -> ContractBreach:
    if isinstance(result, np.ndarray):
        found = f"{'text' if result.dtype.kind == 'O' else result.dtype} of shape {result.shape}"
    else:
        found = f"a ZipMap of {len(result)} rows" if is_zipmap(result) else f"a {type(result).__name__}"
    return ContractBreach(f"output {spec.tensor!r} is {found}; as {spec.kind} {spec.field!r} it should be {expected}")
