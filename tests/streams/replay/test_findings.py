"""What a report warns of."""

from __future__ import annotations

import pytest
from support.replay_results import LATENCY, make_result

from modelstream.streams.replay.findings import findings


def titles(**changes):
    return [(finding.level, finding.title) for finding in findings(make_result(**changes))]


def test_nothing_is_said_where_nothing_is_wrong():
    assert titles() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"missing": 1}, ("error", "1 event missing")),
        ({"duplicates": 12_000}, ("error", "12,000 duplicates")),
        ({"interrupted": True, "missing": None}, ("error", "Ended early")),
        ({"p99_send_delay_ms": 5.1}, ("warning", "The generator fell behind")),
        # 2 processors for 10.05 s, and 20,000 events
        ({"machine_cpu_us_per_event": 950.0}, ("warning", "The machine was full")),
        ({"p99_ms": None}, ("warning", "No latencies")),
        ({"missing": None}, ("note", "Nobody could say how many events were filtered")),
        ({"dead_letters": 3}, ("note", "3 dead letters")),
        ({"clamped_events": 1}, ("note", "1 event out of order")),
        ({"repeated_ids": 1135}, ("note", "1,135 events with the id of an earlier one")),
        ({"latency_clock": "virtual"}, ("warning", "Computed, not measured")),
        ({"append_latency": LATENCY.model_copy(update={"n": 9999})}, ("note", "p99.9 of 9,999 predictions")),
        ({"arrivals": "max", "speed": "max"}, ("note", "As fast as possible")),
    ],
)
def test_each_by_itself(changes, said):
    assert titles(**changes) == [said]


def test_latencies_are_not_missed_where_there_could_be_none():
    assert titles(p99_ms=None, interrupted=True, missing=None) == [("error", "Ended early")]
    assert titles(p99_ms=None, predictions=7, duplicates=7) == [("error", "7 duplicates")]


def test_a_delay_that_is_small_against_the_latency_is_none():
    assert titles(p99_send_delay_ms=5.3, p99_ms=25.8) == []
    assert titles(p99_send_delay_ms=25.0, p99_ms=101.0) == []
    assert titles(p99_send_delay_ms=4.9, p99_ms=5.0) == []
    assert titles(p99_send_delay_ms=26.0, p99_ms=101.0) == [("warning", "The generator fell behind")]
    assert titles(p99_send_delay_ms=900.0, arrivals="max", speed="max") == [("note", "As fast as possible")]


@pytest.mark.parametrize(
    ("max_clamped_ms", "speed", "said"),
    [
        (100.0, "60x", "at the most 100 ms after its own time (6,000 ms of event time). That is within 1 %"),
        (101.0, "60x", "at the most 101 ms after its own time (6,060 ms of event time). Events that belong into"),
        (60_000.0, "60x", "at the most 60 s after its own time (60 min of event time). Events that belong into"),
        (101.0, "500/s", "at the most 101 ms after its own time. Events that belong into"),
    ],
)
def test_of_events_out_of_order_it_is_said_how_far_and_what_that_does(max_clamped_ms, speed, said):
    (found,) = findings(make_result(clamped_events=9, max_clamped_ms=max_clamped_ms, speed=speed, seconds=10.0))
    assert said in found.text


def test_a_backlog_of_more_than_a_second_when_the_last_event_is_sent_is_one():
    at_end = make_result().series[-1]
    # The interval of the last event has seen more, and the one after it begins with what was left.
    course = tuple(
        at_end.model_copy(update={"time_s": at_end.time_s + after_s, "lag": lag})
        for after_s, lag in ((0.0, 9999), (0.2, 4321), (1.2, 20))
    )
    assert titles(series=course) == [("warning", "The pipeline did not keep up")]
    assert "4,321 had no answer" in findings(make_result(series=course))[0].text
    assert titles(series=course, arrivals="max") == [("note", "As fast as possible")]
    before = course[0].model_copy(update={"sent": 19_999})
    few = (course[1].model_copy(update={"lag": 1990}), course[2])
    assert titles(series=(before, course[0], *few)) == []
    at_once = course[2].model_copy(update={"time_s": at_end.time_s + 0.9})
    assert titles(series=(before, *course[:2], at_once)) == []


def test_where_nothing_was_predicted_no_pace_is_told_of():
    late = {"p99_send_delay_ms": 900.0, "machine_cpu_us_per_event": 950.0}
    assert titles(predictions=0, missing=200, p99_ms=None, **late) == [("error", "200 events missing")]


def test_at_full_speed_predictions_of_less_than_five_seconds_tell_no_rate():
    short = {"arrivals": "max", "speed": "max", "warm_up": 0.5, "predictions": 20_000, "answers_per_s": 2001.0}
    too_short = ("warning", "Too short to tell a rate")
    assert titles(**short) == [too_short, ("note", "As fast as possible")]
    assert too_short not in titles(**short | {"answers_per_s": 2000.0})
    none = short | {"answers_per_s": None}
    assert too_short in titles(**none)
    assert ["steady" in one.text for one in findings(make_result(**none))] == [False, False]
    one_alone = findings(make_result(**none | {"predictions": 1, "warm_up": 0.0}))
    assert one_alone[0].text == "1 prediction came. Give it more events."
    assert too_short not in titles(**short | {"arrivals": "recorded"})
    assert too_short not in titles(**short | {"latency_clock": "virtual"})  # which has no queues to fill


def test_the_worst_comes_first():
    levels = [level for level, _ in titles(missing=1, p99_send_delay_ms=9.0, dead_letters=1)]
    assert levels == ["error", "warning", "note"]


def test_what_ended_a_replay_is_told():
    (found,) = findings(
        make_result(failure="the worker ended with code 1", missing=None, predictions=0, dead_letters=0)
    )
    assert found.text == "the worker ended with code 1"


def test_what_was_open_when_a_replay_ended_early_comes_first():
    (found,) = findings(
        make_result(failure="the broker is away", events=3703, sent=12_000, unanswered=8297, missing=None)
    )
    assert found.text == (
        "Of 12,000 events sent, 8,297 had no answer when it ended. "
        "The figures are of the 3,703 events up to the last one that was answered. the broker is away"
    )
    (found,) = findings(make_result(interrupted=True, sent=9, unanswered=1, missing=None, filtered=None))
    assert found.text.startswith("Of 9 events sent, 1 had no answer when it ended, filtered ones included. Ctrl-C")


def test_dead_letters_beside_filtered_events_are_none():
    assert titles(predictions=0, dead_letters=1, filtered=9) == [("note", "1 dead letter")]


def test_dead_letters_alone_are_an_error():
    found = findings(
        make_result(predictions=0, filtered=0, dead_letters=9, first_dead_letter="no_event_time at source: 'at'")
    )
    assert [one.level for one in found] == ["error", "note"]
    assert "no_event_time at source: 'at'" in found[0].text
