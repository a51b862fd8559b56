from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.models.cost import CostModel
from modelstream.operators.batch_size import SizeController
from modelstream.operators.batch_statistics import BatchMode, Histogram

TARGET_S = 0.020


def controller(max_size: int = 1024, downstream_s: float = 0.0) -> SizeController:
    return SizeController(max_size, TARGET_S, downstream_s, CostModel())


def trained(fixed_s: float, per_row_s: float, max_size: int = 1024, downstream_s: float = 0.0) -> SizeController:
    """Return a controller that has seen batches of many sizes of a model with this cost."""
    sizes = controller(max_size, downstream_s)
    for n_rows in (1, 8, 32, 64, 128, 256, 512, max_size) * 8:
        sizes.finished(n_rows, 0.0, fixed_s + per_row_s * n_rows)
    return sizes


costs = st.floats(1e-6, 5e-3), st.floats(1e-8, 1e-3)
ages = st.floats(0, 0.1)


@given(*costs, ages, st.integers(1, 100_000), st.integers(1, 65_536))
def test_the_cap_is_from_one_to_the_largest_size(
    fixed_s: float, per_row_s: float, age_s: float, n_waiting: int, max_size: int
) -> None:
    cap, _ = trained(fixed_s, per_row_s, max_size).cap(n_waiting, age_s)
    assert 1 <= cap <= max_size


@given(*costs, ages, st.integers(1, 100_000), st.floats(0, 0.005))
def test_a_batch_answers_its_oldest_row_in_time_where_any_batch_can(
    fixed_s: float, per_row_s: float, age_s: float, n_waiting: int, downstream_s: float
) -> None:
    cap, by_age = trained(fixed_s, per_row_s, downstream_s=downstream_s).cap(n_waiting, age_s)
    before_s = age_s + downstream_s
    if before_s + (fixed_s + per_row_s) * 1.001 <= 0.9 * TARGET_S:
        assert before_s + fixed_s + per_row_s * cap <= TARGET_S
    if by_age:
        assert before_s + fixed_s + per_row_s * (cap + 2) * 1.001 > 0.9 * TARGET_S, "and no smaller than that"


@example(38, 0.0044)
@given(st.integers(1, 60), st.floats(0, 0.018))
def test_under_load_no_batch_is_so_small_for_its_oldest_row_that_others_become_late(rows: int, age_s: float) -> None:
    fixed_s, per_row_s, rate = 1e-3, 20e-6, 1000 * rows
    sizes = trained(fixed_s, per_row_s)
    for i in range(3000):
        sizes.added(rows, i / 1000)
    cap, by_age = sizes.cap(1024, age_s)
    load = rate * per_row_s
    if by_age:
        assert load < 1
        assert cap >= 3.9 * rate * fixed_s / (1 - load)
    elif load < 0.1 and age_s < 0.010:
        assert cap > 0.99 * (0.018 - fixed_s - age_s) / per_row_s


def test_a_burst_is_split_where_the_fixed_cost_does_not_matter_any_more() -> None:
    sizes = trained(fixed_s=10e-6, per_row_s=5e-6)
    assert sizes.cap(200, 0.0) == (98, False)


def test_nothing_is_larger_than_four_times_what_three_batches_measured() -> None:
    sizes = controller()
    caps = []
    for _ in range(8):
        cap, _ = sizes.cap(100_000, 0.0)
        caps.append(cap)
        sizes.finished(cap, 0.0, 1e-3 + 1e-6 * cap)
    assert caps == [64] * 3 + [256] * 3 + [1024] * 2


def served(sizes: SizeController, n_batches: int, row_s: Callable[[int], float]) -> list[int]:
    """Return the caps under lag, where a batch of n rows takes 100 µs and n times as long as said."""
    caps = []
    for _ in range(n_batches):
        cap, _ = sizes.cap(1_000_000, 1.0)
        sizes.took(1.0)
        caps.append(cap)
        sizes.finished(cap, 1.0, 100e-6 + cap * row_s(cap))
    return caps


def leaves_cache_above(n_rows: int, dearer: float) -> Callable[[int], float]:
    return lambda n: 1e-6 * (1 + dearer) if n > n_rows else 1e-6


