from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelstream.streams.replay.figures import (
    Course,
    Usage,
    UsageReading,
    answers_per_s,
    highest_lag,
    latency,
    latency_curve,
    samples,
)

START_US = 1_700_000_000_000_000


def course(
    sent_ms: list[float], answered_ms: list[float], *, unanswered_ms: Sequence[float] = (), n_warm_up: int = 0
) -> Course:
    sent = START_US + (np.array(sent_ms) * 1000).astype(np.int64)
    answered = START_US + (np.array(answered_ms) * 1000).astype(np.int64)
    others = START_US + (np.array(unanswered_ms) * 1000).astype(np.int64)
    return Course(
        start_us=START_US, sent_us=np.sort(np.concatenate([sent, others])), answered_us=answered, due_sent_us=sent,
        predicted_us=answered, latency_us=answered - sent, is_warm=np.arange(len(sent)) >= n_warm_up,
    )  # fmt: skip


times = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 1000)), min_size=1, max_size=60)


@given(times)
def test_lag_is_what_was_sent_and_not_answered(pairs: list[tuple[int, int]]) -> None:
    sent, answered = [s for s, _ in pairs], [s + wait for s, wait in pairs]
    by_hand = max(sum(s <= now <= a for s, a in zip(sent, answered, strict=True)) for now in sent)
    assert highest_lag(course(sent, answered)) == by_hand


@given(times)
@example([(0, 3)])
def test_the_series_accounts_for_every_event(pairs: list[tuple[int, int]]) -> None:
    sent, answered = [s for s, _ in pairs], [s + wait for s, wait in pairs]
    series = samples(course(sent, answered), None)
    assert (series[-1].sent, series[-1].answered) == (len(pairs), len(pairs))
    assert max(sample.lag for sample in series) == highest_lag(course(sent, answered))
    assert all(earlier.sent <= later.sent for earlier, later in itertools.pairwise(series))
    interval_s = series[0].time_s
    # A rate has one digit after the point.
    answered_by_rate = sum(sample.answered_per_s * interval_s for sample in series)
    assert answered_by_rate == pytest.approx(len(pairs), abs=0.05 * interval_s * len(series) + 1e-6)


def test_an_event_that_gets_no_answer_is_no_lag() -> None:
    filtered = course([0, 1], [10, 11], unanswered_ms=[0.5])
    assert highest_lag(filtered) == 2
    series = samples(filtered, None)
    assert (series[-1].sent, series[-1].lag) == (3, 2)


def test_the_lag_of_an_interval_is_the_most_in_it_and_what_it_begins_with_counts() -> None:
    # Intervals of 50 ms. Three come and go in the first; one of the second is answered in the fourth.
    series = samples(course([1, 2, 3, 60, 70, 210], [9, 9, 10, 75, 160, 211]), None)
    assert [sample.lag for sample in series] == [3, 2, 1, 1, 1]


def test_percentiles_of_an_interval_are_of_the_predictions_that_came_in_it() -> None:
    sent_ms = [*range(1, 50), 110]
    answered_ms = [50] * 49 + [140]
    first, nothing, last = samples(course(sent_ms, answered_ms), None)
    assert (first.p50_ms, first.p99_ms) == (25.0, 48.52)  # of 1 to 49 ms
    assert (nothing.p50_ms, nothing.p99_ms) == (None, None)
    assert (last.p50_ms, last.p99_ms) == (30.0, 30.0)


def test_the_rates_of_a_replay_shorter_than_an_interval_are_of_its_time() -> None:
    (whole,) = samples(course([0, 2, 4], [5, 7, 10]), None)
    assert (whole.time_s, whole.sent_per_s, whole.answered_per_s) == (0.01, 300.0, 300.0)
    (nothing,) = samples(course([0, 0], [0, 0]), None)
    assert (nothing.time_s, nothing.sent_per_s) == (0.05, 40.0)


def test_a_long_replay_has_no_more_samples_than_a_plot_can_show() -> None:
    hours = course([0, 86_400_000], [5, 86_400_500])
    assert 100 <= len(samples(hours, None)) <= 290


def test_samples_say_what_the_workers_used() -> None:
    looks = [UsageReading(START_US, 1.0, 100_000_000, 7.0), UsageReading(START_US + 1_000_000, 1.5, 200_000_000, 8.0)]
    usage = Usage.of(looks)
    assert usage is not None
    series = samples(course([0], [1000]), usage)
    assert {sample.cpu_percent for sample in series} == {50.0}
    assert [series[i].rss_mb for i in (0, 9, -1)] == [105.0, 150.0, 200.0]  # intervals of 50 ms
    assert usage.cpu_between_s(START_US, START_US + 500_000) == pytest.approx(0.25)
    assert usage.machine_cpu_between_s(START_US, START_US + 500_000) == pytest.approx(0.5)


def test_a_late_answer_of_the_warm_up_is_in_no_percentile_beside_those_that_count() -> None:
    # The first three events are the warm-up; the answer to the third comes late, beside that to the fourth.
    found = samples(course([0, 0, 0, 150], [40, 45, 190, 195], n_warm_up=3), None)
    assert [sample.p99_ms for sample in found] == [pytest.approx(44.95), None, None, 45.0]
    none_counts = samples(course([0, 0], [40, 190], n_warm_up=2), None)
    assert [sample.p99_ms for sample in none_counts] == [40.0, None, None, 190.0]


def test_percentiles_are_exact() -> None:
    found = latency(np.arange(1, 1001) * 1000)
    assert found is not None
    assert (found.n, found.p50_ms, found.p90_ms, found.p99_ms) == (1000, 500.5, 900.1, 990.01)
    assert (found.p999_ms, found.max_ms, found.mean_ms) == (999.001, 1000.0, 500.5)
    assert latency(np.empty(0, np.int64)) is None


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=500))
def test_the_curve_rises_from_the_least_to_the_most(latencies_us: list[int]) -> None:
    curve = latency_curve(np.array(latencies_us))
    percentiles, ms = zip(*curve, strict=True)
    assert (percentiles[0], percentiles[-1]) == (0.0, 100.0)
    assert list(percentiles) == sorted(percentiles)
    assert list(ms) == sorted(ms)
    assert ms[0] == pytest.approx(min(latencies_us) / 1000, abs=1e-3)
    assert ms[-1] == pytest.approx(max(latencies_us) / 1000, abs=1e-3)


def test_the_rate_of_answers_leaves_the_warm_up_out() -> None:
    # 0.3 s of nothing after the first answer, then one every millisecond.
    predicted = START_US + np.concatenate([[0], 300_000 + np.arange(1000) * 1000])
    assert answers_per_s(predicted, 0.0, START_US) == pytest.approx(1000 / 1.3, rel=0.01)
    assert answers_per_s(predicted, 0.25, START_US) == pytest.approx(1000, rel=0.01)
    assert answers_per_s(predicted[:1], 0.25, START_US) is None
    assert answers_per_s(np.full(5, START_US), 0.0, START_US) is None


def test_the_rate_of_one_burst_is_none_of_the_pipeline() -> None:
    # Two seconds of waiting for 4,000 predictions in a few milliseconds; then again.
    burst = 2_000_000 + np.arange(4000)
    assert answers_per_s(START_US + burst, 0.25, START_US) is None
    assert answers_per_s(START_US + np.concatenate([burst, burst + 2_100_000]), 0.25, START_US) is None
    many = np.concatenate([burst + i * 2_000_000 for i in range(8)])
    assert answers_per_s(START_US + many, 0.25, START_US) == pytest.approx(2000, rel=0.2)
