from __future__ import annotations

import numpy as np
import pytest

from modelstream.models.contract import Column
from modelstream.operators.reuse import ReuseSample, row_hashes


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def sampled(keys: np.ndarray[tuple[int], np.dtype[np.int64]], horizon: int = 10_000, batch: int = 500) -> ReuseSample:
    sample = ReuseSample(horizon, 60, Clock())
    for start in range(0, len(keys), batch):
        part = keys[start : start + batch]
        sample.observe([part.astype(np.float64)], len(part))
    return sample


@pytest.mark.parametrize(
    "column",
    [
        np.arange(5000, dtype=np.int8), np.arange(5000, dtype=np.float32), np.arange(5000) % 2 == 0,
        np.arange(15000, dtype=np.float32).reshape(5000, 3), np.arange(10000, dtype=np.float32).reshape(5000, 2),
        [str(i) for i in range(5000)], np.array([["a", str(i)] for i in range(5000)], object),
    ],
)  # fmt: skip
def test_hashes_differ_just_where_rows_do(column: Column) -> None:
    rows = column if isinstance(column, list) else column.tolist()
    n_distinct = len({str(row) for row in rows})
    for columns in ([column], [np.zeros(5000, np.int32), column]):
        hashes = row_hashes(columns, 5000)
        assert len(set(hashes.tolist())) == n_distinct
        again = row_hashes([other[::-1] for other in columns], 5000)[::-1]
        assert (hashes == again).all()


def test_columns_do_not_cancel_out() -> None:
    a, b = np.array([1, 2, 1, 2]), np.array([1, 1, 2, 2])
    assert len(set(row_hashes([a, b], 4).tolist())) == 4
    assert len(set(row_hashes([a, a], 4).tolist())) == 2


def test_text_that_cannot_be_hashed() -> None:
    with pytest.raises(TypeError):
        row_hashes([["a", []]], 2)  # type: ignore[list-item]


def test_a_sixty_fourth_of_the_rows_is_followed() -> None:
    hashes = row_hashes([np.arange(640_000)], 640_000)
    assert 9_500 < (hashes >> np.uint64(58) == 0).sum() < 10_500


def test_rows_that_never_repeat_do_not_look_as_if_some_did() -> None:
    for seed in range(20):
        keys = np.random.default_rng(seed).integers(0, 2**60, 50_000)
        sample = sampled(keys)
        assert (sample.far_share, sample.new_share) == (1, 1)


def test_before_the_first_row_all_are_new() -> None:
    sample = ReuseSample(10, 60)
    assert (sample.weight, sample.far_share, sample.new_share) == (0, 1, 1)


def test_a_few_very_frequent_rows_are_noticed_though_they_are_not_in_the_sample() -> None:
    rng = np.random.default_rng(3)
    keys = rng.integers(100, 2**60, 100_000)
    hot = rng.random(100_000) < 0.9
    keys[hot] = rng.integers(0, 5, hot.sum())
    assert sampled(keys).new_share < 0.25


def test_what_comes_again_too_late_for_memory_is_far_but_not_new() -> None:
    keys = np.tile(np.arange(20_000), 8)
    near, far = sampled(keys, horizon=30_000), sampled(keys, horizon=10_000)
    assert near.far_share < 0.4
    assert far.far_share == 1
    assert far.new_share == near.new_share < 0.4


def test_what_comes_again_after_the_time_to_live_is_new() -> None:
    clock = Clock()
    sample = ReuseSample(10**6, 60, clock)
    for _ in range(4):
        sample.observe([np.arange(20_000)], 20_000)
        clock.now_s += 61
    assert sample.new_share == 1


def test_it_remembers_only_so_much() -> None:
    sample = ReuseSample(10**9, 60, Clock())
    for start in range(0, 3_000_000, 100_000):
        sample.observe([np.arange(start, start + 100_000)], 100_000)
    assert len(sample._seen) == 16_384
