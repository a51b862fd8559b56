"""Lineage: which record every row of a batch came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.columns import Rows

__all__ = ["Lineage"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which record every row came from, so that its fate can be booked there.

    Parameters
    ----------
    sources : tuple
        The batches of records that rows came from. They are opaque here; only `streams` looks inside.
    source_index : ndarray of int32, shape (n_rows,)
        For each row, its source's index in `sources`.
    record_index : ndarray of int32, shape (n_rows,)
        For each row, its record's index within that source.
    """

    sources: tuple[Any, ...]
    source_index: NDArray[np.int32]
    record_index: NDArray[np.int32]

    @classmethod
    def of_source(cls, source: Any, n_rows: int) -> Lineage:
        """Return the lineage of a batch just read: row i is record i of the one source."""
        return cls((source,), np.zeros(n_rows, np.int32), np.arange(n_rows, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.source_index)

    def select(self, rows: Rows) -> Lineage:
        """Return the lineage of some rows."""
        return Lineage(self.sources, self.source_index[rows], self.record_index[rows])

    def count_by_source(self) -> list[tuple[Any, int]]:
        """Return each source with the number of its rows that are here, sources without rows left out."""
        if len(self.sources) == 1:
            return [(self.sources[0], len(self))] if len(self) else []
        counts = np.bincount(self.source_index, minlength=len(self.sources)).tolist()
        return [(source, count) for source, count in zip(self.sources, counts, strict=True) if count]

    @classmethod
    def concat(cls, parts: Sequence[Lineage]) -> Lineage:
        """Return the lineage of batches put one after the other; a shared source is kept once."""
        position: dict[int, int] = {}
        sources: list[Any] = []
        shifted = []
        for part in parts:
            index = []
            for source in part.sources:
                if id(source) not in position:
                    position[id(source)] = len(sources)
                    sources.append(source)
                index.append(position[id(source)])
            shifted.append(np.asarray(index, np.int32)[part.source_index])
        return cls(tuple(sources), np.concatenate(shifted), np.concatenate([part.record_index for part in parts]))
