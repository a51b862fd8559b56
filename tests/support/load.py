"""Events that keep coming while processes are killed, and what may be seen twice afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import orjson
import pytest
from confluent_kafka import KafkaError, Message, Producer
from support.kafka_tools import ORDERED, committed_offsets, end_offsets, read_all
from support.streams import KnownStream, known_record, wait_for

from modelstream.streams.worker_process import WorkerProcess

#: For the broker to come back and take what waited for it.
FLUSH_DEADLINE_S = 90.0
_TICK_S = 0.02

_SLOW = """\
import os
import time

def slow(batch):
    time.sleep(float(os.environ.get("SLOW_S", {seconds})))
    return {{}}
"""


def slow_down(stream: KnownStream, seconds: float) -> None:
    """Put a stage in front that takes so long for each batch: a fault then finds work under way.

    In a worker with `SLOW_S` in its environment it takes that long.
    """
    (stream.folder / "slow.py").write_text(_SLOW.format(seconds=seconds), encoding="utf-8")
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(text.replace("stages:", "stages:\n  - id: slow\n    extract: slow:slow"), encoding="utf-8")


class LiveLoad(threading.Thread):
    """Produces events of a known stream at a steady rate until told to stop; every one reaches Kafka once.

    Parameters
    ----------
    stream : KnownStream
        Where to.
    per_s : int
        Events per second.
    """

    def __init__(self, stream: KnownStream, per_s: int = 5_000) -> None:
        super().__init__(name="live-load", daemon=True)
        self._topic, self._per_s = stream.source, per_s
        self._producer = Producer(
            {
                "bootstrap.servers": stream.bootstrap,
                **ORDERED,
                "message.timeout.ms": int(FLUSH_DEADLINE_S * 1000),
                "queue.buffering.max.messages": 10_000_000,
            }
        )
        self._done = threading.Event()
        self._refused: list[KafkaError] = []
        #: How many events there are so far: their numbers are ``range(count)``.
        self.count = 0

    def run(self) -> None:
        started = time.monotonic()
        while not self._done.wait(_TICK_S):
            due = int((time.monotonic() - started) * self._per_s)
            for number in range(self.count, due):
                record = known_record(number)
                self._producer.produce(self._topic, record.value, record.key, on_delivery=self._on_delivery)
            self.count = due
            self._producer.poll(0)

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._refused.append(error)

    def stop(self) -> range:
        """Stop, wait until the broker has every event, and return their numbers."""
        self._done.set()
        self.join()
        left = self._producer.flush(FLUSH_DEADLINE_S)
        assert not left and not self._refused, f"{left} events not sent, {len(self._refused)} refused"
        return range(self.count)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a group stood, and how much it had produced: the events before it are done for good."""

    committed: Mapping[int, int]
    produced: Mapping[int, int]

    @classmethod
    def of(cls, stream: KnownStream) -> Mark:
        """Note where the stream's group stands now."""
        # In this order: what is committed first was produced before that, also by workers that go on.
        committed = committed_offsets(stream.bootstrap, stream.group, stream.source)
        return cls(committed, end_offsets(stream.bootstrap, stream.sink))

    @property
    def n_committed(self) -> int:
        """How many events were committed."""
        return sum(self.committed.values())

    @property
    def n_produced(self) -> int:
        """How many answers there were, those that came twice included."""
        return sum(self.produced.values())


def committed_and_repeated(stream: KnownStream, *marks: Mark) -> int:
    """Return how many answers after a mark are for events that were committed at it: there must be none."""
    places = {
        orjson.loads(record.value or b"")["id"]: (record.partition, record.offset)
        for record in read_all(stream.bootstrap, stream.source)
    }
    n_repeated = 0
    for record in read_all(stream.bootstrap, stream.sink):
        partition, offset = places[orjson.loads(record.value or b"")["event_id"]]
        n_repeated += any(
            record.offset >= mark.produced[record.partition] and offset < mark.committed.get(partition, 0)
            for mark in marks
        )
    return n_repeated


def wait_until_biting(*workers: WorkerProcess) -> list[int]:
    """Wait until a fault would find work under way: each worker has answered something, and has open batches.

    Returns
    -------
    list of int
        How many batches each has open.
    """

    def bites() -> bool:
        stats[:] = [worker.stats() for worker in workers]
        return all(found.get("predictions", 0) > 0 and found["open_batches"] > 0 for found in stats)

    stats: list[dict[str, int]] = []
    wait_for(bites, "work under way", *workers)
    return [found["open_batches"] for found in stats]


def wait_for_commit(stream: KnownStream, before: int, worker: WorkerProcess) -> None:
    """Wait until the group has committed more events than before."""

    def has_committed() -> bool:
        return sum(committed_offsets(stream.bootstrap, stream.group, stream.source).values()) > before

    wait_for(has_committed, "a commit", worker)


def require_bite(bit: bool, why_not: str) -> None:
    """Fail a run in which the fault hit nothing: it proves nothing."""
    if not bit:
        pytest.fail(f"invalid run: {why_not}")
