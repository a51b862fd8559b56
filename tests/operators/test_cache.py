"""The prediction cache on a real Redis: it may only ever change how long an answer takes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from support.onnx_factory import affine, mlp, write_model
from support.redis_server import RedisServer

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import InferenceError
from modelstream.models.loading import load_model
from modelstream.operators.batch import Column, EventBatch, Settled
from modelstream.operators.breaker import Breaker
from modelstream.operators.cache import CacheCounters, CachedInfer
from modelstream.operators.infer import Infer, ScoringModel
from modelstream.operators.operator import run_isolated
from modelstream.operators.redis_store import RedisStore

pytestmark = pytest.mark.redis

FIELDS = (FieldSpec("x", "float32"), FieldSpec("n", "int64"), FieldSpec("v", "float64", 2), FieldSpec("text", "string"))

#: A busy machine must not make Redis look like it were away.
PATIENT_S = 30.0


class Counting:
    """A model written in Python, of every kind of output; it counts the rows that it is asked about."""

    def __init__(self, name: str = "mixed", version: str = "1", shift: float = 0.0, fails_at: float = 999.0) -> None:
        self.name = name
        self.version = version
        self.required_fields = FIELDS
        self.n_rows = 0
        self._shift = shift
        self._fails_at = fails_at

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        self.n_rows += n_rows
        x, v = np.asarray(columns["x"]), np.asarray(columns["v"])
        if (x == self._fails_at).any():
            raise InferenceError(self.name, self.version, "unlucky")
        with np.errstate(all="ignore"):
            return {
                "value": np.sqrt(x) + np.float32(self._shift),  # not a number below zero
                "label": [f"<{text}{self.version}>" for text in columns["text"]],
                "score": x / np.float32(3),
                "number": np.asarray(columns["n"]) * 2,
                "vector": v * np.pi,
                "kind": [text[:1] for text in columns["text"]],
            }


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to hurt."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def make_cached(redis_url: str) -> Iterator[Callable[..., CachedInfer]]:
    stores: list[RedisStore] = []

    def make(*models: ScoringModel, url: str = redis_url, timeout_s: float = PATIENT_S, **options: Any) -> CachedInfer:
        stores.append(RedisStore(url, timeout_s))
        return CachedInfer(Infer("score", models or [Counting()], max_size=64), stores[-1], 300, **options)

    yield make
    for store in stores:
        store.close()


def event(i: int) -> dict[str, Any]:
    return {"x": i / 7, "n": 2**40 + i, "v": [i / 3, -i], "text": "é" * (i % 4) + str(i)}


def batch_of(rows: Sequence[int]) -> EventBatch:
    return EventBatch.of_events([event(i) for i in rows])


def bits(column: Column) -> Any:
    return column if isinstance(column, list) else (column.dtype, column.shape, column.tobytes())


def seen(batch: EventBatch) -> Any:
    """Return all that a batch says, exactly."""
    return {
        name: (output.version, [(field, bits(column)) for field, column in output.fields.items()])
        for name, output in batch.outputs.items()
    }


def outcome(settled: Settled) -> Any:
    rejected = settled.rejected
    return (
        settled.kept.lineage.record_index.tolist(),
        seen(settled.kept),
        rejected and (rejected.lineage.record_index.tolist(), rejected.faults),
    )


def plain(rows: Sequence[int], *models: ScoringModel) -> Any:
    return seen(Infer("score", models or [Counting()])(batch_of(rows)))


def count(cached: CachedInfer) -> tuple[int, int, int, int]:
    counters = cached.counters
    return counters.hits, counters.misses, counters.duplicates, counters.bypassed


@pytest.mark.parametrize("known", [[], [3], range(0, 300, 2), range(300)])
def test_answers_are_the_models_own_to_the_bit(make_cached: Callable[..., CachedInfer], known: Sequence[int]) -> None:
    model, other = Counting(), Counting("other", shift=1)
    cached = make_cached(model, other)
    if len(known):
        cached(batch_of(known))
    asked = model.n_rows
    assert seen(cached(batch_of(range(300)))) == plain(range(300), Counting(), Counting("other", shift=1))
    assert model.n_rows - asked == 300 - len(known)
    assert count(cached) == (len(known), 300, 0, 0)
    assert (cached.step_id, cached.models) == ("score", (model, other))


def test_onnx_models_too(make_cached: Callable[..., CachedInfer], tmp_path: Path) -> None:
    write_model(tmp_path, "mlp", mlp((2, 8, 1), tensor="v"), '[inputs.v]\nfield = "v"\n')
    write_model(tmp_path, "wide", mlp((2, 8, 5), tensor="v"), '[inputs.v]\nfield = "v"\n')
    cached = make_cached(*(load_model(tmp_path, name) for name in ("mlp", "wide")))
    first = seen(cached(batch_of(range(100))))
    assert seen(cached(batch_of(range(100)))) == first
    assert count(cached) == (100, 100, 0, 0)


def test_equal_rows_are_inferred_once(make_cached: Callable[..., CachedInfer]) -> None:
    model = Counting()
    cached = make_cached(model)
    batch = cached(batch_of([5] * 10_000))
    assert model.n_rows == 1
    assert count(cached) == (0, 1, 9_999, 0)
    assert seen(batch) == plain([5] * 10_000)
    assert seen(cached(batch_of([5, 6] * 100))) == plain([5, 6] * 100)
    assert model.n_rows == 2


@pytest.mark.parametrize("change", ["version", "file", "name", "outputs", "one more"])
def test_another_model_never_gets_an_old_answer(
    make_cached: Callable[..., CachedInfer], tmp_path: Path, change: str
) -> None:
    spec = '[inputs.x]\nfield = "v"\n'
    write_model(tmp_path / "old", "m", affine([1, 2]), spec)
    version = "2" if change == "version" else "1"
    name = "k" if change == "name" else "m"
    weights = [3, 4] if change == "file" else [1, 2]
    outputs = '[outputs.estimate]\ntensor = "value"\nkind = "value"\n' if change == "outputs" else ""
    write_model(tmp_path / "new", name, affine(weights), spec + outputs, version)
    new = [load_model(tmp_path / "new", name)]
    if change == "one more":
        write_model(tmp_path / "old", "n", affine([1, 2]), spec)
        new = [load_model(tmp_path / "old", name) for name in ("m", "n")]
    rows = range(1000)
    make_cached(load_model(tmp_path / "old", "m"))(batch_of(rows))
    cached = make_cached(*new)
    assert seen(cached(batch_of(rows))) == plain(rows, *new)
    assert count(cached) == (0, 1000, 0, 0)


def test_text_that_is_none_is_left_to_the_models(make_cached: Callable[..., CachedInfer]) -> None:
    cached = make_cached()
    batches = [batch_of([1, 2]) for _ in range(2)]
    for batch in batches:
        batch.columns["text"] = np.array([["a"], [b"b"]], object)
    assert seen(cached(batches[0])) == seen(Infer("score", [Counting()])(batches[1]))
    assert count(cached) == (0, 0, 0, 2)


def test_what_is_rejected_is_never_kept(redis_url: str, make_cached: Callable[..., CachedInfer]) -> None:
    cached = make_cached()
    events = [event(1), {**event(2), "x": -1}, {"x": 3}, event(1), {**event(5), "x": 999}]
    for _ in range(2):
        settled = run_isolated(cached, EventBatch.of_events(events))
        assert settled.kept.lineage.record_index.tolist() == [0, 3]
        assert settled.rejected is not None
        assert [fault.reason for fault in settled.rejected.faults.values()] == [
            "non_finite", "missing_field", "model_failed",
        ]  # fmt: skip
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 1


@pytest.fixture(scope="module")
def module_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


ROWS = st.lists(
    st.one_of(
        st.integers(0, 12).map(event),
        st.sampled_from([{}, {"x": "?"}, {**event(3), "x": -2}, {**event(4), "x": 999}, {**event(5), "text": None}]),
    ),
    max_size=25,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(ROWS, min_size=1, max_size=4), spoiled=st.sets(st.integers(0, 20)), flushed=st.booleans())
def test_any_mix_of_rows_comes_out_as_without_a_cache(
    module_server: RedisServer, batches: list[list[dict[str, Any]]], spoiled: set[int], flushed: bool
) -> None:
    store = RedisStore(module_server.url, PATIENT_S)
    cached = CachedInfer(Infer("score", [Counting(), Counting("other")]), store, 300)
    with Redis.from_url(module_server.url) as client:
        for rows in batches:
            found = outcome(run_isolated(cached, EventBatch.of_events(rows)))
            infer = Infer("score", [Counting(), Counting("other")])
            assert found == outcome(run_isolated(infer, EventBatch.of_events(rows)))
            for position, key in enumerate(sorted(client.keys())):
                if position in spoiled:
                    client.setrange(key, position, b"!")
        if flushed:
            client.flushall()
    store.close()
    assert cached.counters.errors == 0
    assert cached.counters.corrupt <= cached.counters.misses


GARBAGE: list[Callable[[bytes], bytes]] = [
    lambda value: b"",
    lambda value: b"garbage",
    lambda value: value[:-1],
    lambda value: value + b"\0",
    lambda value: b"\x02" + value[1:],
    lambda value: value[:10] + bytes([value[10] ^ 1]) + value[11:],
    lambda value: bytes(len(value)),
    lambda value: os.urandom(len(value)),
]


@pytest.mark.parametrize("spoil", GARBAGE)
def test_what_is_not_whole_counts_as_missing(
    redis_url: str, make_cached: Callable[..., CachedInfer], spoil: Callable[[bytes], bytes]
) -> None:
    cached = make_cached()
    cached(batch_of(range(20)))
    with Redis.from_url(redis_url) as client:
        for key in client.keys()[:7]:
            client.set(key, spoil(client.get(key)))
    assert seen(cached(batch_of(range(20)))) == plain(range(20))
    assert (cached.counters.corrupt, *count(cached)) == (7, 13, 27, 0, 0)
    # And it has been written anew.
    assert seen(cached(batch_of(range(20)))) == plain(range(20))
    assert cached.counters.corrupt == 7


def test_answers_in_another_layout_are_not_read(make_cached: Callable[..., CachedInfer]) -> None:
    class Renamed(Counting):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            fields = super().predict(columns, n_rows)
            fields["points"] = fields.pop("score")
            return fields

    make_cached()(batch_of(range(5)))
    cached = make_cached(Renamed())
    assert seen(cached(batch_of(range(5)))) == plain(range(5), Renamed())
    assert cached.counters.corrupt == 5


def test_a_model_whose_answers_change_their_type_is_not_cached(
    redis_url: str, make_cached: Callable[..., CachedInfer]
) -> None:
    class Fickle(Counting):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            fields = super().predict(columns, n_rows)
            return {**fields, "value": np.asarray(fields["value"], np.float64)} if n_rows else fields

    cached = make_cached(Fickle())
    assert seen(cached(batch_of(range(5)))) == plain(range(5), Fickle())
    assert count(cached) == (0, 0, 0, 5)
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_flushed_redis_is_filled_again(redis_url: str, make_cached: Callable[..., CachedInfer]) -> None:
    cached = make_cached()
    for _ in range(2):
        assert seen(cached(batch_of(range(9)))) == plain(range(9))
    with Redis.from_url(redis_url) as client:
        client.flushall()
        assert seen(cached(batch_of(range(9)))) == plain(range(9))
        assert client.dbsize() == 9
    assert count(cached) == (9, 18, 0, 0)


@pytest.mark.parametrize("fault", ["kill", "stop", "pause"])
def test_predictions_go_on_without_redis_and_it_is_used_again_when_it_is_back(
    server: RedisServer, make_cached: Callable[..., CachedInfer], fault: str
) -> None:
    clock = Clock()
    reads = Breaker(clock=clock)
    cached = make_cached(url=server.url, timeout_s=0.05, reads=reads, writes=Breaker(clock=clock))
    assert server.pid is not None

    if fault == "kill":
        server.kill()
    elif fault == "stop":
        os.kill(server.pid, signal.SIGSTOP)
    else:
        with Redis.from_url(server.url) as client:
            client.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
    for _ in range(7):
        assert seen(cached(batch_of(range(9)))) == plain(range(9))
    # The first five are asked in vain, the other two are not asked.
    assert reads.is_open
    assert cached.counters == CacheCounters(bypassed=63, errors=5)

    if fault == "stop":
        os.kill(server.pid, signal.SIGCONT)
    else:
        server.restart()
    for _ in range(200):  # until Redis, and a busy machine, answer in time
        clock.now_s += 1
        assert seen(cached(batch_of(range(9)))) == plain(range(9))
        if cached.counters.hits:
            break
    assert cached.counters.hits
    assert not reads.is_open


def test_a_redis_that_takes_nothing_is_still_asked(
    server: RedisServer, make_cached: Callable[..., CachedInfer]
) -> None:
    clock = Clock()
    cached = make_cached(url=server.url, writes=Breaker(clock=clock))
    cached(batch_of(range(5)))
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        for _ in range(8):
            assert seen(cached(batch_of(range(10)))) == plain(range(10))
        assert cached.counters.errors == 5
        assert cached.counters.hits == 40
        client.config_set("maxmemory", 0)
    clock.now_s += 1
    for _ in range(2):
        assert seen(cached(batch_of(range(10)))) == plain(range(10))
    assert astuple(cached.counters) == (55, 50, 0, 0, 5, 0)
