"""Records of several partitions as one sequence: decoding has a cost a call, whatever the rows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Lineage
from modelstream.streams.records import RecordBatch

__all__ = ["JoinedRecords"]

T = TypeVar("T")
N = TypeVar("N", bound=np.generic)


class JoinedRecords:
    """Batches of records one after the other; each partition's records stay in their order.

    Parameters
    ----------
    batches : sequence of RecordBatch
        The batches, one at least.
    """

    def __init__(self, batches: Sequence[RecordBatch]) -> None:
        self._batches = batches
        self._ends = list(accumulate(map(len, batches)))
        #: Values of the records.
        self.values: list[bytes | None] = _joined([batch.values for batch in batches])
        #: Keys of the records.
        self.keys: list[bytes | None] = _joined([batch.keys for batch in batches])
        #: As of `RecordBatch`.
        self.timestamps_ms = _one_array([batch.timestamps_ms for batch in batches])

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def first_timestamps_ms(self) -> NDArray[np.int64]:
        """As of `RecordBatch`."""
        if not any(batch.has_headers for batch in self._batches):
            return self.timestamps_ms
        return _one_array([batch.first_timestamps_ms for batch in self._batches])

    def priorities(self, header: str) -> NDArray[np.int8]:
        """As of `RecordBatch`."""
        return _one_array([batch.priorities(header) for batch in self._batches])

    def default_ids(self, rows: slice) -> list[str]:
        """Return ids of some rows, whose start and stop are given; as of `RecordBatch`."""
        return [event_id for batch, part in self._parts(rows) for event_id in batch.default_ids(part)]

    def lineage(self, rows: slice) -> Lineage:
        """Return which record of which batch each of some rows is; their start and stop are given."""
        parts = list(self._parts(rows))
        records = [np.arange(part.start, part.stop, dtype=np.int32) for _, part in parts]
        positions = np.arange(len(parts), dtype=np.int32).repeat(list(map(len, records)))
        return Lineage(tuple(batch for batch, _ in parts), positions, _one_array(records))

    def _parts(self, rows: slice) -> Iterator[tuple[RecordBatch, slice]]:
        """Yield the batches that have some of these rows, and which rows of theirs those are."""
        start = 0
        for batch, end in zip(self._batches, self._ends, strict=True):
            if start < rows.stop and rows.start < end:
                yield batch, slice(max(rows.start - start, 0), min(rows.stop, end) - start)
            start = end


def _joined(parts: list[list[T]]) -> list[T]:
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


def _one_array(parts: list[NDArray[N]]) -> NDArray[N]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
