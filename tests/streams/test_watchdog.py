"""The watchdog: it tells a partition that has stopped from one that is idle, slow, or waits for its turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.watchdog import Stalled, Standing, Watchdog

LIMIT_S = 60.0
BEHIND = Standing(finished_rows=10, position=10, unfinished=False, end=15)
UNDER_WAY = Standing(finished_rows=10, position=15, unfinished=True, end=15)
IDLE = Standing(finished_rows=15, position=15, unfinished=False, end=15)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog[str]:
    return Watchdog(LIMIT_S, clock)


def stalled(
    watchdog: Watchdog[str], clock: Clock, after_s: float, starved_at: float = 0.0, **seen: Standing
) -> set[str]:
    clock.now += after_s
    return watchdog.look(seen, starved_at=starved_at)


def test_a_fetch_that_brings_nothing_is_a_stall_after_the_limit(watchdog: Watchdog[str], clock: Clock) -> None:
    assert stalled(watchdog, clock, 0, p=BEHIND) == set()
    assert stalled(watchdog, clock, LIMIT_S - 1, p=BEHIND) == set()
    assert stalled(watchdog, clock, 1, p=BEHIND) == {"p"}


def test_batches_that_nobody_finishes_are_a_stall(watchdog: Watchdog[str], clock: Clock) -> None:
    stalled(watchdog, clock, 0, p=UNDER_WAY)
    assert stalled(watchdog, clock, LIMIT_S, p=UNDER_WAY) == {"p"}


def test_an_idle_partition_is_none_and_a_record_after_hours_has_its_full_time(
    watchdog: Watchdog[str], clock: Clock
) -> None:
    stalled(watchdog, clock, 0, p=IDLE)
    assert stalled(watchdog, clock, 10_000, p=IDLE) == set()
    new = replace(IDLE, end=16)
    assert stalled(watchdog, clock, LIMIT_S - 1, p=new) == set()
    assert stalled(watchdog, clock, 1, p=new) == {"p"}


def test_a_slow_model_is_none_as_long_as_rows_are_finished(watchdog: Watchdog[str], clock: Clock) -> None:
    for n in range(10):
        # The fetch waits: its position stands still.
        assert stalled(watchdog, clock, LIMIT_S - 1, p=replace(UNDER_WAY, finished_rows=n)) == set()


def test_a_partition_that_waits_for_its_turn_is_none(watchdog: Watchdog[str], clock: Clock) -> None:
    for n in range(10):
        busy = replace(UNDER_WAY, finished_rows=n)
        # Neither what was fetched and waits for the model, nor what waits in a fetch that is always full.
        assert stalled(watchdog, clock, 30, busy=busy, fetched=UNDER_WAY, unfetched=BEHIND) == set()


def test_a_partition_that_is_not_fetched_is_one_though_others_get_on(watchdog: Watchdog[str], clock: Clock) -> None:
    found = set()
    for n in range(10):
        busy = replace(UNDER_WAY, finished_rows=n)
        found |= stalled(watchdog, clock, 10, busy=busy, unfetched=BEHIND, starved_at=clock.now)
    assert found == {"unfetched"}


def test_an_idle_partition_does_not_hide_one_that_is_stuck(watchdog: Watchdog[str], clock: Clock) -> None:
    stalled(watchdog, clock, 0, idle=IDLE, stuck=UNDER_WAY)
    assert stalled(watchdog, clock, LIMIT_S, idle=IDLE, stuck=UNDER_WAY) == {"stuck"}


def test_a_rest_gives_the_full_time_again(watchdog: Watchdog[str], clock: Clock) -> None:
    stalled(watchdog, clock, 0, p=BEHIND)
    clock.now += LIMIT_S
    watchdog.rest()  # the broker was away
    assert stalled(watchdog, clock, 0, p=BEHIND) == set()
    assert stalled(watchdog, clock, LIMIT_S - 1, p=BEHIND) == set()
    assert stalled(watchdog, clock, 1, p=BEHIND) == {"p"}


def test_a_partition_taken_away_is_forgotten(watchdog: Watchdog[str], clock: Clock) -> None:
    stalled(watchdog, clock, 0, p=BEHIND, q=BEHIND)
    assert stalled(watchdog, clock, LIMIT_S / 2, q=BEHIND) == set()
    assert stalled(watchdog, clock, LIMIT_S / 2, p=BEHIND, q=BEHIND) == set()  # q waits while p may get on


def test_reading_anew_helps_once_unless_rows_are_finished_since(watchdog: Watchdog[str], clock: Clock) -> None:
    stalled(watchdog, clock, 0, p=BEHIND)
    assert not watchdog.has_read_anew({"p"})
    watchdog.note_read_anew({"p"})
    anew = Standing(finished_rows=0, position=10, unfinished=False, end=15)
    stalled(watchdog, clock, 0, p=anew)
    assert stalled(watchdog, clock, LIMIT_S, p=anew) == {"p"}
    assert watchdog.has_read_anew({"p"})
    stalled(watchdog, clock, 1, p=replace(anew, position=15, unfinished=True))  # fetched is not finished
    assert watchdog.has_read_anew({"p"})
    stalled(watchdog, clock, 1, p=replace(anew, finished_rows=1))
    assert not watchdog.has_read_anew({"p"})


@given(gains=st.lists(st.tuples(st.floats(0.0, LIMIT_S - 0.01), st.sampled_from(["rows", "position"])), max_size=30))
def test_progress_within_every_limit_is_never_a_stall(gains: list[tuple[float, str]]) -> None:
    clock = Clock()
    watchdog: Watchdog[str] = Watchdog(LIMIT_S, clock)
    standing = replace(BEHIND, end=1_000)
    for after_s, what in gains:
        if what == "rows":
            standing = replace(standing, finished_rows=standing.finished_rows + 1)
        else:
            standing = replace(standing, position=standing.position + 1)
        assert stalled(watchdog, clock, after_s, starved_at=clock.now, p=standing) == set()


def test_the_error_names_the_partitions() -> None:
    assert str(Stalled(["events[0]", "events[2]"], 60.0, data_thread_hangs=False)).startswith(
        "no progress on events[0], events[2] for 60 s"
    )
    assert "--stall-timeout" in str(Stalled(["events[0]"], 60.0, data_thread_hangs=True))
