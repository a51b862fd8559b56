"""The row queue: events that wait for a model, in order, in lanes of priority, with their bytes and ages."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import EventBatch

__all__ = ["RowQueue", "Taken"]

#: What lower lanes get of a batch that cannot hold all, so that a busy lane above does not starve them.
_LOWER_SHARE = 1 / 8


@dataclass(slots=True)
class Taken:
    """Rows that left the queue together.

    Parameters
    ----------
    parts : list of EventBatch
        The rows, in their order.
    n_rows, n_bytes : int
        How many, and the bytes of their records as far as they are known.
    added_s : float
        When the first of them came into the queue, on the monotonic clock.
    born_s : float
        When the oldest of their records was produced, on the monotonic clock; at the latest `added_s`.
    """

    parts: list[EventBatch] = field(default_factory=list)
    n_rows: int = 0
    n_bytes: int = 0
    added_s: float = float("inf")
    born_s: float = float("inf")


class _Run:
    """The rows of one batch that still wait: those from `start` on."""

    __slots__ = ("_sums", "_whole_born_s", "added_s", "events", "n_bytes", "start", "wall_s")

    def __init__(self, events: EventBatch, added_s: float, wall_s: float) -> None:
        self.events = events
        self.start = 0
        self.added_s = added_s
        self.wall_s = wall_s
        self.n_bytes = 0 if events.n_bytes is None else int(events.n_bytes.sum())
        self._sums: NDArray[np.int64] | None = None
        self._whole_born_s = self._oldest_s(0, len(events))

    def __len__(self) -> int:
        return len(self.events) - self.start

    def born_s(self, n_rows: int) -> float:
        """Return when the oldest record of the next rows was produced, on the monotonic clock.

        The wall clock counts for the time before the rows came here, and nothing that it does later.
        """
        if not self.start and n_rows >= len(self.events):
            return self._whole_born_s
        return self._oldest_s(self.start, self.start + n_rows)

    def _oldest_s(self, start: int, stop: int) -> float:
        times = self.events.record_times
        if times is None:
            return self.added_s
        part = times[start:stop]
        oldest_ms = int(part.min())
        if oldest_ms <= 0:  # a record without a timestamp has -1
            known = part[part > 0]
            if not len(known):
                return self.added_s
            oldest_ms = int(known.min())
        return self.added_s - max(0.0, self.wall_s - oldest_ms / 1000)

    def bytes_of(self, n_rows: int) -> int:
        """Return the bytes of the next rows."""
        if n_rows == len(self) or self.events.n_bytes is None:
            return self.n_bytes
        return int(self.events.n_bytes[self.start : self.start + n_rows].sum())

    def rows_within(self, n_bytes: int) -> int:
        """Return how many of the next rows fit into so many bytes."""
        if self.n_bytes <= n_bytes:
            return len(self)
        if self._sums is None:  # once for a batch, however often it is split
            assert self.events.n_bytes is not None
            self._sums = np.cumsum(self.events.n_bytes)
        before = int(self._sums[self.start - 1]) if self.start else 0
        return int(np.searchsorted(self._sums, before + n_bytes, side="right")) - self.start

    def take(self, n_rows: int, n_bytes: int) -> EventBatch:
        """Return the next rows, of so many bytes, and go on behind them."""
        start, self.start = self.start, self.start + n_rows
        self.n_bytes -= n_bytes
        if n_rows == len(self.events):
            return self.events
        return self.events.select(slice(start, self.start))


class _Lane:
    """The rows of one priority, first come, first served."""

    __slots__ = ("n_bytes", "n_rows", "runs")

    def __init__(self) -> None:
        self.runs: deque[_Run] = deque()
        self.n_rows = 0
        self.n_bytes = 0

    def add(self, run: _Run) -> None:
        self.runs.append(run)
        self.n_rows += len(run)
        self.n_bytes += run.n_bytes

    def take(self, into: Taken, up_to_rows: int, up_to_bytes: int | None, enough: int) -> None:
        """Move rows until a batch has so many rows or bytes, or none is left; with enough of them, cut no batch.

        A batch's first row always fits.
        """
        while self.runs and into.n_rows < up_to_rows:
            run = self.runs[0]
            if into.parts and run.events.layout != into.parts[0].layout:
                return
            n = min(len(run), up_to_rows - into.n_rows)
            if n < len(run) and into.n_rows >= enough:
                return
            if up_to_bytes is not None:
                room = up_to_bytes - into.n_bytes
                n = min(n, run.rows_within(room) if room >= 0 else 0) or (0 if into.n_rows else 1)
            if not n:
                return
            self._move(into, run, n)

    def _move(self, into: Taken, run: _Run, n: int) -> None:
        n_bytes = run.bytes_of(n)
        into.born_s = min(into.born_s, run.born_s(n))
        into.added_s = min(into.added_s, run.added_s)
        into.parts.append(run.take(n, n_bytes))
        into.n_rows += n
        into.n_bytes += n_bytes
        self.n_rows -= n
        self.n_bytes -= n_bytes
        if not len(run):
            self.runs.popleft()

    def born_s(self, n_rows: int) -> float:
        """Return when the oldest record of the next rows was produced."""
        oldest = float("inf")
        for run in self.runs:
            oldest = min(oldest, run.born_s(n_rows))
            n_rows -= len(run)
            if n_rows <= 0:
                break
        return oldest

    def replace(self, runs: Iterable[_Run]) -> None:
        self.runs = deque(runs)
        self.n_rows = sum(map(len, self.runs))
        self.n_bytes = sum(run.n_bytes for run in self.runs)


class RowQueue:
    """Rows in the order in which they came, a lane for each priority; batches are merged and split on their way out.

    Every row is copied at most twice, however often its batch is split, and not at all where a batch goes whole.
    Where not all that waits fits, the lanes above go first, but the rows that have waited longest in the lanes below
    get an eighth; the share is kept on the average where a batch has fewer than eight rows.

    Examples
    --------
    >>> queue = RowQueue()
    >>> queue.add(EventBatch.of_events([{"x": 1}, {"x": 2}]), now_s=0.0, wall_s=0.0)
    >>> queue.add(EventBatch.of_events([{"x": 3}]), now_s=1.0, wall_s=1.0)
    >>> [part.events for part in queue.take(2, None).parts], queue.n_rows
    ([[{'x': 1}, {'x': 2}]], 1)
    """

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._owed = 0.0
        self.n_rows = 0
        self.n_bytes = 0

    @property
    def added_s(self) -> float:
        """When the row that has waited longest came, on the monotonic clock; infinite where there is none."""
        return min((lane.runs[0].added_s for lane in self._lanes.values() if lane.runs), default=float("inf"))

    def born_s(self, n_rows: int) -> float:
        """Return when the oldest record among the next `n_rows` rows of each lane was produced."""
        return min((lane.born_s(n_rows) for lane in self._lanes.values() if lane.runs), default=float("inf"))

    def add(self, events: EventBatch, now_s: float, wall_s: float) -> None:
        """Put rows behind those that are here, each in its lane.

        Parameters
        ----------
        events : EventBatch
            Rows, all of them kept.
        now_s, wall_s : float
            The time on the monotonic clock, and in seconds since 1970.
        """
        if not len(events):
            return
        priorities = [0] if events.priorities is None else np.unique(events.priorities).tolist()
        for priority in priorities:
            part = events if len(priorities) == 1 else events.select(np.flatnonzero(events.priorities == priority))
            run = _Run(part, now_s, wall_s)
            self._lane(priority).add(run)
            self.n_rows += len(run)
            self.n_bytes += run.n_bytes

    def _lane(self, priority: int) -> _Lane:
        if priority not in self._lanes:
            self._lanes[priority] = _Lane()
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        return self._lanes[priority]

    def take(self, max_rows: int, max_bytes: int | None, enough: int | None = None) -> Taken:
        """Return the rows whose turn it is.

        Parameters
        ----------
        max_rows : int
            At most so many rows, 1 or more.
        max_bytes : int or None
            At most so many bytes, unless the first row alone has more.
        enough : int, optional
            With so many rows, 1 or more, the last batch is rather left whole than cut.
        """
        enough = max_rows if enough is None else enough
        taken = Taken()
        lanes = [lane for lane in self._lanes.values() if lane.runs]
        all_fit = self.n_rows <= max_rows and (max_bytes is None or self.n_bytes <= max_bytes)
        if len(lanes) > 1 and not all_fit:
            self._take_owed(taken, lanes[1:], max_rows, max_bytes)
        else:
            self._owed = 0.0
        for lane in lanes:
            lane.take(taken, max_rows, max_bytes, enough)
            if lane.runs:
                break
        self.n_rows -= taken.n_rows
        self.n_bytes -= taken.n_bytes
        return taken

    def _take_owed(self, taken: Taken, lower: list[_Lane], max_rows: int, max_bytes: int | None) -> None:
        """Take what is due to the lower lanes first, the longest wait first: behind the others it may not fit."""
        self._owed += max_rows * _LOWER_SHARE
        due = int(self._owed)
        up_to_bytes = None if max_bytes is None else math.ceil(max_bytes * _LOWER_SHARE)
        while taken.n_rows < due:
            waiting = [lane for lane in lower if lane.runs]
            if not waiting:
                break
            lane = min(waiting, key=lambda lane: lane.runs[0].added_s)
            before = taken.n_rows
            up_to_rows = min(due, before + len(lane.runs[0]))
            lane.take(taken, up_to_rows, up_to_bytes, enough=up_to_rows)
            if taken.n_rows == before:
                break
        # What did not fit is owed no longer, or small rows would have to make up for large ones.
        self._owed -= due

    def drop(self, is_live: Callable[[Any], bool]) -> int:
        """Forget the rows whose source is not live, and return how many they were."""
        before = self.n_rows
        for lane in self._lanes.values():
            lane.replace(run for run in map(_live_part(is_live), lane.runs) if run is not None)
        self.n_rows = sum(lane.n_rows for lane in self._lanes.values())
        self.n_bytes = sum(lane.n_bytes for lane in self._lanes.values())
        return before - self.n_rows


def _live_part(is_live: Callable[[Any], bool]) -> Callable[[_Run], _Run | None]:
    def part(run: _Run) -> _Run | None:
        lineage = run.events.lineage
        live = np.array([is_live(source) for source in lineage.sources], np.bool_)
        if live.all():
            return run
        rows = np.flatnonzero(live[lineage.source_index[run.start :]]) + run.start
        return _Run(run.events.select(rows), run.added_s, run.wall_s) if len(rows) else None

    return part