@settings(max_examples=30)
@given(st.integers(10, 13), st.floats(0.2, 2), st.sampled_from([4096, 10_000, 65_536]))
def test_no_batch_is_so_large_that_its_rows_get_dearer(exponent: int, dearer: float, max_size: int) -> None:
    sizes, best = controller(max_size), min(1 << exponent, max_size)
    served(sizes, 60, leaves_cache_above(best, dearer))
    caps = served(sizes, 1000, leaves_cache_above(best, dearer))
    assert caps.count(best) >= 0.95 * len(caps), "but for the other sizes, which are tried again now and then"
    rows_of_others = sum(cap for cap in caps if cap > best)
    assert rows_of_others * dearer <= 0.03 * dearer * sum(caps)


@settings(max_examples=30)
@given(st.floats(1e-8, 1e-3), st.integers(1, 65_536))
def test_where_larger_batches_cost_no_more_a_row_they_become_as_large_as_they_may(row_s: float, max_size: int) -> None:
    sizes = controller(max_size)
    served(sizes, 600, lambda _: row_s)
    caps = served(sizes, 1000, lambda _: row_s)
    in_time = (0.018 - 100e-6) / row_s
    assert sum(cap >= 0.98 * max(caps) - 1 for cap in caps) >= 0.9 * len(caps)
    assert max(caps) >= min(max_size, int(0.98 * in_time))


def test_first_calls_that_take_longer_do_not_keep_batches_at_a_size_with_dear_rows() -> None:
    sizes, calls = controller(4096), iter(range(10**6))
    warmed_up = leaves_cache_above(1024, 0.2)
    served(sizes, 300, lambda n: 300e-6 / n + warmed_up(n) if next(calls) < 2 else warmed_up(n))
    assert served(sizes, 300, warmed_up).count(1024) >= 285


