"""Columns to calculate with: numbers or text, with masks of the rows that are null or have no finite value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column

__all__ = ["NULL", "Mask", "Vector", "join_masks", "load", "same_dtype", "some"]

#: Some of the rows.
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Vector:
    """One value for each row, or one value for all rows.

    Parameters
    ----------
    values : ndarray of bool, int64, float32, float64 or object (text), shape (n_rows,) or ()
        The values, with fillers where a mask holds.
    null : ndarray of bool, shape as or broadcast to that of `values`, optional
        Where there is no value.
    bad : ndarray of bool, shape as or broadcast to that of `values`, optional
        Where a calculation has no finite result: a division by zero, an integer beyond 64 bits.
    """

    values: NDArray[Any]
    null: Mask | None = None
    bad: Mask | None = None

    @property
    def is_text(self) -> bool:
        """Whether it holds text, not numbers."""
        return self.values.dtype == object

    @property
    def is_nothing(self) -> bool:
        """Whether it is the literal ``null``, which is neither number nor text."""
        return self.values.ndim == 0 and self.null is not None and self.null.ndim == 0 and bool(self.null)

    def spread(self, n_rows: int) -> Vector:
        """Return it with one value for each row."""
        if self.values.shape == (n_rows,):
            return self
        masks = (None if mask is None else np.broadcast_to(mask, n_rows) for mask in (self.null, self.bad))
        return Vector(np.broadcast_to(self.values, n_rows), *masks)


#: The literal ``null``. Its number is a filler that takes on any type beside it.
NULL = Vector(np.array(False), np.array(True))


def load(name: str, column: Column, null: Mask | None = None) -> Vector:
    """Return a column to calculate with; NaN and None are null.

    Parameters
    ----------
    name : str
        Its name, for the error.
    column : ndarray or list, n_rows entries
        Numbers as an array, text as a list.
    null : ndarray of bool, shape (n_rows,), optional
        Rows without a value.

    Raises
    ------
    TypeError
        It holds vectors, times, or something else that is neither numbers nor text.

    Examples
    --------
    >>> load("x", np.array([1.5, np.nan])).null
    array([False,  True])
    """
    if isinstance(column, list) or (column.dtype == object and column.ndim == 1):
        return _load_objects(name, column if isinstance(column, list) else column.tolist(), null)
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        what = f"{column.shape[1:]} values a row" if column.ndim != 1 else f"values of dtype {column.dtype}"
        raise TypeError(f"{name!r} has {what}; expressions take numbers and text")
    if column.dtype.kind == "f":
        column = column if column.dtype == np.float32 else column.astype(np.float64, copy=False)
        finite_rows = np.isfinite(column)
        if finite_rows.all():
            return Vector(column, null)
        nan = np.isnan(column)
        return Vector(column, join_masks(null, some(nan)), some(~finite_rows & ~nan))
    if column.dtype.kind == "b":
        return Vector(column, null)
    bad = some(column > np.iinfo(np.int64).max) if column.dtype == np.uint64 else None
    return Vector(column.astype(np.int64, copy=False), null, bad)


def _load_objects(name: str, column: list[Any], null: Mask | None) -> Vector:
    try:
        "".join(column)  # raises where one is no text, and is the cheapest check there is
    except TypeError:
        return _load_with_nulls(name, column, null)
    return Vector(np.array(column, object), null)


def _load_with_nulls(name: str, column: list[Any], null: Mask | None) -> Vector:
    """Return text in which some are None, or whole numbers that stand in an array of objects for that reason."""
    missing = np.fromiter((value is None for value in column), np.bool_, len(column))
    null = join_masks(null, some(missing))
    types = {type(value) for value in column} - {type(None)}
    if types == {str}:
        return Vector(np.array(["" if value is None else value for value in column], object), null)
    if not types <= {int, bool, float}:
        raise TypeError(f"{name!r} has other things in it than text, or than numbers")
    if not types:
        return NULL
    numbers = np.array([False if value is None else value for value in column])
    return load(name, numbers, null)


def some(mask: Mask) -> Mask | None:
    """Return a mask, or None where it holds nowhere."""
    return mask if mask.any() else None


def join_masks(*masks: Mask | None) -> Mask | None:
    """Return where any of the masks holds; None stands for a mask that holds nowhere."""
    given = [mask for mask in masks if mask is not None]
    return reduce(np.logical_or, given) if given else None


def same_dtype(vectors: Sequence[Vector]) -> list[NDArray[Any]]:
    """Return the values of vectors as arrays of one dtype.

    Raises
    ------
    TypeError
        Some hold text and some numbers.
    """
    told = [vector for vector in vectors if not vector.is_nothing] or [NULL]
    if any(vector.is_text for vector in told):
        if not all(vector.is_text for vector in told):
            raise TypeError("text and numbers do not go together")
        return [np.array("", object) if vector.is_nothing else vector.values for vector in vectors]
    dtypes = {vector.values.dtype for vector in told}
    if len(dtypes) == 1:
        return [vector.values.astype(told[0].values.dtype, copy=False) for vector in vectors]
    dtype = np.float64 if any(dtype.kind == "f" for dtype in dtypes) else np.int64
    return [vector.values.astype(dtype, copy=False) for vector in vectors]
