"""The worker's event loop: it looks for input less often where it has something to do already."""

from __future__ import annotations

import asyncio
import contextlib
import selectors

__all__ = ["new_event_loop"]

# How often in a row it may go on with what is ready before it looks for input again. A batch takes some ten such steps
# on its way through Faust's conductor, an agent and the data thread.
_MOST_SKIPPED = 16


class _BusySelector(selectors.DefaultSelector):
    """A selector that need not be asked each time.

    asyncio asks after every step, with a timeout of 0 where it has callbacks to run. That is a system call, and it
    releases the interpreter lock, so that the data thread takes it, and keeps it for Python's switch interval of 5 ms:
    once for every step of every batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._n_skipped = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is readable or writable; nothing, for a few times, where the loop does not wait for it."""
        if timeout == 0 and self._n_skipped < _MOST_SKIPPED:
            self._n_skipped += 1
            return []
        self._n_skipped = 0
        return super().select(timeout)


class _WorkerLoop(asyncio.SelectorEventLoop):
    """A loop that reads what wakes it once, and not until nothing is left: that releases the lock as well."""

    def _read_from_self(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            # What there is more of wakes the loop again.
            if data := self._ssock.recv(4096):  # type: ignore[attr-defined]
                self._process_self_data(data)  # type: ignore[attr-defined]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for a worker."""
    return _WorkerLoop(_BusySelector())
