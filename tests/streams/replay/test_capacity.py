from __future__ import annotations

import numpy as np
import pytest
from support.replay_results import make_result

from modelstream.streams.replay.capacity import judge, lag_growth, no_start, settle
from modelstream.streams.replay.result import Sample


def course(rate: float, answered_share: float, *, n: int = 40, noise: float = 0.0) -> tuple[Sample, ...]:
    swing = np.random.default_rng(1).uniform(-noise, noise, n)
    sent = [int(rate * (i + 1) / 10) for i in range(n)]
    return tuple(
        Sample(
            time_s=(i + 1) / 10, sent=sent[i], answered=0, lag=max(int(sent[i] * (1 - answered_share) + swing[i]), 0),
            sent_per_s=rate, answered_per_s=rate * answered_share,
        )
        for i in range(n)
    )  # fmt: skip


def test_lag_that_grows_is_told_from_lag_that_swings() -> None:
    assert lag_growth(course(1000, 0.9), 0.25) == pytest.approx(100, rel=0.02)
    assert abs(lag_growth(course(1000, 1.0, noise=30.0), 0.25)) < 0.02 * 1000


def test_what_the_drain_does_is_no_growth() -> None:
    # All is sent after one interval; what follows only becomes less.
    rows = [(0.1, 100, 90), (0.2, 100, 50), (0.3, 100, 0)]
    series = [Sample(time_s=t, sent=n, answered=0, lag=lag, sent_per_s=0, answered_per_s=0) for t, n, lag in rows]
    assert lag_growth(series) == 0.0


def test_a_rate_is_sustained_if_nothing_speaks_against_it() -> None:
    kept_up = make_result(series=course(1000, 1.0), p99_ms=50.0)
    assert judge(kept_up, 1000, 100).kept_up


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"missing": 3}, "3 events are missing"),
        ({"duplicates": 3}, "3 predictions are duplicates"),
        ({"series": course(1000, 0.9)}, "lag grows by 100 events/s"),
        ({"p99_ms": 150.0}, "p99 is 150 ms"),
        ({"p99_ms": None}, "no predictions to measure"),
        (
            {
                "p99_ms": None,
                "predictions": 0,
                "filtered": 0,
                "dead_letters": 9,
                "first_dead_letter": "wrong_type at 'score': no",
            },
            "no predictions, but dead letters, the first: wrong_type at 'score': no",
        ),
    ],
)
def test_a_rate_is_not_sustained_for_a_reason(changes: dict[str, object], said: str) -> None:
    probe = judge(make_result(**{"series": course(1000, 1.0), "p99_ms": 50.0, **changes}), 1000, 100)
    assert probe.problems == (said,)
    assert probe.only_timing == said.startswith("p99 is")


def test_of_events_that_are_filtered_there_is_no_lag_so_that_of_the_others_counts() -> None:
    counts = {"events": 4000, "predictions": 40, "filtered": 3960, "p99_ms": 50.0}
    # Of 10 events a second that get an answer, 1 more waits each second; of a pipeline that keeps up, one now and then.
    behind = judge(make_result(series=course(1000, 0.999), **counts), 1000, 100)
    assert behind.problems == ("lag grows by 1 events/s",)
    # Of 4 answers one that is still under way at the end is no growth: a few events are not.
    last = tuple(sample.model_copy(update={"lag": int(sample.time_s > 3)}) for sample in course(1000, 1.0))
    assert lag_growth(last, 0.25) > 0.02 * 4 / 4
    assert judge(make_result(series=last, **counts | {"predictions": 4}), 1000, 100).kept_up


def test_a_generator_that_was_late_is_named_as_a_cause() -> None:
    probe = judge(make_result(p99_ms=150.0, p99_send_delay_ms=140.0), 1000, 100)
    assert probe.problems == ("p99 is 150 ms", "the generator was 140 ms late itself")
    assert probe.generator_late


@pytest.mark.parametrize(
    ("bound_ms", "delay_ms", "is_sustained"), [(100, 60, False), (100, 40, True), (5000, 2400, False)]
)
def test_what_was_not_offered_was_not_sustained(bound_ms: float, delay_ms: float, is_sustained: bool) -> None:
    """20,000 events in 20 s: the generator's delay is within the bound of latency, and counts all the same."""
    result = make_result(series=course(1000, 1.0), p99_ms=bound_ms * 0.9, p99_send_delay_ms=delay_ms)
    probe = judge(result, 1000, bound_ms)
    assert probe.problems == (() if is_sustained else (f"the generator was {delay_ms:,.0f} ms late itself",))


FAILED_BY_LATENCY, FAILED, KEPT_UP = {"p99_ms": 150.0}, {"missing": 3, "p99_ms": 150.0}, {"p99_ms": 50.0}


@pytest.mark.parametrize(
    ("replays", "is_sustained"),
    [
        ([KEPT_UP], True),
        ([FAILED], False),
        ([FAILED_BY_LATENCY, FAILED_BY_LATENCY], False),
        ([FAILED_BY_LATENCY, FAILED], False),
        ([FAILED_BY_LATENCY, KEPT_UP, KEPT_UP], True),
        ([FAILED_BY_LATENCY, KEPT_UP, FAILED_BY_LATENCY], False),
        ([FAILED_BY_LATENCY, KEPT_UP, FAILED], False),
    ],
)
def test_what_latency_alone_speaks_against_is_tried_again(replays: list[dict[str, object]], is_sustained: bool) -> None:
    left = [judge(make_result(**{"series": course(1000, 1.0), **changes}), 1000, 100) for changes in replays]
    tries = iter(left)
    found = settle(lambda: next(tries))
    assert list(tries) == []
    assert (found is not None) == is_sustained
    assert found is None or found is left[-1]


def test_there_is_no_search_where_full_speed_tells_nothing() -> None:
    assert no_start(make_result(), 30.0) == ""
    slow = no_start(make_result(missing=3_984, events=4_200), 30.0)
    assert slow.startswith("3,984 of 4,200 events had no answer when nothing had come for 30 s; ")
    assert "a lower --limit" in slow
    filtered = {"predictions": 0, "filtered": 20_000}
    assert no_start(make_result(**filtered), 30.0).startswith("no predictions: all of 20,000 events were filtered")
    letters = {"predictions": 0, "filtered": 0, "dead_letters": 20_000, "first_dead_letter": "event 1, wrong_type"}
    assert no_start(make_result(**letters), 30.0).endswith("the first: event 1, wrong_type")


def test_the_rate_at_full_speed_is_of_events_also_where_some_are_filtered() -> None:
    counts = {"events": 1000, "duplicates": 0, "events_per_s": 90.0, "answers_per_s": 95.0}
    assert make_result(predictions=1000, **counts).full_speed_per_s == 95
    assert make_result(predictions=500, **counts).full_speed_per_s == 190
    assert make_result(predictions=500, **counts | {"answers_per_s": 40.0}).full_speed_per_s == 90
    assert make_result(predictions=499, **counts).full_speed_per_s == 90
    assert make_result(**counts | {"answers_per_s": None}).full_speed_per_s == 90
