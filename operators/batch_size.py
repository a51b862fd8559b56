"""How large a micro-batch may be, so that its oldest event is answered within a target: learnt while it runs."""

from __future__ import annotations

import heapq

from modelstream.models.cost import CostModel
from modelstream.operators.batch_statistics import BatchMode

__all__ = ["SizeController"]

#: Share of a batch's time that its fixed cost is, at most, where rows enough wait. A batch is not made larger: that
#: would gain no more than this. With a tenth instead, a model at 95 % of its capacity would fall behind, as every
#: tenth of its time would be lost; 2 % are lost to no load that a worker should run at.
_OVERHEAD = 0.02

#: Share of the target that is not planned with: the fit tells what a batch takes in the middle, not at the worst.
_HEADROOM = 0.1

#: A batch is at most so many times as large as the largest size measured. Beyond, the fit is a guess, and before the
#: first batch there is none: a model that takes a second a row would show it at the end of 1,024 rows.
_STEP = 4
#: Batches that make a size a measured one. One alone does not: the first ones take up to four times as long as later
#: ones do, and of that the fit would make a fixed cost that only large batches are worth.
_MEASURED_BATCHES = 3
#: As if so many rows had been measured before the first batch. A row of a model that is fit for a stream takes at most
#: a millisecond or so.
_FIRST_SIZE = 16

#: Up to the size at which the fixed cost is a tenth a larger batch pays, as far as the line is right. From there on
#: sizes are measured, and none is used whose rows take so much longer than those of a smaller one: its data no longer
#: fits the cache.
_PAYS, _DEARER = 0.1, 0.05

#: The guard's factor after a batch that took too long for its fit, and the share of a batch's rows that a good one
#: adds: Clipper's rule. It gives way where more than 38 % of the batches are late, so not to a slow moment here and
#: there.
_BACK_OFF = 0.9
_GROWTH = 1 / 16

#: Batches in a row, none with a row older than half the target, after which lag is over. One batch would not do: under
#: lag from several partitions, young rows of one come before old rows of the other.
_CALM_BATCHES = 8

#: Batches between two looks at the fit, which takes some 50 µs, as long as the service of a small batch. The first ones
#: are looked at one by one.
_REFIT_EVERY = 32


#: With r rows a second, batches of r·b / (1 - r·a) rows just keep up. Batches are made smaller for the sake of their
#: oldest row only down to so many times that size. With 1 the p99 at nine tenths of the capacity is up to a third
#: longer, in a simulation of calls that cost 1 or 2 ms; with 4 it is hardly longer than without the rule.
_MARGIN = 4

#: The rate of rows is taken over so long at least, and a rate so long ago counts half: some bursts, and not one.
_RATE_WINDOW_S = 0.05
_RATE_MEMORY_S = 0.5

#: What it takes to cut a batch in two and to join a part with another one, in seconds a row, measured with a few
#: columns of numbers. Wide vectors take more.
_COPY_ROW_S = 0.15e-6


