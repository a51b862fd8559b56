"""Calls with a deadline: one thread for all of them tells ONNX Runtime to stop those that are late."""

from __future__ import annotations

import math
import os
import threading
import time
from types import TracebackType
from typing import Any

from modelstream.models.contract import ContractBreach

__all__ = ["CallTimeout", "Deadline", "Watchdog", "within"]


class CallTimeout(ContractBreach):
    """A call was stopped at its deadline; `OnnxModel.predict` turns it into an `InferenceTimeout`."""


class Watchdog:
    """One thread that asks ONNX Runtime to stop the calls whose deadline has passed.

    The thread starts with the first call that has a deadline, and is a daemon: it holds nothing that has to be put
    away. Calls under way are as few as the threads that call, so it looks through all of them; it wakes once per
    timeout under steady traffic, and not at all without any.

    Examples
    --------
    >>> watchdog = Watchdog()
    >>> with watchdog.within(5.0) as options:
    ...     options.terminate  # for session.run(outputs, feed, options)
    False
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, as a forked process has to: the thread is not in it, and may have held the lock meanwhile."""
        self._changed = threading.Condition()
        self._running: set[Deadline] = set()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def within(self, timeout_s: float) -> Deadline:
        """Return a context for one or several calls that have to end in time.

        Parameters
        ----------
        timeout_s : float
            Seconds from now.
        """
        return Deadline(self, timeout_s)

    def _enter(self, call: Deadline) -> None:
        with self._changed:
            self._running.add(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="modelstream-watchdog", daemon=True)
                self._thread.start()
            if call.at_s < self._wakes_at:
                self._wakes_at = call.at_s
                self._changed.notify()

    def _leave(self, call: Deadline) -> None:
        # The thread is not woken for it: that would cost a switch of threads for every call.
        with self._changed:
            self._running.discard(call)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now_s = time.monotonic()
                for call in [call for call in self._running if call.at_s <= now_s]:
                    self._running.discard(call)
                    call.stop()
                self._wakes_at = min((call.at_s for call in self._running), default=math.inf)
                left_s = self._wakes_at - now_s
                # Days may pass without a call; the longest that a thread can wait for is not infinite.
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))


class Deadline:
    """The context of calls that have to end in time; entered once, by `Watchdog.within`.

    Entering it returns the `onnxruntime.RunOptions` for the calls. A call that fails after the deadline leaves it as
    `CallTimeout`; one that has its result just then keeps it.

    Parameters
    ----------
    watchdog : Watchdog
        Who stops them.
    timeout_s : float
        Seconds from now.
    """

    __slots__ = ("_expired", "_options", "_timeout_s", "_watchdog", "at_s")

    def __init__(self, watchdog: Watchdog, timeout_s: float) -> None:
        import onnxruntime  # not at the top: see `session._open`

        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self._expired = False
        # New ones for each call: the flag stays set, and would stop the next call too.
        self._options = onnxruntime.RunOptions()
        self.at_s = time.monotonic() + timeout_s

    def stop(self) -> None:
        """Ask the calls to end; ONNX Runtime looks at it before each node of the graph."""
        self._expired = True
        self._options.terminate = True

    def __enter__(self) -> Any:
        self._watchdog._enter(self)
        return self._options

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog._leave(self)
        if self._expired and isinstance(error, ContractBreach):
            raise CallTimeout(f"took longer than {self._timeout_s:g} s, and was stopped") from error


_SHARED = Watchdog()
os.register_at_fork(after_in_child=_SHARED.reset)


def within(timeout_s: float) -> Deadline:
    """Return a context for calls that have to end in time, watched by the process's one watchdog.

    Parameters
    ----------
    timeout_s : float
        Seconds from now.
    """
    return _SHARED.within(timeout_s)
