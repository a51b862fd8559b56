"""Answers that come from several places, put together in the order of their rows with one selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column
from modelstream.operators.columns import concat_columns, select_rows

__all__ = ["AnswerParts", "UniqueRows"]


class UniqueRows:
    """The rows of a batch, each only once.

    Parameters
    ----------
    digests : list of bytes
        What the rows are known by.

    Examples
    --------
    >>> unique = UniqueRows([b"a", b"b", b"a"])
    >>> unique.digests, unique.inverse
    ([b'a', b'b'], array([0, 1, 0]))
    """

    __slots__ = ("digests", "inverse", "rows")

    def __init__(self, digests: list[bytes]) -> None:
        n_rows = len(digests)
        self.digests = list(dict.fromkeys(digests))
        #: For each row, which of the unique ones it is; None where they are the same.
        self.inverse: NDArray[np.intp] | None = None
        #: For each of the unique ones, a row that is equal to it; None where they are the same.
        self.rows: NDArray[np.intp] | None = None
        if len(self.digests) < n_rows:
            place = dict(zip(self.digests, range(len(self.digests)), strict=True))
            self.inverse = np.fromiter(map(place.__getitem__, digests), np.intp, n_rows)
            self.rows = np.empty(len(self.digests), np.intp)
            # Backwards, so that the first one stays.
            self.rows[self.inverse[::-1]] = np.arange(n_rows - 1, -1, -1)

    def __len__(self) -> int:
        return len(self.digests)

    def repeats(self) -> NDArray[np.bool_] | None:
        """Return which rows equal an earlier one; None where none does."""
        if self.inverse is None or self.rows is None:
            return None
        first: NDArray[np.bool_] = self.rows[self.inverse] != np.arange(len(self.inverse))
        return first


class AnswerParts:
    """Columns of the answers to some rows, gathered part by part.

    Parameters
    ----------
    n_rows : int
        Rows that there are to be in the end.

    Examples
    --------
    >>> parts = AnswerParts(3)
    >>> parts.add(np.array([0, 2]), [np.array([1.5, 2.5])])
    >>> parts.add(np.array([1]), [np.array([9.0])])
    >>> parts.take(None), parts.take(np.array([2, 2]))
    ([array([1.5, 9. , 2.5])], [array([2.5, 2.5])])
    """

    __slots__ = ("_n", "_parts", "_place")

    def __init__(self, n_rows: int) -> None:
        self._place = np.full(n_rows, -1, np.intp)
        self._parts: list[Sequence[Column]] = []
        self._n = 0

    def add(self, rows: NDArray[np.intp], columns: Sequence[Column]) -> None:
        """Add the answers to some rows; of no rows there is nothing to add."""
        if len(rows):
            self._parts.append(columns)
            self._place[rows] = np.arange(self._n, self._n + len(rows))
            self._n += len(rows)

    def take(self, rows: NDArray[np.intp] | None) -> list[Column]:
        """Return the answers to rows that have been added; None for all of them, in their order."""
        # Another thread may add parts meanwhile: those are for other rows.
        parts = list(self._parts)
        order = self._place if rows is None else self._place[rows]
        if len(parts) == 1 and rows is None and (order[:-1] < order[1:]).all():
            return list(parts[0])
        columns = [concat_columns([part[i] for part in parts]) for i in range(len(parts[0]))]
        return [select_rows(column, order) for column in columns]
