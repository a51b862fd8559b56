"""The price of a model: what a call and what a row costs, measured on distinct rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from modelstream.models.contract import Column
from modelstream.models.cost import CostModel
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.probe import take_rows

__all__ = ["PRICE_SIZES", "Price", "PricePoint", "measure_price"]

#: Rows of a call; each eight times the one before, so that both the call and the row are felt.
PRICE_SIZES = (1, 8, 64, 512, 4096)

#: Calls per size: enough for a median, and no more than this much time. The first are not counted: they warm up.
_MAX_CALLS, _MIN_CALLS, _WARM_UP_CALLS = 200, 3, 1
_SECONDS_PER_SIZE = 0.25

#: A size whose call takes longer is the last: the line is known by then.
_LONGEST_CALL_S = 1.0


@dataclass(frozen=True, slots=True)
class PricePoint:
    """What calls of one size cost.

    Parameters
    ----------
    n_rows : int
        Rows of each call.
    n_calls : int
        Calls that were measured.
    seconds : float
        The median of their times.
    """

    n_rows: int
    n_calls: int
    seconds: float

    @property
    def us_per_row(self) -> float:
        """Microseconds per row."""
        return self.seconds / self.n_rows * 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """The cost curve t(n) = b + a·n.

    Parameters
    ----------
    points : tuple of PricePoint
        What was measured, by rows.
    fixed_s, per_row_s : float
        b and a.
    knee : int
        Rows at which the fixed cost is 10 % of a call.
    """

    points: tuple[PricePoint, ...]
    fixed_s: float
    per_row_s: float
    knee: int

    @property
    def batch(self) -> int:
        """The knee, or the largest size measured where the knee lies beyond."""
        return min(self.knee, self.points[-1].n_rows)

    @property
    def us_per_row(self) -> float:
        """Microseconds per row in batches of `batch` rows."""
        return (self.fixed_s + self.per_row_s * self.batch) / self.batch * 1e6

    @property
    def rows_per_s(self) -> float:
        """Rows per second and thread in such batches."""
        return 1e6 / self.us_per_row


def measure_price(
    model: OnnxModel,
    columns: Mapping[str, Column],
    n_rows: int,
    sizes: Sequence[int] = PRICE_SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> Price:
    """Return the price of a model; it takes about a second on one thread.

    Parameters
    ----------
    model : OnnxModel
        The model, without a timeout.
    columns : mapping of str to Column
        Rows that differ from each other: of equal rows the processor learns the way through a tree by heart.
    n_rows : int
        How many, at least the largest size.
    sizes : sequence of int, optional
        Rows of a call, rising.
    clock : callable, optional
        Seconds, for tests.

    Raises
    ------
    InferenceError
        If the model fails.
    """
    cost = CostModel()
    points: list[PricePoint] = []
    for size in sizes:
        seconds = _measure(model, columns, n_rows, size, clock)
        for one in seconds:
            cost.observe(size, one)
        points.append(PricePoint(size, len(seconds), median(seconds)))
        if points[-1].seconds > _LONGEST_CALL_S:
            break
    return Price(tuple(points), cost.fixed_s, cost.per_row_s, cost.knee())


def _measure(
    model: OnnxModel, columns: Mapping[str, Column], n_rows: int, size: int, clock: Callable[[], float]
) -> list[float]:
    """Return the times of calls of one size, each with the next rows."""
    seconds: list[float] = []
    began = clock()
    for call in range(_MAX_CALLS + _WARM_UP_CALLS):
        start = call * size % (n_rows - size + 1)
        rows = take_rows(columns, start, start + size)
        before = clock()
        model.predict(rows, size)
        after = clock()
        if call >= _WARM_UP_CALLS:
            seconds.append(after - before)
        if after - began > _SECONDS_PER_SIZE and len(seconds) >= _MIN_CALLS:
            break
        if after - before > _LONGEST_CALL_S and seconds:
            break
    return seconds
