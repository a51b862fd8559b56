"""Whether a cache pays: what it costs against what it saves, measured, and left alone where it does not."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from statistics import median

from modelstream.models.cost import CostModel
from modelstream.operators.batch import Column
from modelstream.operators.reuse import ReuseSample
from modelstream.operators.stage_clock import Clock, thread_clock

__all__ = ["Bypass", "Level", "Spent"]

logger = logging.getLogger(__name__)

#: Costs are medians of so many batches: up to four may be slow because the thread was descheduled.
_KEPT_COSTS = 9
#: Rows that are looked at before the first decision, some 64 of them in the sample; and batches between two decisions.
_FIRST_ROWS = 4096
_EVERY_BATCHES = 4
#: What the sample needs thousands of rows for, a cache in use has counted sooner: after so many rows, in so many
#: batches, which is soon enough also where a round trip is made for a row or two.
_FIRST_COUNTED_ROWS, _FIRST_COUNTED_BATCHES = 256, 32
#: Rows that may have been known for all that one can tell, where none was; and how far chance may be from what was
#: counted, in standard deviations.
_UNSEEN_ROWS, _DEVIATIONS = 4.6, 4
#: What another level must gain to be taken, as a share of the models' time: what makes less of a difference is noise.
_MARGIN = 0.01
#: Seconds between two changes at least.
_DWELL_S = 1.0
#: Seconds after which one batch is given to all levels again, to learn what they cost and know by now.
_PROBE_EVERY_S = 10.0
#: Share of the stage's time that sampling and deciding may cost. Wide rows take longer to look at than a small model
#: to answer.
_OWN_SHARE = 0.005
#: Seconds by which they may be ahead of that.
_AHEAD_S = 0.005
#: How many times as many rows the largest call of the models must have had as the smallest, before it can be told what
#: a call costs and what a row. Else the time is taken to be the rows'.
_SPREAD = 4
#: Weight of the newest batch among those that Redis was asked about.
_NEWEST = 0.05


class Level(IntEnum):
    """How much of a cache is in use."""

    OFF = 0
    #: This process's memory alone.
    MEMORY = 1
    #: Memory, then Redis.
    REDIS = 2


@dataclass(slots=True)
class Spent:
    """What one batch cost a cache, and what it knew.

    Parameters
    ----------
    n_rows : int
        Rows of the batch.
    n_asked : int
        Rows that Redis was asked about.
    n_computed : int
        Rows that the models were asked about.
    n_far : int
        Rows that memory did not know.
    own_s : float
        Seconds that keys, memory and putting together took.
    redis_s : float
        Seconds that asking Redis took.
    """

    n_rows: int
    n_asked: int = 0
    n_computed: int = 0
    n_far: int = 0
    own_s: float = 0.0
    redis_s: float = 0.0


@dataclass(slots=True)
class _Counted:
    """Rows that were looked for since the start, and how many of them were not known."""

    n_batches: int = 0
    n_rows: int = 0
    n_unknown: int = 0

    def add(self, n_rows: int, n_unknown: int) -> None:
        self.n_batches += 1
        self.n_rows += n_rows
        self.n_unknown += n_unknown

    @property
    def is_enough(self) -> bool:
        return self.n_rows >= _FIRST_COUNTED_ROWS and self.n_batches >= _FIRST_COUNTED_BATCHES

    @property
    def share(self) -> float:
        """Share of rows that are not known, rather too low than too high: few rows say little of the others."""
        n_known = self.n_rows - self.n_unknown
        return max(0.0, 1 - (n_known + _DEVIATIONS * math.sqrt(n_known) + _UNSEEN_ROWS) / self.n_rows)


@dataclass(slots=True)
class _Start:
    """What a cache has counted before its first decision."""

    far: _Counted = field(default_factory=_Counted)
    new: _Counted = field(default_factory=_Counted)


class Bypass:
    """Chooses the level of a cache for each batch. It has no lock: one thread at a time.

    What a level costs is the median of what it cost the last batches. What it saves follows from the models' cost per
    row, and from the share of rows that it does not know: as counted where it is in use, and as a small sample of the
    stream says where it is not. So a stream that begins to repeat itself is noticed while the cache is off.

    Parameters
    ----------
    step_id : str
        The stage, for the log.
    top : Level
        The highest level that there is.
    memory_rows : int
        Rows that memory holds.
    ttl_s : float
        Seconds that answers are kept.
    enabled : bool
        Whether it may choose; else it is always the highest.
    clock : callable
        What it costs to look at the stream is measured by, and how long ago something was.
    """

    def __init__(
        self,
        step_id: str,
        top: Level,
        memory_rows: int,
        ttl_s: float,
        *,
        enabled: bool = True,
        clock: Clock = thread_clock,
    ) -> None:
        self._step_id = step_id
        self._top = top
        self._enabled = enabled
        self._clock = clock
        self._sample = ReuseSample(memory_rows, ttl_s, self._now_s)
        self._debt_s = 0.0
        self.level = top
        self.changes = 0
        self.models = CostModel()
        self._own: deque[float] = deque(maxlen=_KEPT_COSTS)
        self._asked: deque[float] = deque(maxlen=_KEPT_COSTS)
        self._written: deque[float] = deque(maxlen=_KEPT_COSTS)
        #: Shares of rows that memory, and that all levels, did not know; None where nothing new is known of them.
        self._counted_far: float | None = None
        self._counted_new: float | None = None
        self._rows_per_batch = self._rows_per_call = 0.0
        self._fewest, self._most = float("inf"), 0
        self._n_batches = 0
        self._decided = False
        self._start = _Start()
        self._changed_at, self._probed_at = float("-inf"), self._now_s()

    def plan(self, columns: Sequence[Column], n_rows: int) -> Level:
        """Return the level for the next batch.

        Parameters
        ----------
        columns : sequence of Column
            What the models read.
        n_rows : int
            Rows of the columns.
        """
        if not self._enabled:
            return self._top
        self._rows_per_batch += (n_rows - self._rows_per_batch) * (_NEWEST if self._rows_per_batch else 1)
        if not self._decided:
            self._look_at(columns, n_rows)
        elif self._debt_s <= 0:
            start = self._clock()
            self._look_at(columns, n_rows)
            self._debt_s += (self._clock() - start).cpu_s
        if self.level < self._top and self._now_s() - self._probed_at >= _PROBE_EVERY_S:
            self._probed_at = self._now_s()
            return self._top
        return self.level

    def computed(self, n_rows: int, seconds: float) -> None:
        """Learn what the models took for some rows."""
        self.models.observe(n_rows, seconds)
        self._fewest, self._most = min(self._fewest, n_rows), max(self._most, n_rows)
        self._rows_per_call += (n_rows - self._rows_per_call) * (_NEWEST if self._rows_per_call else 1)
        self._earn(seconds)

    def spent(self, batch: Spent) -> None:
        """Learn what a batch took at a level above `Level.OFF`."""
        self._earn(batch.own_s + batch.redis_s)
        self._own.append(batch.own_s / batch.n_rows)
        self._counted_far = _newer(self._counted_far, batch.n_far / batch.n_rows)
        if batch.n_asked:
            self._asked.append(batch.redis_s / batch.n_asked)
            self._counted_new = _newer(self._counted_new, batch.n_computed / batch.n_rows)
        if self._enabled and not self._decided:
            self._count_first(batch)

    def written(self, n_rows: int, seconds: float) -> None:
        """Learn what writing to Redis took."""
        if n_rows:
            self._written.append(seconds / n_rows)

    def saved_s(self, n_rows: int, n_computed: int) -> float:
        """Return how many seconds of the models' time a batch has saved, by the estimate of their cost."""
        fixed_s, per_row_s = self._cost()
        return per_row_s * (n_rows - n_computed) + (0.0 if n_computed else fixed_s)

    def _count_first(self, batch: Spent) -> None:
        """Give up what has been seen not to pay, before the sample can tell."""
        start = self._start
        start.far.add(batch.n_rows, batch.n_far)
        if batch.n_asked or not batch.n_far:  # else Redis did not answer
            start.new.add(batch.n_rows, batch.n_computed)
        needed = start.far if self._top is Level.MEMORY else start.new
        if start.far.n_batches % _FIRST_COUNTED_BATCHES or not needed.is_enough:
            return
        far = start.far.share
        gains = self._gains(far, min(far, start.new.share if start.new.is_enough else far))
        best = max(range(self._top + 1), key=gains.__getitem__)
        if best < self.level:
            self._change(Level(best), gains)
            self._decided = self.changes > 0

    def _now_s(self) -> float:
        return self._clock().wall_s

    def _earn(self, seconds: float) -> None:
        """Let a share of the stage's time pay for looking at it."""
        self._debt_s = max(self._debt_s - seconds * _OWN_SHARE, -_AHEAD_S)

    def _look_at(self, columns: Sequence[Column], n_rows: int) -> None:
        try:
            self._sample.observe(columns, n_rows)
        except TypeError:  # no text: for the models to refuse
            return
        self._n_batches += 1
        if self._n_batches % _EVERY_BATCHES == 0 and self._sample.weight >= _FIRST_ROWS:
            self._decide()

    def _decide(self) -> None:
        self._decided = True
        gains = self._gains(*self._shares())
        self._change(Level(max(range(self._top + 1), key=gains.__getitem__)), gains)

    def _change(self, best: Level, gains: Sequence[float]) -> None:
        """Take another level, if it gains enough and the last change was long enough ago."""
        needed = _MARGIN * self._per_row_s()
        now = self._now_s()
        if best == self.level or gains[best] - gains[self.level] <= needed or now < self._changed_at + _DWELL_S:
            return
        self._say(best)
        self.level = best
        self.changes += 1
        self._changed_at = self._probed_at = now
        # Not measured any more, or not for long: what the sample says is newer.
        self._counted_far = self._counted_new = None

    def _cost(self) -> tuple[float, float]:
        """Return what a call of the models costs, and what each row adds, in seconds."""
        if self._most >= _SPREAD * self._fewest:
            return self.models.fixed_s, self.models.per_row_s
        n_rows = max(1, round(self._rows_per_call))
        return 0.0, self.models.seconds(n_rows) / n_rows

    def _per_row_s(self) -> float:
        fixed_s, per_row_s = self._cost()
        return per_row_s + fixed_s / max(self._rows_per_batch, 1.0)

    def _shares(self) -> tuple[float, float]:
        """Return the shares of rows that memory does not know, and that no level knows."""
        far = min(self._sample.far_share, 1.0 if self._counted_far is None else self._counted_far)
        new = min(self._sample.new_share, 1.0 if self._counted_new is None else self._counted_new, far)
        return far, new

    def _gains(self, far: float, new: float) -> list[float]:
        """Return for each level how many seconds it gains per row of the stream, of which it does not know a share."""
        own, asked, written = (median(costs) if costs else 0.0 for costs in (self._own, self._asked, self._written))
        memory = self._saved(far) - own
        return [0.0, memory, self._saved(new) - own - asked * far - written * new]

    def _saved(self, unknown: float) -> float:
        """Return the models' seconds saved per row of the stream, where they are asked about a share of the rows."""
        n_rows = max(self._rows_per_batch, 1.0)
        asked_at_all = min(1.0, unknown * n_rows)
        fixed_s, per_row_s = self._cost()
        return per_row_s * (1 - unknown) + fixed_s * (1 - asked_at_all) / n_rows

    def _say(self, level: Level) -> None:
        far, new = self._shares()
        names = {Level.OFF: "off", Level.MEMORY: "memory only", Level.REDIS: "memory and Redis"}
        own, asked = (1e6 * median(costs) if costs else 0.0 for costs in (self._own, self._asked))
        logger.info(
            "stage %s: the cache is now %s, was %s: a row costs the models %.2f µs, the cache %.2f µs, asking Redis "
            "%.2f µs; of 100 rows memory would know %.0f, Redis %.0f more",
            self._step_id, names[level], names[self.level], 1e6 * self._per_row_s(), own, asked,
            100 * (1 - far), 100 * (far - new),
        )  # fmt: skip


def _newer(share: float | None, newest: float) -> float:
    return newest if share is None else share + (newest - share) * _NEWEST