@settings(max_examples=30)
@example(4.0915e-06, 0.5, 4096)
@given(st.floats(3e-6, 1e-5), st.floats(0.2, 2), st.sampled_from([1024, 4096]))
def test_under_lag_smaller_batches_are_tried_even_where_the_line_says_that_larger_ones_pay(
    row_s: float, dearer: float, max_size: int
) -> None:
    """Of large batches alone the line is a guess: those of one class may take hardly longer the larger they are."""
    sizes, least = controller(max_size), max_size // 4

    def of_large_ones(n: int) -> float:
        return row_s * (1 + dearer) * (max_size / n if n > max_size / 2 else 1) if n > least else row_s

    for n_rows in (*(16, 64, 256) * 3, max_size * 3 // 4, max_size, max_size - 1) * 2:
        sizes.finished(n_rows, 1.0, 300e-6 + n_rows * of_large_ones(n_rows))
    served(sizes, 1200, of_large_ones)
    caps = served(sizes, 600, of_large_ones)
    # By rows: where the first calls are taken for what small ones cost, some are small, and take no time.
    assert least * caps.count(least) >= 0.9 * sum(caps)


def test_under_lag_sizes_that_surely_pay_are_not_gone_through_one_by_one_at_the_start() -> None:
    """A call as dear as a thousand rows: smaller batches than may be would only cost time."""
    sizes = controller(4096)
    caps = served(sizes, 100, lambda n: 900e-6 / n + 1e-6)
    assert caps == [64] * 3 + [256] * 3 + [1024] * 3 + [4096] * 91


def test_a_size_is_given_up_and_taken_again_as_the_machine_changes() -> None:
    sizes = controller(4096)
    assert served(sizes, 100, lambda _: 1e-6)[-1] == 4096
    assert served(sizes, 400, leaves_cache_above(1024, 0.2))[-1] == 1024, "something else took the cache"
    assert served(sizes, 4000, lambda _: 1e-6)[-1] == 4096


@settings(max_examples=20)
@given(st.lists(st.just(1.0) | st.floats(1.0, 3.0), max_size=10), st.integers(1, 100))
def test_a_slow_spell_of_the_machine_passes_without_a_trace(spells: list[float], n_batches: int) -> None:
    sizes = controller(4096)
    for slower in spells:
        served(sizes, n_batches, lambda _, slower=slower: 1e-6 * slower)
    served(sizes, 3000, lambda _: 1e-6)
    assert served(sizes, 300, lambda _: 1e-6).count(4096) >= 270


def test_without_a_target_the_cap_is_the_largest_size() -> None:
    sizes = SizeController(500, None, 0.0, CostModel())
    assert sizes.mode is None
    sizes.took(3600.0)
    sizes.finished(10, 3600.0, 1.0)
    assert sizes.cap(1000, 3600.0) == (500, False)
    assert sizes.spare_s(10, 3600.0) == float("inf")
    assert sizes.mode is None


def test_a_batch_is_cut_where_calls_are_dear_and_left_whole_where_they_are_cheap() -> None:
    assert controller().enough(1000) == 1000, "nothing is known"
    assert trained(fixed_s=150e-6, per_row_s=1e-6).enough(1000) == pytest.approx(500, abs=1)
    assert trained(fixed_s=15e-3, per_row_s=1e-6).enough(1000) == pytest.approx(990, abs=1)
    assert trained(fixed_s=1e-9, per_row_s=1e-6).enough(1000) >= 1


def test_batches_that_are_late_against_the_fit_make_smaller_ones_and_good_ones_make_up_for_it() -> None:
    sizes = trained(fixed_s=1e-3, per_row_s=1e-6)
    for _ in range(3):
        sizes.finished(1024, 0.0, 0.030)
    assert sizes.cap(100_000, 0.0) == (int(1024 * 0.9**3), False)
    for _ in range(5):
        sizes.finished(700, 0.0, 0.002)
    assert sizes.cap(100_000, 0.0)[0] > 900


def test_lateness_that_is_not_the_size_s_leaves_the_size_alone() -> None:
    sizes = trained(fixed_s=1e-3, per_row_s=1e-6)
    for _ in range(20):
        sizes.finished(10, 0.0, 0.030)  # a small batch: the thread was not run
        sizes.finished(1024, 0.019, 0.002)  # too old before it began
    assert sizes.cap(100_000, 0.0)[0] == 1024


def test_what_follows_a_batch_counts_for_whether_it_was_late() -> None:
    sizes = trained(fixed_s=1e-3, per_row_s=1e-6, downstream_s=0.005)
    for _ in range(3):
        sizes.finished(1024, 0.014, 0.002)  # too old before it began: what follows takes what was left
    assert sizes.cap(100_000, 0.0) == (1024, False)
    for _ in range(3):
        sizes.finished(1024, 0.0, 0.017)  # in time by itself, and late after what follows
    assert sizes.cap(100_000, 0.0) == (int(1024 * 0.9**3), False)


def test_a_model_that_becomes_slower_gets_smaller_batches() -> None:
    sizes = trained(fixed_s=1e-3, per_row_s=1e-6)
    for _ in range(200):
        cap, _ = sizes.cap(100_000, 0.0)
        sizes.finished(cap, 0.0, 1e-3 + 100e-6 * cap)
    assert sizes.cap(100_000, 0.0)[0] <= 190 * 17 / 16  # 190 rows take the target; one good batch adds a sixteenth


def test_a_row_older_than_the_target_brings_throughput_and_a_calm_while_latency() -> None:
    sizes = trained(fixed_s=100e-6, per_row_s=20e-6)
    assert sizes.mode is BatchMode.LATENCY
    small, _ = sizes.cap(100_000, 0.010)
    large, by_age = sizes.cap(100_000, 0.021)
    assert large > small
    assert not by_age
    sizes.took(0.021)
    assert sizes.mode is BatchMode.THROUGHPUT
    assert sizes.cap(100_000, 0.0) == (large, False)
    for _ in range(7):
        sizes.took(0.005)
    sizes.took(0.015)
    for _ in range(7):
        sizes.took(0.005)
    assert sizes.mode is BatchMode.THROUGHPUT, "a batch above half the target begins the count anew"
    sizes.took(0.005)
    assert sizes.mode is BatchMode.LATENCY


@given(st.lists(ages, max_size=300))
def test_the_mode_does_not_flap(seen: list[float]) -> None:
    sizes = controller()
    modes = [sizes.mode]
    for age_s in seen:
        sizes.took(age_s)
        modes.append(sizes.mode)
    for i, (before, after) in enumerate(pairwise(modes)):
        if (before, after) == (BatchMode.THROUGHPUT, BatchMode.LATENCY):
            assert max(seen[i - 7 : i + 1]) < TARGET_S / 2
        elif before != after:
            assert seen[i] > TARGET_S


@pytest.mark.parametrize(("value", "bound"), [(0, 1), (1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_a_value_is_counted_below_the_power_of_two_that_holds_it(value: int, bound: int) -> None:
    histogram = Histogram()
    histogram.note(value)
    assert histogram.as_dict() == {str(bound): 1}


def test_a_value_beyond_all_bounds_is_counted_in_the_last() -> None:
    histogram = Histogram()
    histogram.note(1 << 60)
    assert (sum(histogram.counts), histogram.counts[-1]) == (1, 1)
