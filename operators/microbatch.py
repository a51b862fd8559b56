"""The micro-batcher: gathers events for a model and says, when the model is free, what to run now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from modelstream.models.cost import CostModel
from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch
from modelstream.operators.batch_size import SizeController
from modelstream.operators.batch_statistics import BatchStatistics, CloseReason
from modelstream.operators.row_queue import RowQueue

__all__ = ["BatchPolicy", "BatchStatistics", "CloseReason", "MicroBatch", "MicroBatcher"]

#: A wait that is so nearly over is over: now + (due - now) may be less than due in floating point, and a timer that
#: fires then would find nothing to do, again and again.
_SOON_S = 1e-6


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When and how micro-batches are closed.

    Parameters
    ----------
    max_size : int
        Rows of a micro-batch at most.
    max_wait_s : float
        How long the first row may wait for more although the model is free. 0: not at all.
    max_bytes : int, optional
        Bytes of a micro-batch at most, by the records' values; a row that has more goes alone.
    target_p99_s : float, optional
        What 99 % of the events should be answered within, counted from the time of their record.
    queue_rows, queue_bytes : int
        With so much waiting there is no room for more.
    downstream_s : float
        What follows a micro-batch before its predictions are produced, such as a linger: it counts for the target. A
        target that leaves no time besides it is held as well as it can be.

    Raises
    ------
    ConfigError
        If a value is out of its range.

    Examples
    --------
    >>> BatchPolicy(max_size=256, target_p99_s=0.020).max_wait_s
    0.0
    >>> BatchPolicy(max_size=0)
    Traceback (most recent call last):
    ...
    modelstream.models.errors.ConfigError: batch.max_size: must be 1 or more, not 0
    """

    max_size: int = 1024
    max_wait_s: float = 0.0
    max_bytes: int | None = None
    target_p99_s: float | None = None
    queue_rows: int = 65_536
    queue_bytes: int = 64 * 1024 * 1024
    downstream_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_size", "max_bytes", "queue_rows", "queue_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"batch.{name}", f"must be 1 or more, not {value}")
        for field in fields(self):
            value = getattr(self, field.name)
            # So put that NaN is wrong, too.
            if field.name.endswith("_s") and value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"batch.{field.name}", f"must be 0 seconds or more, not {value}")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows to run together.

    Parameters
    ----------
    events : EventBatch
        The rows. A batch that was added and goes whole is the same object.
    reason : CloseReason
        Why there are no more and no fewer.
    number : int
        Which micro-batch of its batcher it is, from 1.
    queued_s : float
        The longest wait of its rows in the batcher, in seconds.
    age_s : float
        The time since the oldest of its records was produced, in seconds; never less than `queued_s`.
    joined_s : float
        What it took to put its rows together, in seconds: of wide rows as much as a third of what their model takes.
    """

    events: EventBatch
    reason: CloseReason
    number: int
    queued_s: float
    age_s: float
    joined_s: float


class MicroBatcher:
    """Gathers rows that wait for a model, and gives them out as micro-batches.

    It never keeps a free model waiting, unless `max_wait_s` says so: `take` gives what is there, and what comes
    meanwhile is the next micro-batch. So batches grow with the load by themselves. Rows of several batches go
    together, and a large batch is split; the rows of one source stay in their order, those of higher priority first.

    It belongs to one thread, does not block, and has no timer: `due_in_s` says when `take` is worth a call.

    Parameters
    ----------
    policy : BatchPolicy
        Limits.
    clock : callable
        Monotonic seconds, for waits.
    wall_clock : callable
        Seconds since 1970, for nothing but the age of rows when they are added; it may jump.

    Examples
    --------
    >>> batcher = MicroBatcher(BatchPolicy(max_size=3))
    >>> batcher.add(EventBatch.of_events([{"x": 1}, {"x": 2}]))
    >>> batcher.add(EventBatch.of_events([{"x": 3}, {"x": 4}]))
    >>> batch = batcher.take()
    >>> batch.events.events, str(batch.reason), batcher.n_rows
    ([{'x': 1}, {'x': 2}, {'x': 3}], 'full', 1)
    >>> batcher.finished(batch, len(batch.events), service_s=0.001)
    >>> str(batcher.take().reason), batcher.take()
    ('idle', None)
    """

    def __init__(
        self,
        policy: BatchPolicy,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue = RowQueue()
        self._cost = CostModel()
        self._sizes = SizeController(policy.max_size, policy.target_p99_s, policy.downstream_s, self._cost)
        self._number = 0
        self._statistics = BatchStatistics(cap=policy.max_size)

    @property
    def n_rows(self) -> int:
        """Rows that wait."""
        return self._queue.n_rows

    @property
    def n_bytes(self) -> int:
        """Bytes of the records whose rows wait, as far as they are known."""
        return self._queue.n_bytes

    @property
    def has_room(self) -> bool:
        """Whether more may be added: if not, whoever adds is to wait."""
        return self.room_rows > 0

    @property
    def room_rows(self) -> int:
        """How many rows more may be added; by a whole batch it may be exceeded. 0 where the bytes leave no room."""
        if self.n_bytes >= self._policy.queue_bytes:
            return 0
        return max(0, self._policy.queue_rows - self.n_rows)

    @property
    def statistics(self) -> BatchStatistics:
        """What became of the micro-batches so far; always the same object, brought up to date."""
        statistics = self._statistics
        statistics.waiting_rows, statistics.waiting_bytes = self.n_rows, self.n_bytes
        statistics.fixed_us, statistics.per_row_us = self._cost.fixed_s * 1e6, self._cost.per_row_s * 1e6
        statistics.mode = self._sizes.mode
        return statistics

    def add(self, events: EventBatch) -> None:
        """Take all rows of a batch in, whether or not there is room.

        Parameters
        ----------
        events : EventBatch
            Rows, all of them kept. The batch belongs to the batcher from now on.
        """
        now = self._clock()
        self._queue.add(events, now, self._wall_clock())
        self._sizes.added(len(events), now)

    def take(self, *, drain: bool = False) -> MicroBatch | None:
        """Return what the model is to run now; None where nothing waits, or it waits for more.

        Parameters
        ----------
        drain : bool
            Whether nothing more will come for now, so that nothing is to wait for it.
        """
        if not self.n_rows:
            return None
        now = self._clock()
        cap, by_age = self._cap(now)
        if not drain and self._due_s(now, cap) > now + _SOON_S:
            return None
        taken = self._queue.take(cap, self._policy.max_bytes, self._sizes.enough(cap))
        events = EventBatch.concat(taken.parts)
        batch = MicroBatch(
            events=events,
            reason=self._reason(taken.n_rows, taken.n_bytes, cap, by_age=by_age, drain=drain),
            number=self._number + 1,
            queued_s=max(0.0, now - taken.added_s),
            age_s=max(0.0, now - taken.born_s),
            joined_s=self._clock() - now,
        )
        self._number += 1
        self._sizes.took(batch.age_s)
        self._note_taken(batch, cap)
        return batch

    def due_in_s(self) -> float | None:
        """Return the seconds until `take` gives something though nothing is added; None where nothing waits."""
        if not self.n_rows:
            return None
        now = self._clock()
        wait_s = self._due_s(now, self._cap(now)[0]) - now
        return wait_s if wait_s > _SOON_S else 0.0

    def finished(self, batch: MicroBatch, n_rows: int, service_s: float) -> None:
        """Learn what a micro-batch took.

        Parameters
        ----------
        batch : MicroBatch
            One that `take` gave.
        n_rows : int
            Rows that the models saw; what they took is not counted where that is none.
        service_s : float
            Seconds from when it was begun until its predictions were on their way.
        """
        self._statistics.service_us.note(int(service_s * 1e6))
        if n_rows:
            self._sizes.finished(n_rows, batch.age_s, batch.joined_s + service_s)

    def drop(self, is_live: Callable[[Any], bool]) -> int:
        """Forget the rows whose source is no longer live, in a partition that was taken away say.

        Parameters
        ----------
        is_live : callable
            Says it of a source in the lineage of a batch.

        Returns
        -------
        int
            How many rows that were.
        """
        n_rows = self._queue.drop(is_live)
        self._statistics.dropped_rows += n_rows
        return n_rows

    def _cap(self, now: float) -> tuple[int, bool]:
        """Return how many rows a batch may have now, and whether the age of a row is why."""
        return self._sizes.cap(self.n_rows, self._age_s(now))

    def _age_s(self, now: float) -> float:
        """Return how old the oldest row is whose turn it is; 0 where no target asks for it."""
        return 0.0 if self._policy.target_p99_s is None else now - self._queue.born_s(self._policy.max_size)

    def _due_s(self, now: float, cap: int) -> float:
        """Return when what waits is to run, by the monotonic clock."""
        policy = self._policy
        # Without room nothing more comes that could be waited for.
        if policy.max_wait_s == 0 or self.n_rows >= cap or not self.has_room:
            return now
        if policy.max_bytes is not None and self.n_bytes >= policy.max_bytes:
            return now
        due_s = self._queue.added_s + policy.max_wait_s
        return min(due_s, now + self._sizes.spare_s(self.n_rows, self._age_s(now)))

    def _reason(self, n_rows: int, n_bytes: int, cap: int, *, by_age: bool, drain: bool) -> CloseReason:
        if n_rows == cap:
            return CloseReason.DEADLINE if by_age else CloseReason.FULL
        # What is left did not fit: the next row into the bytes, or the next batch without being cut.
        if self.n_rows or n_bytes == self._policy.max_bytes:
            return CloseReason.FULL
        if drain:
            return CloseReason.DRAIN
        return CloseReason.IDLE if self._policy.max_wait_s == 0 else CloseReason.DEADLINE

    def _note_taken(self, batch: MicroBatch, cap: int) -> None:
        statistics = self._statistics
        statistics.batches[batch.reason] += 1
        statistics.rows += len(batch.events)
        statistics.sizes.note(len(batch.events))
        statistics.queued_us.note(int(batch.queued_s * 1e6))
        statistics.cap = cap
