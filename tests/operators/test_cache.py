"""The prediction cache on a real Redis: it may only ever change how long an answer takes."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from support.onnx_factory import affine, mlp, write_model
from support.redis_server import RedisServer

from modelstream.models.contract import ANY_WIDTH, FieldSpec
from modelstream.models.errors import InferenceError
from modelstream.models.loading import load_model
from modelstream.operators.batch import CacheState, Column, EventBatch, Settled
from modelstream.operators.breaker import Breaker
from modelstream.operators.cache import CachedInfer
from modelstream.operators.cascade import Cascade
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.infer import Infer, NamedModel, ScoringModel
from modelstream.operators.operator import run_isolated
from modelstream.operators.redis_store import RedisStore
from modelstream.operators.stage_clock import Moment

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


class Work(threading.local):
    """A clock of each thread that goes as work is said to be done, so no other work on the machine counts.

    Everything takes so many times as long as it would if others did not want the machine too. Reading it takes 10 µs,
    which stand for the cache's own work in between.
    """

    def __init__(self, slower: float = 1.0) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._slower = slower

    def __call__(self) -> Moment:
        self.take(10.0)
        return Moment(self.cpu_s, self.wall_s)

    def take(self, cpu_us: float, wait_us: float = 0.0) -> None:
        """Compute, and wait."""
        self.cpu_s += cpu_us * 1e-6
        self.wall_s += (cpu_us + wait_us) * self._slower * 1e-6


class Timed(Counting):
    """A model whose calls take known time."""

    def __init__(self, work: Work, row_us: float) -> None:
        super().__init__(fails_at=-5.0)
        self._work, self._row_us = work, row_us

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        self._work.take(self._row_us * n_rows)
        return super().predict(columns, n_rows)


class TimedStore(RedisStore):
    """A Redis that takes known time: a round trip, and something for each row."""

    def __init__(self, url: str, work: Work) -> None:
        super().__init__(url, PATIENT_S)
        self._work = work

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._work.take(1.0 * len(keys), 300.0)
        return super().get_many(keys)

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        self._work.take(2.0 * len(pairs), 300.0)
        super().set_many(pairs, ttl_s)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to hurt."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def make_cached(redis_url: str) -> Iterator[Callable[..., CachedInfer]]:
    """Make a stage with a cache in Redis alone that never leaves itself out, unless `options` say otherwise."""
    made: list[CachedInfer] = []

    def make(*models: ScoringModel, url: str = redis_url, timeout_s: float = PATIENT_S, **options: Any) -> CachedInfer:
        infer = Infer("score", models or [Counting()], max_size=64)
        options = {"l1_rows": 0, "bypass": False, **options}
        made.append(CachedInfer(infer, RedisStore(url, timeout_s), 300, **options))
        return made[-1]

    yield make
    for cached in made:
        cached.close(PATIENT_S)


def run(cached: CachedInfer, rows: Sequence[int]) -> Any:
    """Return what a stage says of rows, once Redis has its answers too."""
    found = seen(cached(batch_of(rows)))
    assert cached.flush(PATIENT_S)
    return found


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
        run(cached, known)
    asked = model.n_rows
    assert run(cached, range(300)) == plain(range(300), Counting(), Counting("other", shift=1))
    assert model.n_rows - asked == 300 - len(known)
    assert count(cached) == (len(known), 300, 0, 0)
    assert (cached.step_id, cached.models) == ("score", (model, other))


def test_onnx_models_too(make_cached: Callable[..., CachedInfer], tmp_path: Path) -> None:
    write_model(tmp_path, "mlp", mlp((2, 8, 1), tensor="v"), '[inputs.v]\nfield = "v"\n')
    write_model(tmp_path, "wide", mlp((2, 8, 5), tensor="v"), '[inputs.v]\nfield = "v"\n')
    cached = make_cached(*(load_model(tmp_path, name) for name in ("mlp", "wide")))
    first = run(cached, range(100))
    assert run(cached, range(100)) == first
    assert count(cached) == (100, 100, 0, 0)


def test_equal_rows_are_inferred_once(make_cached: Callable[..., CachedInfer]) -> None:
    model = Counting()
    cached = make_cached(model)
    batch = cached(batch_of([5] * 10_000))
    assert model.n_rows == 1
    assert count(cached) == (0, 1, 9_999, 0)
    assert seen(batch) == plain([5] * 10_000)
    assert cached.flush(PATIENT_S)
    assert run(cached, [5, 6] * 100) == plain([5, 6] * 100)
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
    run(make_cached(load_model(tmp_path / "old", "m")), rows)
    cached = make_cached(*new)
    assert run(cached, rows) == plain(rows, *new)
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
    assert cached.flush(PATIENT_S)
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
@given(
    batches=st.lists(ROWS, min_size=1, max_size=4),
    spoiled=st.sets(st.integers(0, 20)),
    flushed=st.booleans(),
    l1_rows=st.sampled_from([0, 2, 7, 100]),
)
def test_any_mix_of_rows_comes_out_as_without_a_cache(
    module_server: RedisServer, batches: list[list[dict[str, Any]]], spoiled: set[int], flushed: bool, l1_rows: int
) -> None:
    store = RedisStore(module_server.url, PATIENT_S)
    cached = CachedInfer(Infer("score", [Counting(), Counting("other")]), store, 300, l1_rows=l1_rows)
    with Redis.from_url(module_server.url) as client:
        for rows in batches:
            found = outcome(run_isolated(cached, EventBatch.of_events(rows)))
            infer = Infer("score", [Counting(), Counting("other")])
            assert found == outcome(run_isolated(infer, EventBatch.of_events(rows)))
            assert cached.flush(PATIENT_S)
            for position, key in enumerate(sorted(client.keys())):
                if position in spoiled:
                    client.setrange(key, position, b"!")
        if flushed:
            client.flushall()
    cached.close()
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
    run(cached, range(20))
    with Redis.from_url(redis_url) as client:
        for key in client.keys()[:7]:
            client.set(key, spoil(client.get(key)))
    assert run(cached, range(20)) == plain(range(20))
    assert (cached.counters.corrupt, *count(cached)) == (7, 13, 27, 0, 0)
    # And it has been written anew.
    assert run(cached, range(20)) == plain(range(20))
    assert cached.counters.corrupt == 7


def test_answers_in_another_layout_are_not_read(make_cached: Callable[..., CachedInfer]) -> None:
    class Renamed(Counting):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            fields = super().predict(columns, n_rows)
            fields["points"] = fields.pop("score")
            return fields

    run(make_cached(), range(5))
    cached = make_cached(Renamed())
    assert run(cached, range(5)) == plain(range(5), Renamed())
    assert cached.counters.corrupt == 5


def test_a_model_whose_answers_change_their_type_is_not_cached(
    redis_url: str, make_cached: Callable[..., CachedInfer]
) -> None:
    class Fickle(Counting):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            fields = super().predict(columns, n_rows)
            return {**fields, "value": np.asarray(fields["value"], np.float64)} if n_rows else fields

    cached = make_cached(Fickle())
    assert run(cached, range(5)) == plain(range(5), Fickle())
    assert count(cached) == (0, 0, 0, 5)
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_flushed_redis_is_filled_again(redis_url: str, make_cached: Callable[..., CachedInfer]) -> None:
    cached = make_cached()
    for _ in range(2):
        assert run(cached, range(9)) == plain(range(9))
    with Redis.from_url(redis_url) as client:
        client.flushall()
        assert run(cached, range(9)) == plain(range(9))
        assert client.dbsize() == 9
    assert count(cached) == (9, 18, 0, 0)


@pytest.mark.parametrize("fault", ["kill", "stop", "pause"])
def test_predictions_go_on_without_redis_and_it_is_used_again_when_it_is_back(
    server: RedisServer, make_cached: Callable[..., CachedInfer], fault: str
) -> None:
    reads = Breaker(rest_s=0.05)
    cached = make_cached(url=server.url, timeout_s=0.05, reads=reads, writes=Breaker(rest_s=0.05))
    assert server.pid is not None

    if fault == "kill":
        server.kill()
    elif fault == "stop":
        os.kill(server.pid, signal.SIGSTOP)
    else:
        with Redis.from_url(server.url) as client:
            client.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
    for _ in range(7):
        assert run(cached, range(9)) == plain(range(9))
    # The first five batches ask in vain, the other two do not ask; a thread does.
    assert reads.is_open
    assert (cached.counters.misses, cached.counters.redis_skipped, cached.counters.dropped) == (63, 63, 0)
    assert cached.counters.errors >= 5

    if fault == "stop":
        os.kill(server.pid, signal.SIGCONT)
    else:
        server.restart()
    deadline = time.monotonic() + PATIENT_S
    while not cached.counters.redis_hits and time.monotonic() < deadline:
        assert run(cached, range(9)) == plain(range(9))
    assert cached.counters.redis_hits
    assert not reads.is_open


def test_a_redis_that_takes_nothing_is_still_asked(
    server: RedisServer, make_cached: Callable[..., CachedInfer]
) -> None:
    clock = Clock()
    cached = make_cached(url=server.url, writes=Breaker(clock=clock))
    run(cached, range(5))
    with Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        for _ in range(8):
            assert run(cached, range(10)) == plain(range(10))
        # After five errors nothing is sent.
        assert (cached.counters.errors, cached.counters.dropped) == (5, 40)
        assert cached.counters.hits == 40
        client.config_set("maxmemory", 0)
    clock.now_s += 1
    for _ in range(2):
        assert run(cached, range(10)) == plain(range(10))
    assert (cached.counters.errors, cached.counters.dropped) == (5, 40)
    assert count(cached) == (55, 50, 0, 0)


def test_memory_is_asked_before_redis_and_learns_from_it(make_cached: Callable[..., CachedInfer]) -> None:
    run(make_cached(), [1, 2])
    model = Counting()
    cached = make_cached(model, l1_rows=100)
    batch = cached(batch_of([1, 3, 1, 3]))
    redis, miss, again = CacheState.REDIS, CacheState.MISS, CacheState.COALESCED
    assert batch.cache_states is not None
    assert batch.cache_states.tolist() == [redis, miss, redis, again]
    batch = cached(batch_of([3, 1, 2, 4]))
    memory = CacheState.MEMORY
    assert batch.cache_states is not None
    assert batch.cache_states.tolist() == [memory, memory, redis, miss]
    assert seen(batch) == plain([3, 1, 2, 4])
    assert (cached.counters.memory_hits, cached.counters.redis_hits, cached.counters.misses) == (2, 2, 2)
    assert model.n_rows == 2


def test_states_are_those_of_the_rows_that_were_seen(make_cached: Callable[..., CachedInfer]) -> None:
    cached = make_cached(l1_rows=100)
    run(cached, [1])
    settled = run_isolated(cached, EventBatch.of_events([{}, event(1), {**event(2), "x": -1}, event(3)]))
    assert settled.kept.cache_states is not None
    assert settled.kept.cache_states.tolist() == [CacheState.MEMORY, CacheState.MISS]


@pytest.mark.parametrize("l1_rows", [0, 65_536])
def test_a_hundred_thousand_rows_after_a_swap_get_no_answer_of_the_old_version(
    make_cached: Callable[..., CachedInfer], tmp_path: Path, l1_rows: int
) -> None:
    for version, weights in (("1", [1, 2]), ("2", [3, 4])):
        write_model(tmp_path, "m", affine(weights), '[inputs.x]\nfield = "v"\n', version)
    rows = np.random.default_rng(1).integers(0, 50_000, (100, 1000, 2)).astype(np.float32)
    for version, weights in (("1", [1, 2]), ("2", [3, 4]), ("1", [1, 2])):
        cached = make_cached(load_model(tmp_path, f"m@{version}"), l1_rows=l1_rows)
        for part in rows:
            batch = EventBatch.of_events([{}] * len(part))
            batch.columns["v"] = part
            output = cached(batch).outputs["m"]
            assert output.version == version
            assert (np.asarray(output.fields["value"]) == part @ np.array(weights, np.float32)).all()
        assert cached.flush(PATIENT_S)
    # The first version's answers were there still.
    assert cached.counters.misses == 0


def test_ten_thousand_equal_rows_in_flight_are_one_inference_and_one_entry(
    make_cached: Callable[..., CachedInfer], server: RedisServer, tmp_path: Path
) -> None:
    write_model(tmp_path, "m", affine([1, 2]), '[inputs.x]\nfield = "v"\n')
    cached = make_cached(load_model(tmp_path, "m"), url=server.url, wait_s=PATIENT_S)
    together = threading.Barrier(10)

    def infer_all() -> list[float]:
        batch = EventBatch.of_events([{}] * 1000)
        batch.columns["v"] = np.full((1000, 2), 3, np.float32)
        together.wait(PATIENT_S)
        values: list[float] = np.asarray(cached(batch).outputs["m"].fields["value"]).tolist()
        return values

    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(infer_all) for _ in range(10)]
    assert [answer.result() for answer in answers] == [[9.0] * 1000] * 10
    counters = cached.counters
    assert (counters.misses, counters.duplicates, counters.coalesced + counters.hits) == (1, 9_990, 9)
    assert cached.flush(PATIENT_S)
    assert Redis.from_url(server.url).dbsize() == 1


def test_models_that_work_together(make_cached: Callable[..., CachedInfer]) -> None:
    def infer() -> Infer:
        # The second model sees the rows with a small number only.
        return Infer(
            "score",
            [NamedModel(Counting(), "quick"), NamedModel(Counting(shift=1), "thorough")],
            ensembles=[Ensemble("both", "mean", ("quick", "thorough"))],
            cascades=[Cascade("verdict", ("quick", "thorough"), "value < 2")],
        )

    def told(batch: EventBatch) -> Any:
        return {
            name: (output.version, output.fields, output.answered is None or output.answered.tolist())
            for name, output in batch.outputs.items()
        }

    expected = EventBatch.of_events([event(i) for i in range(60)])
    infer()(expected)
    answered = expected.outputs["thorough"].answered
    assert answered is not None
    assert 0 < answered.sum() < 60
    store = make_cached()._store
    for l1_rows in (0, 100, 100):
        cached = CachedInfer(infer(), store, 300, l1_rows=l1_rows, bypass=False)
        batch = cached(batch_of(range(60)))
        assert seen(batch) == seen(expected)
        assert str(told(batch)) == str(told(expected))
        assert cached.flush(PATIENT_S)
    assert cached.counters.redis_hits == 60
    assert cached.step_id == "score"


def test_a_part_of_a_graph_that_changes_is_another_graph() -> None:
    def identity(unsure: str = "value < 2", weights: tuple[float, ...] = (), non_finite: Any = "reject") -> bytes:
        models = [NamedModel(Counting(), "a"), NamedModel(Counting(), "b")]
        ensemble = Ensemble("both", "weighted" if weights else "mean", ("a", "b"), weights)
        cascade = Cascade("verdict", ("a", "b"), unsure)
        return Infer("score", models, ensembles=[ensemble], cascades=[cascade], non_finite=non_finite).identity

    assert len({identity(), identity("value < 3"), identity(weights=(1, 2)), identity(non_finite="null")}) == 4
    assert identity() == identity()


# A machine that is ten times as slow since others want it makes no other decision, and tells the same costs.
@pytest.mark.parametrize("slower", [1.0, 10.0])
def test_a_stream_of_new_rows_ends_up_without_a_cache(
    redis_url: str, caplog: pytest.LogCaptureFixture, slower: float
) -> None:
    work = Work(slower)
    model = Timed(work, 5.0)
    cached = CachedInfer(Infer("score", [model]), TimedStore(redis_url, work), 300, l1_rows=1000, clock=work)
    with caplog.at_level(logging.INFO):
        for start in range(0, 40_000, 500):
            cached(batch_of(range(start, start + 500)))
    assert cached.counters.level == "off"
    assert cached.counters.changes == sum("the cache is now" in message for message in caplog.messages)
    assert cached.counters.misses + cached.counters.bypassed == model.n_rows == 40_000
    assert cached.counters.bypassed > 0
    assert cached.counters.spent_us > cached.counters.saved_us
    assert "a row costs the models 5.02 µs, the cache 0.06 µs, asking Redis 1.62 µs" in caplog.text
    cached.close(PATIENT_S)


@pytest.mark.parametrize("l1_rows", [0, 1000])
def test_two_rows_at_a_time_that_never_repeat_end_up_without_a_cache(redis_url: str, l1_rows: int) -> None:
    work = Work()
    store = TimedStore(redis_url, work)
    cached = CachedInfer(Infer("score", [Timed(work, 50.0)]), store, 300, l1_rows=l1_rows, clock=work)
    for start in range(0, 600, 2):
        cached(batch_of([start, start + 1]))
    assert (cached.counters.level, cached.counters.changes, cached.counters.hits) == ("off", 1, 0)
    assert cached.counters.bypassed > 300
    cached.close(PATIENT_S)


def test_a_redis_that_dies_is_a_line_in_the_log_and_told_by_the_counters(
    server: RedisServer, make_cached: Callable[..., CachedInfer], caplog: pytest.LogCaptureFixture
) -> None:
    reads = Breaker(rest_s=1e9)
    cached = make_cached(url=server.url, reads=reads)
    with caplog.at_level(logging.INFO):
        run(cached, range(5))
        assert not cached.counters.reads_paused
        server.kill()
        for _ in range(20):
            run(cached, range(5))
        assert cached.counters.reads_paused
        (message,) = caplog.messages
        assert message.startswith("stage score: Redis does not answer: Redis: ")
        assert message.endswith("; answers that memory does not know are computed until it does")
        server.restart()
        reads.tried()
        for _ in range(3):
            run(cached, range(5))
    assert not cached.counters.reads_paused
    assert caplog.messages[1:] == ["stage score: Redis answers again, and is asked again"]


def test_a_redis_that_takes_nothing_is_a_line_in_the_log(
    server: RedisServer, make_cached: Callable[..., CachedInfer], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    cached = make_cached(url=server.url, writes=Breaker(clock=clock))
    with caplog.at_level(logging.INFO), Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        for _ in range(8):
            run(cached, range(5))
        assert (cached.counters.reads_paused, cached.counters.writes_paused) == (False, True)
        client.config_set("maxmemory", 0)
        clock.now_s += 2
        run(cached, range(5))
    assert not cached.counters.writes_paused
    refused, taken = caplog.messages
    assert refused.startswith("stage score: Redis takes no answers: Redis: ")
    assert taken == "stage score: Redis takes answers again"


def test_what_there_is_no_room_for_is_dropped_and_counted(
    server: RedisServer, make_cached: Callable[..., CachedInfer]
) -> None:
    cached = make_cached(url=server.url, write_behind_rows=10, l1_rows=100)
    assert run(cached, range(30)) == plain(range(30))
    assert cached.counters.dropped == 20
    # Memory has them all.
    assert run(cached, range(30)) == plain(range(30))
    assert cached.counters.memory_hits == 30


def test_memory_alone() -> None:
    cached = CachedInfer(Infer("score", [Counting()]), None, 300)
    for _ in range(2):
        assert seen(cached(batch_of(range(9)))) == plain(range(9))
    assert (count(cached), cached.counters.level) == ((9, 9, 0, 0), "memory")
    assert cached.flush(0)
    cached.close()


@pytest.mark.parametrize("dtype", ["float32", "string"])
def test_rows_of_any_length(make_cached: Callable[..., CachedInfer], dtype: Any) -> None:
    class Sums(Counting):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            self.n_rows += n_rows
            cells: Any = columns["many"]
            # An empty text is what rows are padded with.
            return {"value": np.array([sum(float(one) for one in row if one != "") for row in cells], np.float64)}

    def rows(*lengths: int) -> EventBatch:
        value = float if dtype == "float32" else str
        return EventBatch.of_events([{"many": [value(i + 1) for i in range(length)]} for length in lengths])

    model = Sums()
    model.required_fields = (FieldSpec("many", dtype, ANY_WIDTH),)
    cached = make_cached(model, l1_rows=100)
    for lengths in ((1, 3, 2, 3), (3, 3), (2, 4, 1)):
        found = cached(rows(*lengths)).outputs["mixed"].fields["value"]
        assert np.asarray(found).tolist() == [length * (length + 1) / 2 for length in lengths]
    assert model.n_rows == 4
    assert cached.counters.bypassed == 0
