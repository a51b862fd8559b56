"""What is between the fetch and the producer, and so when another fetch makes sense."""

from __future__ import annotations

import asyncio
import contextlib

from faust.types import TP

from modelstream.streams.records import RecordBatch

__all__ = ["FetchWindow"]

# After an empty fetch, how long until the next while batches are under way: the latency of an event that comes then.
_EMPTY_FETCH_S = 0.002


class FetchWindow:
    """The batches between the fetch and the producer: how many there may be, and when there is room again.

    Parameters
    ----------
    max_rows, max_bytes : int
        No further fetch where so many events, or bytes of raw records, are under way.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._batches: set[RecordBatch] = set()
        self._n_rows = 0
        self._n_bytes = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def partitions(self) -> set[TP]:
        """The partitions that have a batch here."""
        return {batch.tp for batch in self._batches}

    def enter(self, batch: RecordBatch) -> None:
        """Note that a batch was fetched."""
        self._batches.add(batch)
        self._n_rows += batch.n_rows
        self._n_bytes += batch.n_bytes

    def leave(self, batch: RecordBatch) -> None:
        """Note that the producer has all of a batch."""
        # One of an assignment before is not there any more.
        if batch in self._batches:
            self._batches.remove(batch)
            self._n_rows -= batch.n_rows
            self._n_bytes -= batch.n_bytes
            self._changed.set()

    def clear(self) -> None:
        """Forget what was fetched under another assignment."""
        self._batches.clear()
        self._n_rows = self._n_bytes = 0
        self._changed.set()

    async def wait_for_room(self, *, nothing_new: bool) -> None:
        """Wait until another fetch makes sense: there is room, and after an empty one a moment has passed."""
        if nothing_new and self._batches:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _EMPTY_FETCH_S)
        while self._n_rows >= self._max_rows or self._n_bytes >= self._max_bytes:
            self._changed.clear()
            await self._changed.wait()
