"""From what was noted during a replay to its figures; pure functions of arrays.

Times are in microseconds since 1970. Latencies are exact: all are kept, and nothing is put into buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelstream.streams.replay.result import Latency, Sample

__all__ = ["Course", "Usage", "UsageReading", "answers_per_s", "highest_lag", "latency", "latency_curve", "samples"]

_PERCENTILES = (50, 90, 99, 99.9, 100)

#: An interval is the shortest of these that gives no more than so many samples.
_INTERVALS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 86_400)
_MOST_SAMPLES = 240

#: Nothing is told by a look that is not later than that.
_LOOK_LATE_US = 500_000

#: Points of the curve in each halving of what is above a percentile, as HdrHistogram prints them.
_TICKS_PER_HALF = 5


class UsageReading(NamedTuple):
    """What was used until a moment, in microseconds since 1970; ``rss_bytes`` is what the workers hold then."""

    at_us: int
    cpu_s: float
    rss_bytes: int
    machine_cpu_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What the workers used, at moments.

    Parameters
    ----------
    at_us : ndarray of int64, shape (n_looks,)
        When.
    cpu_s : ndarray of float64, shape (n_looks,)
        User and system time of all workers until then.
    rss_bytes : ndarray of int64, shape (n_looks,)
        Their resident memory then.
    machine_cpu_s : ndarray of float64, shape (n_looks,)
        Time of all processors until then that was not idle.
    """

    at_us: NDArray[np.int64]
    cpu_s: NDArray[np.float64]
    rss_bytes: NDArray[np.int64]
    machine_cpu_s: NDArray[np.float64]

    @classmethod
    def of(cls, looks: Sequence[UsageReading]) -> Usage | None:
        """Return looks as usage; None where there were none."""
        if not looks:
            return None
        at_us, cpu_s, rss_bytes, machine_cpu_s = zip(*looks, strict=True)
        return cls(np.array(at_us, np.int64), np.array(cpu_s), np.array(rss_bytes, np.int64), np.array(machine_cpu_s))

    def cpu_between_s(self, start_us: int, end_us: int) -> float:
        """Return the workers' CPU seconds between two moments."""
        return self._between(start_us, end_us, self.cpu_s)

    def machine_cpu_between_s(self, start_us: int, end_us: int) -> float:
        """Return the machine's CPU seconds between two moments."""
        return self._between(start_us, end_us, self.machine_cpu_s)

    def _between(self, start_us: int, end_us: int, seconds: NDArray[np.float64]) -> float:
        before, after = np.interp([start_us, end_us], self.at_us, seconds).tolist()
        return float(after - before)


@dataclass(frozen=True, slots=True)
class Course:
    """When events were sent and answered, by one clock.

    Parameters
    ----------
    start_us : int
        When the replay started.
    sent_us : ndarray of int64, shape (n_sent,)
        When each event was sent, never falling.
    answered_us : ndarray of int64, shape (n_answers,)
        When each event that got an answer got its first, a dead letter or a prediction.
    due_sent_us : ndarray of int64, shape (n_answers,)
        When the event of each answer was sent.
    predicted_us : ndarray of int64, shape (n_predicted,)
        When each event that got a prediction got its first.
    latency_us : ndarray of int64, shape (n_predicted,)
        The latency of each of those.
    is_warm : ndarray of bool, shape (n_predicted,)
        Whether the event of each came after the warm-up.
    moved_us : int
        When a look last found something done, be it that events were filtered; 0 where nobody looked.
    """

    start_us: int
    sent_us: NDArray[np.int64]
    answered_us: NDArray[np.int64]
    due_sent_us: NDArray[np.int64]
    predicted_us: NDArray[np.int64]
    latency_us: NDArray[np.int64]
    is_warm: NDArray[np.bool_]
    moved_us: int = 0

    @property
    def end_us(self) -> int:
        """When the last answer came, the last event was sent, or the last one was filtered, whichever is latest."""
        last_us = int(max(self.sent_us.max(initial=self.start_us), self.answered_us.max(initial=self.start_us)))
        # A look comes a moment after what it finds.
        return self.moved_us if self.moved_us - last_us > _LOOK_LATE_US else last_us


def latency(latency_us: NDArray[np.int64]) -> Latency | None:
    """Return the figures of latencies; None where there are none.

    Examples
    --------
    >>> latency(np.array([1000, 3000])).p50_ms
    2.0
    """
    if not len(latency_us):
        return None
    ms = latency_us / 1000
    p50, p90, p99, p999, most = (round(p, 3) for p in np.percentile(ms, _PERCENTILES).tolist())
    return Latency(
        n=len(ms), mean_ms=round(float(ms.mean()), 3), p50_ms=p50, p90_ms=p90, p99_ms=p99, p999_ms=p999, max_ms=most
    )


