"""The one clock by which a cache and the models that it stands before are compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Clock", "Moment", "Pace", "thread_clock"]

#: Share of what was counted that is kept when another call is: some hundred calls tell the pace.
_KEPT = 0.99


class Moment(NamedTuple):
    """A reading of the clock; two of them make a duration.

    Parameters
    ----------
    cpu_s : float
        CPU time of this thread, in seconds.
    wall_s : float
        Time that has gone by, in seconds.

    Examples
    --------
    >>> Moment(0.25, 9.0) - Moment(0.0, 8.0)
    Moment(cpu_s=0.25, wall_s=1.0)
    """

    cpu_s: float
    wall_s: float

    def __sub__(self, earlier: Moment) -> Moment:
        return Moment(self.cpu_s - earlier.cpu_s, self.wall_s - earlier.wall_s)


Clock = Callable[[], Moment]


def thread_clock() -> Moment:
    """Return the time now. Differences mean something between readings of one thread only."""
    return Moment(time.thread_time(), time.perf_counter())


class Pace:
    """How much CPU time a thread gets for the time that goes by, learnt from the models' calls; no lock.

    What runs on this thread is measured in CPU time, the models' calls too: a session computes on the thread that calls
    it. By the clock on the wall a long call would look dearer under load than short pieces of work, since the threads
    of others run in between, and a cache would seem to save what it does not. Waiting for Redis takes no CPU, but keeps
    the thread from computing: it costs what the thread could have computed in the meantime, which is less on a machine
    whose CPUs are wanted by others. So load makes neither side of the comparison look dearer.

    Examples
    --------
    >>> pace = Pace()
    >>> pace.waited_s(Moment(cpu_s=1.0, wall_s=5.0))
    5.0
    >>> pace.computed(Moment(cpu_s=1.0, wall_s=2.0))
    >>> pace.waited_s(Moment(cpu_s=1.0, wall_s=5.0))
    2.5
    """

    def __init__(self) -> None:
        self._cpu_s = 0.0
        self._wall_s = 0.0

    def computed(self, took: Moment) -> None:
        """Learn from a call of the models."""
        self._cpu_s = self._cpu_s * _KEPT + took.cpu_s
        self._wall_s = self._wall_s * _KEPT + took.wall_s

    def waited_s(self, took: Moment) -> float:
        """Return what a call costs that waits, in seconds of CPU time."""
        share = min(1.0, self._cpu_s / self._wall_s) if self._wall_s > 0 else 1.0
        return max(took.cpu_s, took.wall_s * share)
