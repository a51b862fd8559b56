"""Rows of different lengths: grouped, padded to one length within a group, and put back in their order.

A model takes all rows of a call at one length, so that short rows among long ones cost as much as the long ones. Rows
are therefore grouped by the length that they are padded to, and the model is called once for each group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.operators.columns import concat_columns, select_rows

__all__ = ["BUCKET", "Group", "Padder", "PaddingCounters", "put_back"]

#: The column whose values group the rows; no field of a model has such a name.
BUCKET = "\0bucket"


@dataclass(slots=True)
class PaddingCounters:
    """What models were given of rows of different lengths.

    Parameters
    ----------
    real_cells : int
        Values that events have.
    padded_cells : int
        Fillers beside them.
    calls : int
        Groups, each of which was one call at least.
    """

    real_cells: int = 0
    padded_cells: int = 0
    calls: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def waste(self) -> float:
        """Share of fillers among all values; 0 where there were none."""
        cells = self.real_cells + self.padded_cells
        return self.padded_cells / cells if cells else 0.0

    def add(self, real_cells: int, cells: int) -> None:
        """Count one group."""
        with self._lock:
            self.real_cells += real_cells
            self.padded_cells += cells - real_cells
            self.calls += 1


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that go into a model together.

    Parameters
    ----------
    rows : ndarray of int
        Which rows of the batch they are.
    columns : mapping of str to Column
        Their columns, those of different lengths as arrays of shape (n_rows, length).
    """

    rows: NDArray[np.intp]
    columns: Mapping[str, Column]


class Padder:
    """Groups rows, and pads them.

    Parameters
    ----------
    fields : sequence of str
        Columns whose rows may differ in length.
    pad_to : sequence of int, optional
        Rows are padded with zeros, or the empty text, to the next of these lengths; longer ones stay as they are.
        Without it all rows of a group are padded to the longest of them.
    by_value : bool
        Whether rows are grouped by the column `BUCKET`, instead of by their padded lengths.
    counters : PaddingCounters, optional
        Gets what was padded.
    exact : bool
        Whether only rows of one length go together, where `pad_to` does not say otherwise: for a model that answers
        otherwise to padded rows.

    Examples
    --------
    >>> padder = Padder(["x"], pad_to=[2, 4])
    >>> groups = padder.groups({"x": [np.array([1, 2, 3]), np.array([4]), np.array([5, 6])]}, 3)
    >>> [(group.rows.tolist(), group.columns["x"].tolist()) for group in groups]
    [([1, 2], [[4, 0], [5, 6]]), ([0], [[1, 2, 3, 0]])]
    >>> padder.counters.real_cells, padder.counters.padded_cells, padder.counters.waste
    (6, 2, 0.25)
    """

    def __init__(
        self,
        fields: Sequence[str],
        pad_to: Sequence[int] = (),
        *,
        by_value: bool = False,
        counters: PaddingCounters | None = None,
        exact: bool = False,
    ) -> None:
        self._by_length = exact or bool(len(pad_to))
        self._fields = tuple(fields)
        self._pad_to = np.unique(np.asarray(pad_to, np.int64))
        self._by_value = by_value
        self.counters = counters or PaddingCounters()

    def groups(self, columns: Mapping[str, Column], n_rows: int) -> list[Group]:
        """Return the rows in groups.

        Parameters
        ----------
        columns : mapping of str to Column
            Columns of different lengths as lists of arrays, or as an array where the rows have one length.
        n_rows : int
            Rows of the columns.
        """
        lengths = {name: _lengths(columns[name], n_rows) for name in self._fields}
        wanted = {name: self._padded(each) for name, each in lengths.items()}
        keys = [_codes(columns[BUCKET])] if self._by_value else []
        # By a field's value, rows of several lengths may go together, unless none is to be padded for the others.
        if self._by_length and not (self._by_value and len(self._pad_to)):
            keys += list(wanted.values())
        groups = []
        for rows in _equal_rows(keys, n_rows):
            part = {name: select_rows(column, rows) for name, column in columns.items() if name != BUCKET}
            for name in self._fields:
                # Of rows that are grouped by something else, the longest says how long all are.
                length = int(wanted[name][rows].max())
                part[name] = _pad(part[name], lengths[name][rows], length)
                self.counters.add(int(lengths[name][rows].sum()), length * len(rows))
            groups.append(Group(rows, part))
        return groups

    def _padded(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self._pad_to):
            return lengths
        place = np.searchsorted(self._pad_to, lengths)
        longest = len(self._pad_to) - 1
        return np.where(place <= longest, self._pad_to[np.minimum(place, longest)], lengths)


def put_back(groups: Sequence[Group], parts: Sequence[Mapping[str, Column]]) -> Mapping[str, Column]:
    """Return what a model answered to each group, in the order of the batch.

    Raises
    ------
    ValueError
        An output has another width for one group than for another.
    """
    if len(parts) == 1 and _ordered(groups[0].rows):
        return parts[0]
    order = np.concatenate([group.rows for group in groups])
    back = np.empty(len(order), np.intp)
    back[order] = np.arange(len(order))
    return {name: select_rows(concat_columns([part[name] for part in parts]), back) for name in parts[0]}


def _ordered(rows: NDArray[np.intp]) -> bool:
    return bool((np.diff(rows) > 0).all())


def _lengths(column: Column, n_rows: int) -> NDArray[np.int64]:
    if isinstance(column, np.ndarray) and column.dtype != object:
        return np.full(n_rows, column.shape[1] if column.ndim > 1 else 1)
    return np.fromiter(map(len, column), np.int64, n_rows)


def _codes(column: Column) -> NDArray[np.int64]:
    """Return a number for each distinct value, in the order in which they first occur."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    unique = dict.fromkeys(values)
    number = dict(zip(unique, range(len(unique)), strict=True))
    return np.fromiter(map(number.__getitem__, values), np.int64, len(values))


def _equal_rows(keys: Sequence[NDArray[np.int64]], n_rows: int) -> list[NDArray[np.intp]]:
    """Return the rows that are equal in all keys, group by group; rows keep their order within a group."""
    if not keys:
        return [np.arange(n_rows)]
    order = np.lexsort(keys)  # stable
    changes = np.zeros(n_rows - 1, np.bool_)
    for key in keys:
        changes |= np.diff(key[order]) != 0
    return np.split(order, np.flatnonzero(changes) + 1)


def _pad(column: Column, lengths: NDArray[np.int64], length: int) -> NDArray[Any]:
    if isinstance(column, np.ndarray) and column.dtype != object and column.ndim == 2 and column.shape[1] == length:
        return column
    cells = np.concatenate(column)
    padded = np.zeros((len(lengths), length), cells.dtype)
    if cells.dtype == object:
        padded.fill("")
    padded[np.arange(length) < lengths[:, None]] = cells
    return padded
