"""Event batches whose rows tell where they are from, and clocks that a test turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelstream.operators.batch import EventBatch

#: Seconds since 1970 at which a `VirtualClock` stands at first: some day in 2033.
EPOCH_S = 2_000_000_000.0


class VirtualClock:
    """A monotonic and a wall clock that stand still until they are turned."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        """Return seconds since 1970."""
        return EPOCH_S + self.now_s - 1000.0 + self.jumped_s


class Source:
    """A partition: numbers its records, and makes batches of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = True
        self.n_records = 0

    def batch(
        self,
        n_rows: int,
        *,
        priorities: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
        produced_s: float | Sequence[float] | None = None,
    ) -> EventBatch:
        """Return the next records: their priorities, bytes, and when they were produced, in seconds since 1970."""
        first, self.n_records = self.n_records, self.n_records + n_rows
        batch = EventBatch.of_events([{"record": first + i} for i in range(n_rows)], source=self)
        batch.lineage.record_index[:] = np.arange(first, first + n_rows)
        batch.ids = [f"{self.name}/{first + i}" for i in range(n_rows)]
        if priorities is not None:
            batch.priorities = np.array(priorities, np.int8)
        if sizes is not None:
            batch.n_bytes = np.array(sizes, np.int64)
        if produced_s is not None:
            batch.record_times = np.round(np.broadcast_to(produced_s, n_rows) * 1000.0).astype(np.int64)
        return batch


def rows_of(batch: EventBatch) -> list[tuple[str, int, int]]:
    """Return source, record and priority of every row; the columns must agree about them."""
    lineage = batch.lineage
    names = [lineage.sources[i].name for i in lineage.source_index.tolist()]
    records = lineage.record_index.tolist()
    assert batch.ids == [f"{name}/{record}" for name, record in zip(names, records, strict=True)]
    assert [event["record"] for event in batch.events] == records
    priorities = [0] * len(batch) if batch.priorities is None else batch.priorities.tolist()
    return list(zip(names, records, priorities, strict=True))