class SizeController:
    """Caps micro-batches: by a size, and by a target for the age of events when they are answered.

    It knows the cost t(n) = b + a·n of a batch from the batches before, and with a target takes the least of

    * the size at which the fixed cost b is 2 %,
    * the size that still answers the oldest row in time, counting the time that it spent in Kafka; but only where
      batches of that size keep up with what comes, and more, so that it does not make all rows behind the oldest late,
    * the guard: a tenth less after a batch that was late though by the fit it should not, a sixteenth more otherwise,
    * the largest size before one whose rows were measured to take 5 % longer than those of smaller ones,
    * four times the size that three batches had so far, or more.

    Once a row is older than the target it is late whatever is done. Then batches are made for throughput, as large as
    the whole target allows, until all rows are younger than half the target for some batches.

    Parameters
    ----------
    max_size : int
        The cap that holds in any case.
    target_s : float or None
        What 99 % of the events should be answered within, in seconds after their record was produced.
    downstream_s : float
        What follows a batch, such as the wait for more records to produce.
    cost : CostModel
        Where the cost of batches is learnt; `finished` tells it.

    Examples
    --------
    >>> sizes = SizeController(1024, target_s=0.020, downstream_s=0.0, cost=CostModel())
    >>> for n_rows in (1, 8, 32, 128) * 8:
    ...     sizes.finished(n_rows, age_s=0.0, service_s=0.001 + 20e-6 * n_rows)
    >>> sizes.cap(1000, age_s=0.005)  # 13 ms are left, but 128 rows is the largest batch measured
    (512, False)
    >>> sizes.cap(1000, age_s=0.015)  # 3 ms: 1 ms and 100 rows
    (100, True)
    """

    def __init__(self, max_size: int, target_s: float | None, downstream_s: float, cost: CostModel) -> None:
        self._max_size = max_size
        self._has_target = target_s is not None
        self._target_s = float("inf") if target_s is None else target_s
        self._downstream_s = downstream_s
        self._planned_s = self._target_s * (1 - _HEADROOM) - downstream_s
        self._cost = cost
        self._guard = float(max_size)
        self._largest = [_FIRST_SIZE] * _MEASURED_BATCHES
        self._most = min(max_size, _STEP * _FIRST_SIZE)
        self._lagging = False
        self._calm = 0
        self._n_finished = 0
        self._fixed_s = self._per_row_s = 0.0
        self._knee = self._pays_to = max_size
        self._least = 1.0
        self._rate_per_s = 0.0
        self._n_added = 0
        self._counting_since_s: float | None = None

    @property
    def mode(self) -> BatchMode | None:
        """What batches are made for now; None without a target."""
        if not self._has_target:
            return None
        return BatchMode.THROUGHPUT if self._lagging else BatchMode.LATENCY

    def cap(self, n_waiting: int, age_s: float) -> tuple[int, bool]:
        """Return how many rows a batch may have, and whether it is the age of the oldest row that allows no more.

        Parameters
        ----------
        n_waiting : int
            Rows that wait.
        age_s : float
            How long ago the oldest of them was produced.
        """
        if not self._has_target:
            return self._max_size, False
        if self._lagging or age_s > self._target_s:
            return min(self._most, max(self._knee, self._rows_within(self._planned_s))), False
        # A quarter of what waits, where that is more: a burst is split, but never into so many batches that a wrong
        # knee makes it lag.
        size = min(self._most, max(self._knee, -(-n_waiting // 4)), int(self._guard))
        in_time = self._rows_within(self._planned_s - age_s)
        return (in_time, True) if self._least <= in_time < size else (size, False)

    def enough(self, cap: int) -> int:
        """Return how many rows a batch should have before cutting another one costs more than the rows would save."""
        if not self._fixed_s:
            return cap
        return min(cap, max(1, int(1 / (_COPY_ROW_S / self._fixed_s + 1 / cap))))

    def spare_s(self, n_rows: int, age_s: float) -> float:
        """Return for how long a batch of so many rows can still wait, for its oldest row to be answered in time."""
        return self._planned_s - age_s - self._fixed_s - self._per_row_s * n_rows

    def added(self, n_rows: int, now_s: float) -> None:
        """Note that rows came, at a time on a monotonic clock: how many come in a second."""
        if self._counting_since_s is None:
            self._counting_since_s = now_s
        passed_s = now_s - self._counting_since_s
        if passed_s >= _RATE_WINDOW_S:
            weight = passed_s / (passed_s + _RATE_MEMORY_S)
            self._rate_per_s += weight * (self._n_added / passed_s - self._rate_per_s)
            self._n_added, self._counting_since_s = 0, now_s
            self._refit()
        self._n_added += n_rows

    def took(self, age_s: float) -> None:
        """Note that a batch was closed, when its oldest row was so old."""
        if age_s > self._target_s:
            self._lagging, self._calm = True, 0
        elif self._lagging:
            self._calm = self._calm + 1 if age_s < self._target_s / 2 else 0
            self._lagging = self._calm < _CALM_BATCHES

    def finished(self, n_rows: int, age_s: float, service_s: float) -> None:
        """Learn from a batch.

        Parameters
        ----------
        n_rows : int
            Its rows.
        age_s : float
            How old the oldest of them was when the batch was closed.
        service_s : float
            What it took.
        """
        before_s = age_s + self._downstream_s
        if before_s + service_s <= self._target_s:
            self._guard = min(float(self._max_size), self._guard + n_rows * _GROWTH)
        elif before_s + self._fixed_s + self._per_row_s * n_rows <= self._target_s and 2 * n_rows > self._guard:
            # A smaller batch that was late says that something was in the way, and nothing of the size.
            self._guard = max(1.0, self._guard * _BACK_OFF)
        self._cost.observe(n_rows, service_s)
        heapq.heappushpop(self._largest, n_rows)
        # Of a batch that was about as large as it could be: to look at all the small ones would take a tenth of them.
        if 2 * n_rows > self._most:
            known = min(self._max_size, _STEP * self._largest[0])
            pays_to = min(self._pays_to, known)
            # Under lag all batches are large, and of those alone the line does not tell how large is large enough.
            least = min(pays_to, max(1, known // _STEP)) if self._lagging else pays_to
            self._most = self._cost.worthwhile(least, known, _DEARER, pays_to)
        self._n_finished += 1
        if self._n_finished < _REFIT_EVERY or self._n_finished % _REFIT_EVERY == 0:
            self._refit()

    def _refit(self) -> None:
        self._fixed_s, self._per_row_s = self._cost.fixed_s, self._cost.per_row_s
        self._knee, self._pays_to = self._cost.knee(_OVERHEAD), self._cost.knee(_PAYS)
        spare = 1 - self._rate_per_s * self._per_row_s
        self._least = max(1.0, _MARGIN * self._rate_per_s * self._fixed_s / spare) if spare > 0 else float("inf")

    def _rows_within(self, seconds: float) -> int:
        """Return how many rows a batch may have to take so long; 0 where not even one."""
        left_s = seconds - self._fixed_s
        # Multiplied, as a row may cost nothing that can be measured.
        if left_s >= self._per_row_s * self._max_size:
            return self._max_size
        return max(0, int(left_s / self._per_row_s)) if left_s > 0 else 0
