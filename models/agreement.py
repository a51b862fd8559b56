"""Whether a row's prediction is the same alone and among others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column

__all__ = ["ABSOLUTE_TOLERANCE", "RELATIVE_TOLERANCE", "Disagreement", "find_disagreement", "largest_difference"]

#: Kernels sum in another order for another batch size. Relative to the largest of the rows' values, because what is
#: left after a cancellation is as inexact as what was cancelled.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-5, 1e-6


class Disagreement:
    """A row whose prediction depends on its neighbours.

    Parameters
    ----------
    field : str
        Field of the prediction.
    row : int
        Which row.
    alone, together : object
        What was predicted.
    """

    __slots__ = ("alone", "field", "row", "together")

    def __init__(self, field: str, row: int, alone: Any, together: Any) -> None:
        self.field = field
        self.row = row
        self.alone = _short(alone)
        self.together = _short(together)


def find_disagreement(
    alone: Sequence[Mapping[str, Column]], together: Mapping[str, Column], rows: Sequence[int] | None = None
) -> Disagreement | None:
    """Return the first field and row that differ, or None.

    Numbers may differ by 1e-6 and 1e-5 of the largest of the compared rows; labels may not. Where rows of several
    magnitudes go together, compare them apart.

    Parameters
    ----------
    alone : sequence of mapping
        For each compared row what was predicted when it was alone: columns of one row.
    together : mapping of str to Column
        What was predicted for the rows together.
    rows : sequence of int, optional
        Which rows of `together` those are; by default all.

    Examples
    --------
    >>> one = {"value": np.array([1.0])}
    >>> found = find_disagreement([one, one], {"value": np.array([1.0, 2.0])})
    >>> found.field, found.row, found.alone, found.together
    ('value', 1, '1.0', '2.0')
    """
    for field, column in together.items() if alone else ():
        ours = column if rows is None else _take(column, rows)
        singles = [one[field] for one in alone]
        if isinstance(ours, np.ndarray):
            same = _close(ours, np.concatenate(singles)) if _alike(ours, singles) else np.zeros(len(singles), np.bool_)
        else:
            same = np.array([one[0] == other for one, other in zip(singles, ours, strict=True)], np.bool_)
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            return Disagreement(field, row, singles[row][0], ours[row])
    return None


def largest_difference(alone: Sequence[Mapping[str, Column]], together: Mapping[str, Column]) -> float:
    """Return the most that a number of a row differs alone and among others; 0 where all have the same bits.

    Parameters
    ----------
    alone, together
        As for `find_disagreement`, which found none.

    Examples
    --------
    >>> alone = [{"value": np.array([1.0])}, {"value": np.array([np.nan])}]
    >>> largest_difference(alone, {"value": np.array([1.0, np.nan])})
    0.0
    >>> largest_difference(alone, {"value": np.array([1.0 + 2**-52, np.nan])}) == 2**-52
    True
    """
    largest = 0.0
    for field, column in together.items() if alone else ():
        if isinstance(column, np.ndarray) and column.dtype.kind == "f":
            ours = np.concatenate([one[field] for one in alone])
            with np.errstate(invalid="ignore"):
                differences = np.abs(np.subtract(column, ours, dtype=np.float64))
            largest = max(largest, float(np.nanmax(differences, initial=0.0)))
    return largest


def _take(column: Column, rows: Sequence[int]) -> Column:
    return column[list(rows)] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def _alike(together: NDArray[Any], alone: Sequence[Column]) -> bool:
    return all(isinstance(one, np.ndarray) and one.shape[1:] == together.shape[1:] for one in alone)


def _close(together: NDArray[Any], alone: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each row whether two results agree."""
    if together.dtype.kind != "f":
        same: NDArray[np.bool_] = together == alone
    else:
        finite = np.abs(together[np.isfinite(together)])
        tolerance = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(finite.max(initial=0))
        same = np.isclose(alone, together, rtol=0, atol=tolerance, equal_nan=True)
    return same if same.ndim == 1 else np.all(same, axis=1)


def _short(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)[:60]
