from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.cost import MAX_KNEE_ROWS, CostModel

# From a tiny network to 500 trees: µs for a call, µs for a row.
COSTS = st.tuples(st.floats(1e-6, 1e-3), st.floats(1e-8, 1e-4))
CALLS = st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 1e3)), max_size=200)


def learnt(fixed_s: float, per_row_s: float, seed: int, outliers: float = 0.0, calls: int = 500) -> CostModel:
    """Return the fit of calls of 1 to 2048 rows, with 10 % of noise, and outliers of 50 times their time."""
    rng = random.Random(seed)
    cost = CostModel()
    for _ in range(calls):
        n_rows = int(2 ** rng.uniform(0, 11))
        seconds = (fixed_s + per_row_s * n_rows) * math.exp(rng.gauss(0, 0.1))
        cost.observe(n_rows, seconds * (50 if rng.random() < outliers else 1))
    return cost


@given(COSTS, st.integers(0, 1000))
def test_recovers_what_a_call_and_what_a_row_costs(costs: tuple[float, float], seed: int) -> None:
    fixed_s, per_row_s = costs
    cost = learnt(fixed_s, per_row_s, seed)
    # Each is recovered where it is felt: within 2048 rows one of them may drown in the noise of the other.
    if fixed_s > per_row_s:
        assert cost.fixed_s == pytest.approx(fixed_s, rel=0.25)
    if per_row_s * 2048 > fixed_s:
        assert cost.per_row_s == pytest.approx(per_row_s, rel=0.25)
    for n_rows in (1, 10, 100, 1000):
        assert cost.seconds(n_rows) == pytest.approx(fixed_s + per_row_s * n_rows, rel=0.15)


@given(COSTS, st.integers(0, 1000))
def test_outliers_hardly_move_the_knee(costs: tuple[float, float], seed: int) -> None:
    fixed_s, per_row_s = costs
    expected = 9 * fixed_s / per_row_s
    knee = learnt(fixed_s, per_row_s, seed, outliers=0.05).knee()
    if 5 < expected < 5000:
        assert 0.6 * expected <= knee <= 1.6 * expected + 1


@given(CALLS, st.floats(0.01, 0.9))
def test_is_never_negative_never_falls_and_always_answers(calls: list[tuple[int, float]], overhead: float) -> None:
    cost = CostModel()
    for n_rows, seconds in calls:
        cost.observe(n_rows, seconds)
        assert cost.fixed_s >= 0
        assert cost.per_row_s >= 0
        assert 1 <= cost.knee(overhead) <= MAX_KNEE_ROWS
    times = [cost.seconds(n_rows) for n_rows in (0, 1, 2, 100, 100_000)]
    assert times == sorted(times)
    assert all(map(math.isfinite, times))


@given(CALLS, CALLS)
def test_the_knee_holds_its_share(first: list[tuple[int, float]], second: list[tuple[int, float]]) -> None:
    cost = CostModel()
    for n_rows, seconds in first + second:
        cost.observe(n_rows, seconds)
    if cost.per_row_s and (knee := cost.knee()) < MAX_KNEE_ROWS:
        assert cost.fixed_s <= 0.1 * cost.seconds(knee) * (1 + 1e-6)


def test_before_the_first_call_nothing_is_known() -> None:
    cost = CostModel()
    assert (cost.fixed_s, cost.per_row_s, cost.seconds(9)) == (0, 0, 0)
    assert cost.knee() == MAX_KNEE_ROWS


def test_one_size_alone_counts_half_as_fixed() -> None:
    cost = CostModel()
    for _ in range(5):
        cost.observe(100, 2e-3)
    assert cost.fixed_s == pytest.approx(1e-3)
    assert cost.per_row_s == pytest.approx(1e-5)
    assert cost.knee() == 900


@pytest.mark.parametrize(("n_rows", "seconds"), [(0, 1.0), (-1, 1.0), (1, -1e-9), (1, math.nan), (1, math.inf)])
def test_what_is_no_measurement_is_passed_over(n_rows: int, seconds: float) -> None:
    cost = CostModel()
    cost.observe(n_rows, seconds)
    assert (cost.fixed_s, cost.per_row_s, cost.knee()) == (0, 0, MAX_KNEE_ROWS)


def test_a_new_cost_is_believed_after_a_few_calls_of_a_size() -> None:
    sizes = (1, 10, 100, 1000)
    cost = CostModel()
    for seconds, calls in ((1e-6, 200), (3e-6, 16)):
        for _ in range(calls):
            for n_rows in sizes:
                cost.observe(n_rows, seconds * (10 + n_rows))
    assert [cost.seconds(n_rows) for n_rows in sizes] == pytest.approx([3e-6 * (10 + n_rows) for n_rows in sizes])


