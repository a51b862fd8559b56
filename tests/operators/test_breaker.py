from __future__ import annotations

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
