"""Rows of a column: some of them, or those of several columns put together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column

__all__ = ["Rows", "concat_columns", "select_rows"]

_T = TypeVar("_T")

#: Some rows of a batch: indices, a mask, or a slice, which is the fastest.
Rows = NDArray[Any] | slice


@overload
def select_rows(column: list[_T], rows: Rows) -> list[_T]: ...
@overload
def select_rows(column: Column, rows: Rows) -> Column: ...
def select_rows(column: Column, rows: Rows) -> Column:
    """Return some rows of a column."""
    if isinstance(column, np.ndarray):
        selected: NDArray[Any] = column[rows]
        return selected
    if isinstance(rows, slice):
        return column[rows]
    if rows.dtype == np.bool_:
        return list(compress(column, rows.tolist()))
    return [column[i] for i in rows.tolist()]


@overload
def concat_columns(columns: Sequence[list[_T]]) -> list[_T]: ...
@overload
def concat_columns(columns: Sequence[Column]) -> Column: ...
def concat_columns(columns: Sequence[Column]) -> Column:
    """Return columns of one kind put one after the other."""
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    return list(chain.from_iterable(columns))