def test_sizes_not_seen_for_long_yield_to_those_seen_now() -> None:
    cost = CostModel()
    for _ in range(31):
        for n_rows in (1, 10, 100):
            cost.observe(n_rows, 1e-5 + 1e-6 * n_rows)
    for _ in range(10_000):
        cost.observe(10, 5e-5)
        cost.observe(100, 5e-4)
    assert cost.seconds(10) == pytest.approx(5e-5, rel=0.01)
    assert cost.seconds(100) == pytest.approx(5e-4, rel=0.01)


def test_of_large_batches_alone_the_knee_does_not_fall_to_one_row() -> None:
    cost = CostModel()
    cost.observe(400, 0.9 * 400e-6)
    cost.observe(1000, 1.1 * 1000e-6)  # noise: as if a call itself cost less than nothing
    assert cost.fixed_s == 0
    assert cost.knee() == 50


def test_time_that_no_clock_can_see_costs_nothing() -> None:
    cost = CostModel()
    for n_rows in (1, 10):
        cost.observe(n_rows, 0.0)
    assert (cost.fixed_s, cost.per_row_s, cost.knee()) == (0, 0, 1)


def seen(row_us: dict[int, float], calls: int = 5) -> CostModel:
    """Return a cost model that saw calls of these sizes, whose rows took so long each."""
    cost = CostModel()
    for n_rows, each_us in row_us.items():
        for _ in range(calls):
            cost.observe(n_rows, n_rows * each_us * 1e-6)
    return cost


@pytest.mark.parametrize(
    ("row_us", "rows"),
    [
        ({128: 1.2, 256: 1.1, 512: 1.0, 1024: 1.2}, 512),
        ({128: 1.2, 256: 1.1, 512: 1.0, 1024: 1.04}, 1000),
        ({128: 1.00, 256: 1.04, 512: 1.06, 1024: 1.0}, 256),
        ({128: 1.0, 256: 0.9, 1024: 2.0}, 512),
        ({256: 0.9, 512: 1.0}, 128),
        ({32: 0.1, 128: 1.0, 256: 1.0, 512: 1.0, 600: 1.0}, 1000),
    ],
    ids=["dearer", "nearly as cheap", "cheap again behind dear ones", "a gap", "smallest unknown", "below the range"],
)
def test_a_call_is_worth_as_many_rows_as_do_not_make_each_of_them_dearer(row_us: dict[int, float], rows: int) -> None:
    assert seen(row_us).worthwhile(100, 1000, tolerance=0.05) == rows


def test_a_size_must_be_seen_a_few_times_and_lately_to_tell_what_a_row_takes() -> None:
    row_us = {128: 1.0, 256: 2.0}
    assert seen(row_us, calls=2).worthwhile(100, 1000, tolerance=0.05) == 128
    assert seen(row_us, calls=3).worthwhile(100, 1000, tolerance=0.05) == 128, "the rows of 256 are dearer"
    assert seen({128: 2.0, 256: 1.0}, calls=2).worthwhile(100, 1000, 0.05) == 128, "two calls tell nothing"
    assert seen({128: 2.0, 256: 1.0}, calls=3).worthwhile(100, 1000, 0.05) == 512
    cost = seen({128: 1.0, 256: 2.0, 512: 4.0}, calls=3)
    for n_more, rows in [(120, 128), (2, 128), (5, 256)]:
        for _ in range(n_more):
            cost.observe(100, 100e-6)
        assert cost.worthwhile(100, 1000, tolerance=0.05) == rows


def test_a_size_below_those_that_surely_pay_is_measured_only_where_none_was_for_long() -> None:
    cost = seen({128: 1.0, 1024: 1.2})

    def worthwhile() -> int:
        return cost.worthwhile(100, 1024, tolerance=0.05, surely_rows=1024)

    assert worthwhile() == 512, "the rows of 1,024 are dearer than those of 128, which tell"
    assert cost.worthwhile(100, 4096, 0.05, surely_rows=300) == 512, "from there on each is measured"
    assert seen({128: 1.0}).worthwhile(100, 4096, 0.05, surely_rows=1024) == 1024
    cost = seen({1024: 1.2})
    assert worthwhile() == 1024
    for _ in range(122):
        cost.observe(1024, 1024 * 1.2e-6)
    assert worthwhile() == 1024
    cost.observe(1024, 1024 * 1.2e-6)
    assert worthwhile() == 128


@given(CALLS, st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 100_000))
def test_what_a_call_is_worth_is_in_the_range(
    calls: list[tuple[int, float]], least: int, most: int, surely: int
) -> None:
    cost = CostModel()
    for n_rows, seconds in calls:
        cost.observe(n_rows, seconds)
    least, most = min(least, most), max(least, most)
    assert least <= cost.worthwhile(least, most, 0.05, surely) <= most
