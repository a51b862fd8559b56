"""The result of a replay as text."""

from __future__ import annotations

import pytest
from support.replay_results import make_result

from modelstream.streams.cli.replay_text import print_result


def rows(capsys: pytest.CaptureFixture[str], **changes: object) -> list[tuple[str, str]]:
    print_result(make_result(**changes))
    lines = capsys.readouterr().out.splitlines()
    return [(value, what.strip()) for value, _, what in (line.strip().partition(" ") for line in lines)]


def test_after_a_failure_what_was_sent_and_what_had_no_answer_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(
        capsys, failure="the broker is away", events=3703, sent=12_000, unanswered=8297, missing=None, filtered=None
    )
    assert shown[:4] == [
        ("–", "ended early, by a failure"),
        ("12,000", "events sent, at 60x, as recorded"),
        ("8,297", "of them without an answer when it ended, filtered ones included"),
        ("3,703", "events up to the last one answered: the figures are of these"),
    ]
    assert ("57", "events waiting for an answer at the most, of those that got one") in shown


def test_where_nothing_was_answered_no_wait_for_an_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(capsys, predictions=0, missing=200, max_lag=0)
    assert ("200", "missing") in shown
    assert not [what for _, what in shown if "waiting for an answer" in what]


def test_a_rate_of_less_than_one_a_second_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(capsys, events_per_s=0.3, answers_per_s=0.25, seconds=80.0)
    assert ("0.3", "events per second over all 80.0 s, start included") in shown
    assert "0.25" in [value for value, what in shown if what.startswith("predictions per second")]


def test_after_ctrl_c_too(capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(capsys, interrupted=True, events=20_000, sent=20_000, unanswered=12, missing=None)
    assert shown[1:3] == [
        ("20,000", "events sent, at 60x, as recorded"), ("12", "of them without an answer when it ended"),
    ]  # fmt: skip


def test_a_replay_that_came_to_its_end_says_what_went_in(capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(capsys, sent=20_000)
    assert shown[0] == ("20,000", "events in, at 60x, as recorded")
    assert ("57", "events waiting for an answer at the most") in shown
