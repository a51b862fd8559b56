"""When a cache is left out, on streams with a known cost."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from modelstream.operators.bypass import Bypass, Level, Spent
from modelstream.operators.stage_clock import Moment

BATCH = 500


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> Moment:
        return Moment(self.now_s, self.now_s)


class Stage:
    """A stage whose models take so many microseconds a row, and its cache so many more; time goes as it works."""

    def __init__(
        self,
        model_us: float,
        own_us: float = 0.5,
        ask_us: float = 3.0,
        fixed_us: float = 0.0,
        enabled: bool = True,
        trip_us: float = 0.0,
        batch: int = BATCH,
    ) -> None:
        self.trip_us, self.batch = trip_us, batch
        self.model_us, self.own_us, self.ask_us, self.fixed_us = model_us, own_us, ask_us, fixed_us
        self.clock = Clock()
        self.bypass = Bypass("score", Level.REDIS, 5_000, 1e9, enabled=enabled, clock=self.clock)
        self.memory: dict[int, None] = {}
        self.redis: set[int] = set()
        self.levels: list[Level] = []

    def run(self, keys: NDArray[np.int64]) -> Level:
        """Work on rows, and return what is in use at the end."""
        for start in range(0, len(keys), self.batch):
            self._work(keys[start : start + self.batch])
        return self.bypass.level

    def _work(self, keys: NDArray[np.int64]) -> None:
        n_rows = len(keys)
        level = self.bypass.plan([keys], n_rows)
        self.levels.append(level)
        if level is Level.OFF:
            self._compute(n_rows)
            return
        spent = Spent(n_rows, own_s=self.own_us * 1e-6 * n_rows)
        left = [key for key in dict.fromkeys(keys.tolist()) if key not in self.memory]
        spent.n_far = len(left)
        self.memory.update(dict.fromkeys(left))
        while len(self.memory) > 5_000:
            del self.memory[next(iter(self.memory))]
        if level is Level.REDIS:
            trip_us = self.trip_us if left else 0.0
            spent.n_asked, spent.redis_s = len(left), (trip_us + self.ask_us * len(left)) * 1e-6
            left = [key for key in left if key not in self.redis]
            self.redis.update(left)
            self.bypass.written(len(left), 3e-6 * len(left))
        spent.n_computed = len(left)
        self._compute(len(left))
        self.clock.now_s += spent.own_s + spent.redis_s
        self.bypass.spent(spent)

    def _compute(self, n_rows: int) -> None:
        if n_rows:
            seconds = (self.fixed_us + self.model_us * n_rows) * 1e-6
            self.clock.now_s += seconds
            self.bypass.computed(n_rows, seconds)


def unique(n: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 2**62, n)


def few(n: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 1000, n)


def mixed(n: int) -> NDArray[np.int64]:
    """Return rows of which four in five repeat."""
    return np.where(np.random.default_rng(2).random(n) < 0.8, few(n), unique(n, 2))


def test_rows_that_never_repeat_turn_it_off_soon_and_for_good() -> None:
    stage = Stage(20.0)
    assert stage.run(unique(500_000)) is Level.OFF
    assert stage.bypass.changes == 1
    assert stage.levels[:8] == [Level.REDIS] * 8
    # But for a probe now and then.
    assert stage.levels.count(Level.OFF) > 0.97 * len(stage.levels)


def test_rows_that_memory_knows_need_no_redis() -> None:
    stage = Stage(20.0)
    assert stage.run(mixed(200_000)) is Level.MEMORY
    assert stage.bypass.changes == 1


def test_rows_that_only_redis_can_hold() -> None:
    stage = Stage(20.0)
    # Each row again after 20,000 others, four times what memory holds.
    assert stage.run(np.tile(np.arange(20_000), 20)) is Level.REDIS
    assert stage.levels[-100:] == [Level.REDIS] * 100


def test_it_is_on_again_when_rows_begin_to_repeat() -> None:
    stage = Stage(20.0)
    assert stage.run(unique(100_000)) is Level.OFF
    assert stage.run(mixed(200_000)) is Level.MEMORY
    assert stage.run(unique(300_000, 1)) is Level.OFF
    assert stage.bypass.changes == 3


def test_a_cheap_model_is_not_cached_however_often_rows_repeat() -> None:
    stage = Stage(0.1)
    assert stage.run(few(300_000)) is Level.OFF


def test_what_is_nearly_free_stays_on() -> None:
    stage = Stage(1000.0)
    assert stage.run(unique(100_000)) is Level.REDIS


def test_a_call_that_costs_the_same_however_many_rows_it_has_is_not_saved_by_some_hits() -> None:
    for keys, level in ((mixed(400_000), Level.OFF), (few(400_000), Level.REDIS)):
        stage = Stage(0.01, fixed_us=2000.0)
        # Calls of many sizes, so that it can be told what a call costs and what a row.
        for n_rows in (1, 10, 100, 500) * 20:
            stage._compute(n_rows)
        assert stage.run(keys) is level


def test_a_redis_that_others_have_filled_is_found_out() -> None:
    stage = Stage(20.0)
    assert stage.run(unique(100_000)) is Level.OFF
    others = unique(2_000_000, 7)
    stage.redis.update(others.tolist())
    assert stage.run(others) is Level.REDIS


def test_it_may_be_told_to_stay_on() -> None:
    stage = Stage(0.1, enabled=False)
    stage.run(unique(50_000))
    assert set(stage.levels) == {Level.REDIS}


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_round_trips_for_a_row_or_two_that_nobody_knows_end_soon(batch: int) -> None:
    stage = Stage(50.0, own_us=20.0, trip_us=300.0, batch=batch)
    assert stage.run(unique(320)) is Level.OFF
    assert stage.bypass.changes == 1
    # Nor does it come back, though it looks at the stream still.
    assert stage.run(unique(30_000, 1)) is Level.OFF
    assert stage.bypass.changes == 1


def test_tiny_batches_whose_rows_memory_knows_keep_memory_only() -> None:
    stage = Stage(500.0, own_us=20.0, trip_us=300.0, batch=2)
    assert stage.run(mixed(20_000)) is Level.MEMORY


def test_a_few_rows_that_nobody_knows_say_little_where_a_model_is_dear() -> None:
    stage = Stage(50_000.0, own_us=20.0, trip_us=300.0, batch=2)
    assert stage.run(unique(1_000)) is Level.REDIS


def test_tiny_batches_begin_to_repeat_after_all() -> None:
    stage = Stage(500.0, own_us=20.0, trip_us=300.0, batch=2)
    assert stage.run(unique(2_000)) is Level.OFF
    assert stage.run(few(100_000)) is Level.MEMORY


def test_a_redis_that_is_away_says_nothing_of_what_it_knows() -> None:
    clock = Clock()
    bypass = Bypass("score", Level.REDIS, 5_000, 1e9, clock=clock)
    for key in unique(500):
        assert bypass.plan([np.array([key, key])], 2) is Level.REDIS
        bypass.computed(2, 1e-3)
        bypass.spent(Spent(2, n_far=2, n_computed=2, own_s=1e-3))
    assert bypass.changes == 0


def test_text_that_is_none_is_left_to_the_models() -> None:
    bypass = Bypass("score", Level.MEMORY, 10, 60)
    assert bypass.plan([[[]]], 1) is Level.MEMORY  # type: ignore[list-item]


def test_every_change_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        stage = Stage(20.0)
        stage.run(unique(100_000))
        stage.run(mixed(100_000))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("stage score: the cache is now off, was memory and Redis: a row costs the models 20.00 µs,")
    assert "the cache 0.50 µs, asking Redis 3.00 µs; of 100 rows memory would know 0, Redis 0 more" in first
    assert second.startswith("stage score: the cache is now memory only, was off")
