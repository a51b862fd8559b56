"""What a long command says of itself where nobody draws a bar."""

from __future__ import annotations

import numpy as np
import pytest

from modelstream.streams.cli import progress, replay_text
from modelstream.streams.cli.progress import rounded_rate, show_progress
from modelstream.streams.cli.replay_text import planned_s, say_plan
from modelstream.streams.replay.arrivals import Pace
from modelstream.streams.replay.live_figures import Progress


def test_plain_lines_where_standard_error_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    with show_progress("produced") as advance:
        advance(1000, None)
        advance(2000, 0.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("produced 1,000 events, ")
    assert second.startswith("produced 2,000 events (50%), ")
    assert second.endswith(" events/s")


def test_no_more_than_a_line_now_and_then(capsys):
    with show_progress("produced") as advance:
        for n in range(1000):
            advance(n, None)
    assert capsys.readouterr().err == ""


def test_nothing_where_it_is_not_wanted(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    with show_progress("produced", enabled=False) as advance:
        advance(1000, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("n_events", "seconds", "text"),
    [
        (336_776, 3.1234, "108,000"),
        (10, 2.0, "5"),
        (0, 1.0, "0"),
        (5, 0.0, "0"),
        (1, 7.0, "0.1"),
        (1, 100.0, "<0.1"),
        (123_456_789, 1.0, "123,000,000"),
    ],
)
def test_rates_have_three_digits(n_events, seconds, text):
    assert rounded_rate(n_events, seconds) == text


def test_a_replay_says_how_long_it_will_take_and_what_is_left(capsys):
    pace = Pace(speed=60)
    schedule = pace.schedule(2, np.array([0, 10 * 86_400_000]))
    say_plan(pace, schedule, 2)
    progress = Progress(seconds=4000.0, events=2, sent=1, answered=1, lag=0, p50_ms=None, p99_ms=None)
    assert replay_text._line(progress, planned_s(schedule)).endswith("<0.1/s  3 h left")
    assert capsys.readouterr().err == "10 days of events at 60x: about 4 h\n"


def test_while_nothing_is_answered_the_line_says_for_how_long_and_tells_no_old_latencies():
    progress = Progress(seconds=40.0, events=20, sent=12, answered=3, lag=8, p50_ms=2.0, p99_ms=22.6, silent_s=30.4)
    assert replay_text._line(progress).endswith("lag 8  0.1/s  no answer for 30 s")


def test_as_fast_as_it_goes_has_no_planned_length(capsys):
    say_plan(Pace(), Pace().schedule(2), 2)
    assert capsys.readouterr().err == ""