def latency_curve(latency_us: NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """Return percentiles with their latencies in milliseconds, closer the higher they are, the highest one 100.

    Examples
    --------
    >>> latency_curve(np.array([1000, 3000]))[::5]
    ((0.0, 1.0), (50.0, 2.0), (100.0, 3.0))
    """
    if not len(latency_us):
        return ()
    halvings = int(np.ceil(np.log2(len(latency_us)))) + 1
    above = [
        0.5**half * (1 - tick / (2 * _TICKS_PER_HALF)) for half in range(halvings) for tick in range(_TICKS_PER_HALF)
    ]
    percentiles = [*(100 * (1 - share) for share in above), 100.0]
    ms = np.percentile(latency_us / 1000, percentiles).round(3).tolist()
    return tuple(zip((round(p, 6) for p in percentiles), ms, strict=True))


def highest_lag(course: Course) -> int:
    """Return the most events that were sent and had no answer yet, of those that got one."""
    return int(_lags(course)[1].max())


def _lags(course: Course) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the moments at which the lag changes, in order, and what it is before the first and after each."""
    moments = np.concatenate([course.due_sent_us, course.answered_us])
    changes = np.concatenate([np.ones(len(course.due_sent_us), np.int64), -np.ones(len(course.answered_us), np.int64)])
    # What is sent in the moment of an answer counts as sent before it.
    order = np.lexsort((-changes, moments))
    return moments[order], np.concatenate([[0], np.cumsum(changes[order])])


def _highest_lag_by_interval(course: Course, ends_us: NDArray[np.int64]) -> list[int]:
    # At its end alone an interval would hide whatever came and went in it: with small batches nearly all.
    moments, lags = _lags(course)
    bounds = np.searchsorted(moments, ends_us, "right").tolist()
    # With what is left over from the interval before. An answer's time may be cut to before its event was sent.
    return [max(int(lags[first : last + 1].max()), 0) for first, last in zip([0, *bounds], bounds, strict=False)]


def answers_per_s(predicted_us: NDArray[np.int64], warm_up: float, start_us: int) -> float | None:
    """Return predictions per second after the first share of them; None where they came too few or too fast to tell.

    The longest time without a prediction, from `start_us` on, may be half of that of the rate. A slow stage gives its
    predictions in bursts, and within one of them the rate is that of the producer.

    Examples
    --------
    >>> by_and_by, at_once = np.arange(0, 4_000_000, 1000), 2_000_000 + np.arange(4000)
    >>> answers_per_s(by_and_by, 0.25, 0), answers_per_s(at_once, 0.25, 0)
    (1000.0, None)
    """
    ordered = np.sort(predicted_us)
    if len(ordered) < 2:
        return None
    first_us, last_us = int(ordered[int(warm_up * (len(ordered) - 1))]), int(ordered[-1])
    if last_us - first_us < max(2 * np.diff(ordered, prepend=start_us).max(), 1):
        return None
    n_after = len(ordered) - int(np.searchsorted(ordered, first_us, "right"))
    return round(n_after / (last_us - first_us) * 1e6, 1)


def samples(course: Course, usage: Usage | None) -> tuple[Sample, ...]:
    """Return the course of a replay, one sample an interval."""
    duration_s = (course.end_us - course.start_us) / 1e6
    fitting = (interval for interval in _INTERVALS_S if duration_s <= interval * _MOST_SAMPLES)
    interval_s = next(fitting, duration_s / _MOST_SAMPLES)
    n = max(int(np.ceil(duration_s / interval_s)), 1)
    if 0 < duration_s < interval_s:  # whose rates would be of more time than there was
        interval_s = duration_s
    ends_us = course.start_us + (np.arange(1, n + 1) * interval_s * 1e6).round().astype(np.int64)
    sent, answered = (
        np.searchsorted(np.sort(times), ends_us, "right") for times in (course.sent_us, course.answered_us)
    )
    p50, p99 = _percentiles_by_interval(course, ends_us)
    cpu_percent, rss_mb = _usage_by_interval(usage, course, ends_us)
    columns = zip(
        ends_us.tolist(), sent.tolist(), answered.tolist(), _highest_lag_by_interval(course, ends_us),
        np.diff(sent, prepend=0).tolist(), np.diff(answered, prepend=0).tolist(), p50, p99, cpu_percent, rss_mb,
        strict=True,
    )  # fmt: skip
    return tuple(
        Sample(
            time_s=round((end_us - course.start_us) / 1e6, 6), sent=n_sent, answered=n_answered, lag=lag,
            sent_per_s=round(more_sent / interval_s, 1), answered_per_s=round(more_answered / interval_s, 1),
            p50_ms=p50_ms, p99_ms=p99_ms, cpu_percent=cpu, rss_mb=rss,
        )
        for end_us, n_sent, n_answered, lag, more_sent, more_answered, p50_ms, p99_ms, cpu, rss in columns
    )  # fmt: skip


def _percentiles_by_interval(
    course: Course, ends_us: NDArray[np.int64]
) -> tuple[list[float | None], list[float | None]]:
    intervals = np.searchsorted(ends_us, course.predicted_us)
    # Once there are answers of what percentiles are of, those of the warm-up that come late are left out here too.
    first_warm = intervals[course.is_warm].min(initial=len(ends_us))
    rows = np.flatnonzero(course.is_warm | (intervals < first_warm))
    rows = rows[np.argsort(intervals[rows], kind="stable")]
    bounds = np.searchsorted(intervals[rows], np.arange(len(ends_us)), "right").tolist()
    ms = course.latency_us[rows] / 1000
    found: list[tuple[float | None, float | None]] = []
    for start, end in zip([0, *bounds], bounds, strict=False):
        if start == end:
            found.append((None, None))
        else:
            p50, p99 = np.percentile(ms[start:end], [50, 99]).round(3).tolist()
            found.append((p50, p99))
    return [p50 for p50, _ in found], [p99 for _, p99 in found]


def _usage_by_interval(
    usage: Usage | None, course: Course, ends_us: NDArray[np.int64]
) -> tuple[list[float | None], list[float | None]]:
    if usage is None:
        return [None] * len(ends_us), [None] * len(ends_us)
    bounds_us = np.concatenate([[course.start_us], ends_us])
    cpu_s = np.diff(np.interp(bounds_us, usage.at_us, usage.cpu_s))
    percent = 100 * cpu_s / (np.diff(bounds_us) / 1e6)
    rss_mb = np.interp(ends_us, usage.at_us, usage.rss_bytes) / 1e6
    return percent.round(1).tolist(), rss_mb.round(1).tolist()
