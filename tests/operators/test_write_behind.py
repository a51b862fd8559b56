from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from modelstream.models.errors import CacheUnavailable
from modelstream.operators.batch import Column
from modelstream.operators.breaker import Breaker
from modelstream.operators.cache_entries import AnswerCodec, store_keys
from modelstream.operators.guarded_store import StoreNews
from modelstream.operators.write_behind import WriteBehind, Written

CODEC = AnswerCodec([{"value": np.empty(0)}])
PATIENT_S = 30.0


class Slow:
    """A store that takes answers only when it is let; the behaviour of a busy one, on demand."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[bytes, bytes]]] = []
        self.let = threading.Event()
        self.called = threading.Event()
        self.fails = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        self.called.set()
        assert self.let.wait(PATIENT_S)
        if self.fails:
            raise CacheUnavailable("no")
        self.calls.append(list(pairs))

    def close(self) -> None:
        pass


class Bench:
    """A writer with room for ten rows, and what it has noted."""

    def __init__(self) -> None:
        self.store = Slow()
        self.noted: list[Written] = []
        self.writer = WriteBehind(self.store, CODEC, 60, 10, self.noted.append, Breaker(max_failures=2, rest_s=1e9))

    def put(self, *rows: int) -> None:
        columns: list[Column] = [np.array(rows, np.float64)]
        self.writer.put([b"%d" % row for row in rows], columns)

    def total(self, name: str) -> int:
        return sum(getattr(written, name) for written in self.noted)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.store.let.set()
    bench.writer.close(PATIENT_S)


def test_answers_are_written_in_their_order(bench: Bench) -> None:
    bench.store.let.set()
    bench.put(1, 2)
    assert bench.writer.flush(PATIENT_S)
    bench.put(3)
    assert bench.writer.flush(PATIENT_S)
    written = [pair for call in bench.store.calls for pair in call]
    assert [key for key, _ in written] == store_keys([b"1", b"2", b"3"])
    found, [values] = CODEC.decode([value for _, value in written])
    assert found.all()
    assert np.asarray(values).tolist() == [1, 2, 3]
    assert (bench.total("rows"), bench.total("dropped"), bench.total("errors")) == (3, 0, 0)


def test_what_waits_is_bounded_and_the_rest_is_dropped(bench: Bench) -> None:
    bench.put(0)
    assert bench.store.called.wait(PATIENT_S)
    bench.put(*range(1, 9))
    bench.put(*range(9, 15))
    bench.put(15)
    assert bench.total("dropped") == 5
    bench.store.let.set()
    assert bench.writer.flush(PATIENT_S)
    # What had waited went together.
    assert [len(call) for call in bench.store.calls] == [1, 10]


def test_the_end_waits_only_so_long(bench: Bench) -> None:
    bench.put(0)
    assert bench.store.called.wait(PATIENT_S)
    bench.put(1, 2, 3)
    bench.writer.close(0.01)
    assert bench.total("dropped") == 3
    bench.put(4)
    assert bench.total("dropped") == 4


def test_the_end_writes_what_it_can(bench: Bench) -> None:
    bench.store.let.set()
    bench.put(1, 2, 3)
    bench.writer.close(PATIENT_S)
    assert (bench.total("rows"), bench.total("dropped")) == (3, 0)


def test_a_store_that_does_not_take_them_is_left_alone(bench: Bench) -> None:
    bench.store.fails = True
    bench.store.let.set()
    for row in range(5):
        bench.put(row)
        assert bench.writer.flush(PATIENT_S)
    assert (bench.total("errors"), bench.total("dropped"), bench.total("rows")) == (2, 5, 0)


def test_a_store_that_takes_nothing_is_said_once_and_that_it_does_again(caplog: pytest.LogCaptureFixture) -> None:
    store, told, now_s = Slow(), [], [0.0]
    store.let.set()
    breaker = Breaker(max_failures=2, rest_s=1, clock=lambda: now_s[0])
    writer = WriteBehind(
        store, CODEC, 60, 10, lambda written: None, breaker, StoreNews("full: %s", "room again", told.append)
    )
    with caplog.at_level(logging.INFO):
        for store.fails in (True, True, True, True, False, False):
            writer.put([b"a"], [np.array([1.0])])
            assert writer.flush(PATIENT_S)
            now_s[0] += 1
    writer.close(PATIENT_S)
    assert told == [True, False]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "full: no"),
        ("INFO", "room again"),
    ]


def test_it_survives_what_it_does_not_expect(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.let.set()
    bench.writer.put([b"a"], [])
    assert bench.writer.flush(PATIENT_S)
    assert "answers could not be kept" in caplog.text
    bench.put(1)
    assert bench.writer.flush(PATIENT_S)
    assert bench.total("rows") == 1


def test_nothing_to_write_needs_no_thread(bench: Bench) -> None:
    before = threading.active_count()
    bench.writer.put([], [np.empty(0)])
    assert bench.writer.flush(0)
    assert threading.active_count() == before
