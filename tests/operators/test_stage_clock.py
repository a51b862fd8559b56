from __future__ import annotations

from modelstream.operators.stage_clock import Moment, Pace, thread_clock


def test_waiting_costs_what_could_have_been_computed_meanwhile() -> None:
    pace = Pace()
    assert pace.waited_s(Moment(0.1, 2.0)) == 2.0
    for _ in range(10):
        pace.computed(Moment(1.0, 4.0))
    assert pace.waited_s(Moment(0.1, 2.0)) == 0.5
    # What it has computed itself it has computed.
    assert pace.waited_s(Moment(1.0, 2.0)) == 1.0


def test_a_pace_that_was_is_forgotten() -> None:
    pace = Pace()
    for wall_s, n_calls in ((4.0, 50), (1.0, 2_000)):
        for _ in range(n_calls):
            pace.computed(Moment(1.0, wall_s))
    assert 0.999 < pace.waited_s(Moment(0.0, 1.0)) <= 1.0


def test_the_clock_of_a_thread_goes() -> None:
    start = thread_clock()
    sum(range(100_000))
    took = thread_clock() - start
    assert took.cpu_s > 0
    assert took.wall_s > 0
