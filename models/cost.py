"""What a call of a model costs: t(n) = b + a·n, learnt from the calls themselves."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

__all__ = ["MAX_KNEE_ROWS", "CostModel"]

#: The knee where rows cost nothing that can be measured: no batch is ever so large.
MAX_KNEE_ROWS = 1_000_000

#: Calls of a size class that its median is taken over. Odd; up to 15 of them may be outliers; a new cost is believed
#: after 16 calls.
_KEPT_CALLS = 31

#: Calls after which a size class that was not seen again counts half.
_HALF_LIFE_CALLS = 200

#: The line moves little by one call, and costs 10 µs to draw: at first it is drawn for each, later for every eighth.
_FIRST_CALLS, _CALLS_PER_FIT = 64, 8

#: The knee is looked for down to this share of the smallest batch seen, and no further at once: of large batches alone
#: the fixed cost is a guess, and a batcher that follows it to 1 row would lose what batching gives.
_REACH = 8

#: A size class tells what a row costs by its last calls, so many, and fewer at first, the latest of them so many calls
#: ago at most: what is dear now may be so because something else is in the processor's cache.
_TELLING_CALLS, _LEAST_TELLING_CALLS, _FRESH_CALLS = 5, 3, 128

#: The least weight of a size class. One that was not seen for long no longer tells how fast the model is, but still
#: tells rows from calls where nothing newer does.
_LEAST_WEIGHT = 1e-6


class CostModel:
    """An online fit of t(n) = b + a·n, in seconds, that forgets, and that a descheduled thread does not mislead.

    Calls are kept by size class (1, 2, 3-4, 5-8, 9-16, … rows); the line goes through the median of each class,
    weighted by the relative error, since the noise of a measured time grows with the time.

    It has no clock and no lock: one thread at a time observes and asks.

    Notes
    -----
    Of one size class alone nobody can tell b from a. Then half of the time counts as fixed: the knee is nine times the
    size seen, so that a batcher which grows towards it sees another class, and the time of a larger batch is not taken
    for nothing.

    Examples
    --------
    >>> cost = CostModel()
    >>> for n_rows in (1, 10, 100, 1000):
    ...     cost.observe(n_rows, 4e-6 + 0.1e-6 * n_rows)
    >>> round(cost.fixed_s * 1e6, 3), round(cost.per_row_s * 1e6, 3), cost.knee()
    (4.0, 0.1, 360)
    """

    __slots__ = ("_classes", "_fixed_s", "_n_fitted", "_n_observed", "_per_row_s", "_smallest")

    def __init__(self) -> None:
        self._classes: dict[int, _SizeClass] = {}
        self._n_observed = 0
        self._fixed_s = 0.0
        self._per_row_s = 0.0
        self._smallest = 0.0
        self._n_fitted = 0

    def observe(self, n_rows: int, seconds: float) -> None:
        """Learn from one call.

        Parameters
        ----------
        n_rows : int
            Rows of the call; none teach nothing and are passed over.
        seconds : float
            How long it took; what is negative or not finite is passed over.
        """
        if n_rows < 1 or not 0 <= seconds < math.inf:
            return
        self._n_observed += 1
        size = _size_class(n_rows)
        known = self._classes.get(size)
        if known is None:
            known = self._classes[size] = _SizeClass()
        known.add(n_rows, seconds, self._n_observed)

    @property
    def fixed_s(self) -> float:
        """Seconds that a call costs however few rows it has: b; 0 before the first call."""
        self._fit()
        return self._fixed_s

    @property
    def per_row_s(self) -> float:
        """Seconds that each row adds: a; 0 before the first call."""
        self._fit()
        return self._per_row_s

    def seconds(self, n_rows: int) -> float:
        """Return how long a call with so many rows takes; it never falls as the rows grow.

        Parameters
        ----------
        n_rows : int
            Rows of the call.
        """
        self._fit()
        return self._fixed_s + self._per_row_s * n_rows

    def knee(self, overhead: float = 0.1) -> int:
        """Return the smallest number of rows at which the fixed cost is at most this share of a call's time.

        Beyond it a larger batch adds latency and hardly any throughput.

        Parameters
        ----------
        overhead : float, optional
            The share, above 0 and below 1.

        Returns
        -------
        int
            From an eighth of the smallest batch seen to `MAX_KNEE_ROWS`; the latter before the first call, since
            nothing speaks against a large batch.
        """
        self._fit()
        fixed_s = self._fixed_s * (1 - overhead)
        per_row_s = self._per_row_s * overhead
        # Compared before they are divided, which could overflow.
        if fixed_s >= per_row_s * MAX_KNEE_ROWS and (fixed_s > 0 or not self._n_observed):
            return MAX_KNEE_ROWS
        # Rounding must not turn 360 into 361.
        knee = math.ceil(fixed_s / per_row_s - 1e-9) if fixed_s > 0 else 1
        return max(1, knee, math.ceil(self._smallest / _REACH))

    def worthwhile(self, least_rows: int, most_rows: int, tolerance: float, surely_rows: int = 1) -> int:
        """Return how many rows a call should have at most: where rows are cheapest, or where that is still to be seen.

        The line cannot tell it: where a call's data leaves the processor's cache, each of its rows takes longer.

        Parameters
        ----------
        least_rows, most_rows : int
            The range that is of interest.
        tolerance : float
            A share of the least time for a row, by which it may be exceeded.
        surely_rows : int, optional
            Up to so many rows a larger call pays, by the line: of a smaller size class nothing need be known, unless
            none of them was measured for so long that the line is a guess there.

        Returns
        -------
        int
            `most_rows`, or a smaller power of two: the last size class before one with dearer rows, or before that the
            first one that was not measured lately, a few times at least.
        """
        best_s = math.inf
        surely = _size_class(surely_rows)
        for size in range(_size_class(least_rows), _size_class(most_rows) + 1):
            known = self._classes.get(size)
            if known is None or not known.tells(self._n_observed):
                if size < surely and self._n_observed - (known.last if known else 0) < _FRESH_CALLS:
                    continue
                return min(most_rows, 1 << size)
            row_s = known.row_s()
            if row_s > best_s * (1 + tolerance):
                return 1 << size - 1
            best_s = min(best_s, row_s)
        return most_rows

    def _fit(self) -> None:
        """Put the line through the medians; least squares of the relative errors, neither coefficient negative."""
        n_new = self._n_observed - self._n_fitted
        if not n_new or (n_new < _CALLS_PER_FIT and self._n_fitted >= _FIRST_CALLS):
            return
        self._n_fitted = self._n_observed
        points = [(*known.medians(), known.weight(self._n_observed)) for known in self._classes.values()]
        self._smallest = min(n for n, _, _ in points)
        if len(points) == 1:
            n, t, _ = points[0]
            self._fixed_s, self._per_row_s = t / 2, t / 2 / n
            return
        # Below a nanosecond no clock can see, and a class of zero time would outweigh every other.
        weighted = [(n, t, weight / max(t, 1e-9) ** 2) for n, t, weight in points]
        total = sum(w for _, _, w in weighted)
        mean_n = sum(w * n for n, _, w in weighted) / total
        mean_t = sum(w * t for _, t, w in weighted) / total
        spread = sum(w * (n - mean_n) ** 2 for n, _, w in weighted)
        slope = sum(w * (n - mean_n) * (t - mean_t) for n, t, w in weighted) / spread
        fixed = mean_t - slope * mean_n
        if slope < 0:
            fixed, slope = mean_t, 0.0
        elif fixed < 0:
            fixed = 0.0
            slope = sum(w * n * t for n, t, w in weighted) / sum(w * n * n for n, _, w in weighted)
        self._fixed_s, self._per_row_s = fixed, slope


def _size_class(n_rows: int) -> int:
    """Return the exponent of the least power of two that is not below."""
    return (n_rows - 1).bit_length()


class _SizeClass:
    """The last calls of one size class, and when the last one was."""

    __slots__ = ("_medians", "_row_s", "_rows", "_seconds", "last")

    def __init__(self) -> None:
        self._rows: deque[int] = deque(maxlen=_KEPT_CALLS)
        self._seconds: deque[float] = deque(maxlen=_KEPT_CALLS)
        self._row_s: deque[float] = deque(maxlen=_TELLING_CALLS)
        self.last = 0
        self._medians: tuple[float, float] | None = None

    def add(self, n_rows: int, seconds: float, now: int) -> None:
        self._rows.append(n_rows)
        self._seconds.append(seconds)
        self._row_s.append(seconds / n_rows)
        self.last = now
        self._medians = None

    def medians(self) -> tuple[float, float]:
        # Time grows with the rows, so the median of the times is the time of the median of the rows.
        if self._medians is None:
            self._medians = float(median(self._rows)), median(self._seconds)
        return self._medians

    def row_s(self) -> float:
        return median(self._row_s)

    def tells(self, now: int) -> bool:
        return len(self._row_s) >= _LEAST_TELLING_CALLS and now - self.last < _FRESH_CALLS

    def weight(self, now: int) -> float:
        faded: float = 0.5 ** ((now - self.last) / _HALF_LIFE_CALLS)
        return max(_LEAST_WEIGHT, len(self._seconds) * faded)
