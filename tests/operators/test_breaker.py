from __future__ import annotations

import random

import pytest

from modelstream.operators.breaker import Breaker


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failed(breaker: Breaker, times: int) -> Breaker:
    for _ in range(times):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it(clock: Clock) -> None:
    breaker = failed(Breaker(clock=clock), 4)
    breaker.succeeded()
    failed(breaker, 4)
    assert not breaker.is_open
    failed(breaker, 1)
    assert breaker.is_open
    assert not breaker.allows()


def test_one_probe_after_a_rest_closes_it(clock: Clock) -> None:
    breaker = failed(Breaker(clock=clock), 5)
    clock.now_s += 0.99
    assert not breaker.allows()
    clock.now_s += 0.01
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.succeeded()
    assert not breaker.is_open
    assert [breaker.allows(), breaker.allows()] == [True, True]


def test_a_failed_probe_means_another_rest(clock: Clock) -> None:
    breaker = failed(Breaker(clock=clock), 5)
    clock.now_s += 1
    failed(breaker, 1)
    assert not breaker.allows()
    clock.now_s += 1
    assert breaker.allows()


def test_a_probe_without_an_outcome_does_not_block_the_next(clock: Clock) -> None:
    breaker = failed(Breaker(clock=clock), 5)
    clock.now_s += 1
    assert breaker.allows()
    clock.now_s += 1
    assert breaker.allows()


def test_half_of_the_calls_of_a_second_open_it_too(clock: Clock) -> None:
    breaker = Breaker(clock=clock, max_share=0.5)
    for call in range(19):
        breaker.failed() if call % 2 else breaker.succeeded()
        clock.now_s += 0.01
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open


def test_failures_of_the_second_before_do_not_count(clock: Clock) -> None:
    breaker = Breaker(clock=clock, max_share=0.5)
    for call in range(200):
        breaker.failed() if call % 2 else breaker.succeeded()
        clock.now_s += 0.1
    assert not breaker.is_open


def test_a_trial_leaves_the_next_call_to_decide(clock: Clock) -> None:
    breaker = failed(Breaker(clock=clock), 5)
    breaker.tried()
    assert breaker.allows()
    breaker.failed()
    assert breaker.is_open
    breaker.tried()
    breaker.succeeded()
    failed(breaker, 4)
    assert not breaker.is_open


def test_rests_may_be_spread(clock: Clock) -> None:
    rests = set()
    for seed in range(50):
        breaker = failed(Breaker(clock=clock, jitter=0.1, rng=random.Random(seed)), 5)
        rests.add(breaker.rests_s)
    assert len(rests) == 50
    assert 1 <= min(rests) < 1.02 < 1.08 < max(rests) <= 1.1
