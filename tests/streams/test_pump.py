"""The fetching consumer: how it gathers, and how it passes over what is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from faust.types import TP
from support.kafka_tools import Outgoing, delete_records, produce_all

from modelstream.streams import pump as pump_module
from modelstream.streams.pump import Pump
from modelstream.streams.records import RecordBatch

pytestmark = pytest.mark.kafka


class Rests:
    """A pump on one partition, its waits between two fetches noted instead of waited."""

    def __init__(
        self, bootstrap: str, topic: str, gather_s: float, max_records: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self.waits_s: list[float] = []
        monkeypatch.setattr(pump_module, "sleep", self.waits_s.append)
        self.pump = Pump({"bootstrap.servers": bootstrap, "group.id": topic}, max_records, 1_000, gather_s)
        self.pump.assign({TP(topic, 0): 0}, 1)

    def fetch_new(self, n_records: int = 1) -> RecordBatch:
        produce_all(self._bootstrap, self._topic, [Outgoing(b"{}")] * n_records)
        return fetch_next(self.pump)


def fetch_next(pump: Pump) -> RecordBatch:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if batches := pump.fetch(0.1):
            return batches[0]
    raise AssertionError("no record came")


@pytest.fixture
def make_rests(
    kafka: Any, make_topics: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Rests]]:
    made: list[Rests] = []

    def make(gather_s: float, max_records: int = 100) -> Rests:
        made.append(Rests(kafka.bootstrap, *make_topics(kafka, "events"), gather_s, max_records, monkeypatch))
        return made[-1]

    yield make
    for rests in made:
        rests.pump.close()


def test_who_comes_alone_is_not_kept(make_rests: Callable[..., Rests]) -> None:
    rests = make_rests(0.001)
    for _ in range(3):
        batch = rests.fetch_new()
        batch.let_go(1)
        time.sleep(0.002)
    assert rests.waits_s == []


def test_a_fetch_soon_after_another_waits_for_what_comes_meanwhile(make_rests: Callable[..., Rests]) -> None:
    rests = make_rests(60.0)
    rests.fetch_new().let_go(1)
    rests.fetch_new().let_go(1)
    assert rests.waits_s
    assert all(0 < wait_s <= 60.0 for wait_s in rests.waits_s)


def test_work_is_not_kept_waiting_by_the_gathering(make_rests: Callable[..., Rests]) -> None:
    rests = make_rests(60.0)
    rests.fetch_new()  # which stays to be worked on
    assert rests.pump.fetch(60.0) == []
    assert rests.waits_s == []


def test_after_a_full_fetch_the_next_comes_at_once(make_rests: Callable[..., Rests]) -> None:
    rests = make_rests(60.0, max_records=1)
    rests.fetch_new(2).let_go(1)
    rests.fetch_new().let_go(1)
    assert rests.waits_s == []


def test_a_fetch_has_so_many_bytes_at_the_most(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [topic] = make_topics(kafka, "events")
    pump = Pump({"bootstrap.servers": kafka.bootstrap, "group.id": topic}, max_records=100, max_bytes=1_000, gather_s=0)
    small, large = Outgoing(b"x" * 400), Outgoing(b"x" * 4_000)
    try:
        pump.assign({TP(topic, 0): 0}, 1)
        produce_all(kafka.bootstrap, topic, [small])
        assert (len(fetch_next(pump)), pump.took_all) == (1, True)
        produce_all(kafka.bootstrap, topic, [small] * 7 + [large] * 2)
        time.sleep(0.5)  # until the client has them all
        assert (len(fetch_next(pump)), pump.took_all) == (2, False)
        # The last small one comes with a large one, whose size is met only when it is there; the next comes alone.
        assert [len(fetch_next(pump)) for _ in range(4)] == [2, 2, 2, 1]
        assert (pump.fetch(0.1), pump.took_all) == ([], True)
    finally:
        pump.close()


def test_a_gap_follows_the_records_that_come_with_it(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [topic] = make_topics(kafka, "events")
    tp = TP(topic, 0)
    # Nothing more is asked for while three records wait in the client.
    config = {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "error"}
    pump = Pump(
        {**config, "queued.min.messages": 3, "fetch.queue.backoff.ms": 1}, max_records=4, max_bytes=1_000, gather_s=0
    )
    try:
        produce_all(kafka.bootstrap, topic, [Outgoing(b"{}")] * 10)
        pump.assign({tp: 0}, 1)
        first = fetch_next(pump)
        produce_all(kafka.bootstrap, topic, [Outgoing(b"{}")] * 40)
        delete_records(kafka.bootstrap, topic, before=50)
        produce_all(kafka.bootstrap, topic, [Outgoing(b"{}")])
        second = fetch_next(pump)
        time.sleep(0.5)  # until the client has been told: what it then says stands behind the last two records
        third = fetch_next(pump)
        after = fetch_next(pump)
    finally:
        pump.close()
    assert [(batch.follows, batch.end_offset) for batch in (first, second, third, after)] == [
        (None, 4),
        (4, 8),
        (8, 10),
        (10, 51),
    ]
    [gap] = pump.gaps
    assert (gap.start, gap.end, gap.follows) == (10, 50, 10)


def test_after_its_end_it_does_nothing(kafka: Any) -> None:
    pump = Pump(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "closed"}, max_records=4, max_bytes=1_000, gather_s=0
    )
    pump.close()
    pump.unassign()
    pump.assign({TP("events", 0): 0}, 1)
    assert pump.fetch(0.1) == []


class SilentOnce:
    """A consumer whose broker does not answer the first question where a partition begins."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.n_asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def get_watermark_offsets(self, *arguments: Any) -> Any:
        self.n_asked += 1
        if self.n_asked == 1:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return self._consumer.get_watermark_offsets(*arguments)


def test_a_broker_that_is_away_for_a_moment_does_not_end_a_gap(
    kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    [topic] = make_topics(kafka, "events")
    produce_all(kafka.bootstrap, topic, [Outgoing(b"{}")] * 10)
    delete_records(kafka.bootstrap, topic, before=7)
    config = {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "auto.offset.reset": "error"}
    pump = Pump(config, max_records=100, max_bytes=1_000, gather_s=0)
    consumer = pump._consumer = SilentOnce(pump._consumer)  # type: ignore[assignment]
    try:
        pump.assign({TP(topic, 0): 2}, 1)
        batch = fetch_next(pump)
    finally:
        pump.close()
    assert (len(batch), batch.end_offset) == (3, 10)
    assert [(gap.start, gap.end) for gap in pump.gaps] == [(2, 7)]
    assert consumer.n_asked == 2
