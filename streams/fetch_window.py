"""What is between the fetch and the producer, and so when another fetch makes sense."""

from __future__ import annotations

import asyncio

from faust.types import TP

from modelstream.streams.records import RecordBatch

__all__ = ["FetchWindow"]

# After a fetch that took all there was, how long until the next at the latest while batches are under way: the latency
# of an event that comes then.
_PAUSE_S = 0.002


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
        self._called = asyncio.Event()

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def partitions(self) -> set[TP]:
        """The partitions that have a batch here."""
        return {batch.tp for batch in self._batches}

    def enter(self, batch: RecordBatch) -> None:
        """Note that a batch was fetched."""
        self._called.clear()
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

    def note_call(self) -> None:
        """Note that the data thread has been told to work on what was fetched."""
        self._called.set()

    def clear(self) -> None:
        """Forget what was fetched under another assignment."""
        self._batches.clear()
        self._n_rows = self._n_bytes = 0
        self._changed.set()
        self._called.set()

    async def wait_for_room(self, n_fetched: int, *, took_all: bool) -> None:
        """Wait until another fetch makes sense.

        There is room, and the last fetch left something behind. Or what it brought is being worked on: the data thread
        fetches right after that, by itself. Or it brought nothing and something has become of what is under way.

        Parameters
        ----------
        n_fetched : int
            Records that the last fetch brought.
        took_all : bool
            Whether nothing was left behind.
        """
        if took_all and self._batches:
            if n_fetched:
                # The agent's turn: nearly always it calls at once, and a timer would be for nothing.
                await asyncio.sleep(0)
                await _wait(self._called)
            else:
                self._changed.clear()
                await _wait(self._changed)
        while self._n_rows >= self._max_rows or self._n_bytes >= self._max_bytes:
            self._changed.clear()
            await self._changed.wait()


async def _wait(event: asyncio.Event) -> None:
    """Wait for an event, but not for long; `asyncio.wait_for` would need a task for that."""
    if event.is_set():
        return
    timer = asyncio.get_running_loop().call_later(_PAUSE_S, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
