"""The cache with several batches under way at once: equal rows are inferred once, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import InferenceError
from modelstream.operators.batch import CacheState, Column, EventBatch
from modelstream.operators.cache import CachedInfer
from modelstream.operators.infer import Infer
from modelstream.operators.operator import run_isolated

PATIENT_S = 30.0


class Gate:
    """A model that answers only when it is let, and writes down which rows it was asked about."""

    name, version, required_fields = "gate", "1", (FieldSpec("x", "float64"),)

    def __init__(self) -> None:
        self.asked: list[list[float]] = []
        self.open = threading.Event()
        self.busy = threading.Semaphore(0)
        self.bad: set[float] = set()

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        if n_rows:
            self.asked.append(x.tolist())
            self.busy.release()
            assert self.open.wait(PATIENT_S)
            if self.bad & set(x.tolist()):
                raise InferenceError(self.name, self.version, "unlucky")
        return {"value": np.sqrt(x)}

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.asked))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def make_cached() -> Iterator[Callable[..., CachedInfer]]:
    made: list[CachedInfer] = []

    def make(model: Gate, **options: Any) -> CachedInfer:
        made.append(
            CachedInfer(Infer("score", [model]), None, 300, **{"wait_s": PATIENT_S, "bypass": False, **options})
        )
        return made[-1]

    yield make
    for cached in made:
        cached.close()


def batch_of(rows: Sequence[float]) -> EventBatch:
    return EventBatch.of_events([{"x": row} for row in rows])


def values(batch: EventBatch) -> list[float]:
    found: list[float] = np.asarray(batch.outputs["gate"].fields["value"]).tolist()
    return found


def count(cached: CachedInfer) -> tuple[int, int, int, int]:
    counters = cached.counters
    return counters.misses, counters.duplicates, counters.coalesced, counters.hits


def test_ten_thousand_equal_rows_in_flight_cost_one_inference(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer]
) -> None:
    model = Gate()
    cached = make_cached(model)
    results = [pool.submit(cached, batch_of([9.0] * 1000)) for _ in range(10)]
    assert model.busy.acquire(timeout=PATIENT_S)
    model.open.set()
    for result in results:
        assert values(result.result(PATIENT_S)) == [3.0] * 1000
    assert model.n_rows == 1
    misses, duplicates, coalesced, hits = count(cached)
    # A batch that came late found the answer in memory.
    assert (misses, duplicates, coalesced + hits) == (1, 9_990, 9)


@pytest.mark.parametrize("l1_rows", [0, 100])
def test_equal_rows_of_several_batches_are_inferred_once(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer], l1_rows: int
) -> None:
    model = Gate()
    cached = make_cached(model, l1_rows=l1_rows)
    # Each has a row of its own: when the models have been asked ten times, all know of each other.
    batches = [batch_of([9.0, 100.0 + i, 9.0, 4.0]) for i in range(10)]
    results = [pool.submit(cached, batch) for batch in batches]
    for _ in range(10):
        assert model.busy.acquire(timeout=PATIENT_S)
    model.open.set()
    for i, result in enumerate(results):
        assert values(result.result(PATIENT_S)) == [3.0, np.sqrt(100.0 + i), 3.0, 2.0]
    assert model.n_rows == 12
    assert count(cached) == (12, 10, 18, 0)
    states = sorted(batch.cache_states.tolist() for batch in batches)  # type: ignore[union-attr]
    shared, miss = CacheState.COALESCED, CacheState.MISS
    assert states == [[miss, miss, shared, miss]] + [[shared, miss, shared, shared]] * 9


def test_two_batches_that_need_each_others_rows_do_not_wait_for_ever(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer]
) -> None:
    model = Gate()
    cached = make_cached(model, l1_rows=0)
    first = pool.submit(cached, batch_of([1.0, 4.0]))
    assert model.busy.acquire(timeout=PATIENT_S)
    second = pool.submit(cached, batch_of([4.0, 9.0]))
    assert model.busy.acquire(timeout=PATIENT_S)
    third = pool.submit(cached, batch_of([9.0, 1.0, 16.0]))
    assert model.busy.acquire(timeout=PATIENT_S)
    model.open.set()
    assert values(first.result(PATIENT_S)) == [1, 2]
    assert values(second.result(PATIENT_S)) == [2, 3]
    assert values(third.result(PATIENT_S)) == [3, 1, 4]
    assert model.asked == [[1, 4], [9], [16]]


def test_a_row_that_makes_the_model_fail_hurts_only_itself(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer]
) -> None:
    model = Gate()
    model.bad = {7.0}
    cached = make_cached(model)
    batches = [batch_of([1.0, 7.0, 4.0, float(i)]) for i in (16, 25, 36)]
    results = [pool.submit(run_isolated, cached, batch) for batch in batches]
    for _ in range(3):
        assert model.busy.acquire(timeout=PATIENT_S)
    model.open.set()
    for i, result in zip((4, 5, 6), results, strict=True):
        settled = result.result(PATIENT_S)
        assert values(settled.kept) == [1, 2, i]
        assert settled.rejected is not None
        assert [fault.reason for fault in settled.rejected.faults.values()] == ["model_failed"]
    assert not cached._claims._by_digest


def test_who_takes_too_long_is_not_waited_for(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer]
) -> None:
    model = Gate()
    cached = make_cached(model, wait_s=0.02)
    slow = pool.submit(cached, batch_of([1.0, 4.0]))
    assert model.busy.acquire(timeout=PATIENT_S)
    other = pool.submit(cached, batch_of([4.0]))
    # It asks the model itself, which is as slow.
    assert model.busy.acquire(timeout=PATIENT_S)
    third = pool.submit(cached, batch_of([1.0]))
    assert model.busy.acquire(timeout=PATIENT_S)
    model.open.set()
    assert [values(call.result(PATIENT_S)) for call in (slow, other, third)] == [[1, 2], [2], [1]]
    assert model.asked == [[1, 4], [4], [1]]
    # The third found no claims any more: they had been given up.
    assert cached.counters.late == 1
    assert not cached._claims._by_digest
    # And what came of it is known.
    assert values(cached(batch_of([4.0, 1.0]))) == [2, 1]
    assert model.n_rows == 4


def test_many_threads_on_few_rows_get_their_own_answers(
    pool: ThreadPoolExecutor, make_cached: Callable[..., CachedInfer]
) -> None:
    model = Gate()
    model.open.set()
    cached = make_cached(model, l1_rows=20)
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, 60, 50).astype(float).tolist() for _ in range(400)]
    for rows, batch in zip(batches, pool.map(cached, map(batch_of, batches)), strict=True):
        assert values(batch) == np.sqrt(rows).tolist()
    counters = cached.counters
    assert sum(count(cached)) + counters.bypassed == 400 * 50
    assert counters.misses == model.n_rows
    assert not cached._claims._by_digest
