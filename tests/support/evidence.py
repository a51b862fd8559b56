"""The files that the oracle judges: a load whose acknowledgements are noted, and consumers that note what they see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import BinaryIO, NamedTuple, Self

import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from support.kafka_tools import ORDERED, Outgoing, end_offsets, partitions_of, read_all
from support.oracle import Dead, Files, Predicted, Sent, write_lines
from support.streams import KnownStream, known_record, wait_for

from modelstream.streams.headers import split_own

#: For the broker to come back and take what waited for it.
FLUSH_DEADLINE_S = 90.0
#: Beyond any outage in a row, so that a record is refused only if the broker says so.
_MESSAGE_TIMEOUT_S = 180.0
_TICK_S = 0.01
#: Seconds without a word after which a client is replaced, longer than any outage: it may have lost its broker for good
#: (librdkafka#5301, where the only broker restarts). What it had under way counts as not acknowledged.
_LOST_S = 75.0


class Event(NamedTuple):
    """A record to send, with what must come of it: the model's answer, or None for a dead letter."""

    record: Outgoing
    event_id: str
    answer: float | None


def known_event(number: int, n_keys: int = 500, value: int | None = None) -> Event:
    """Return an event of a `KnownStream`; its number field may have another value than its number."""
    record = known_record(number, n_keys)
    if value is not None:
        record = record._replace(value=orjson.dumps({"id": f"e{number}", "seq": value}))
    return Event(record, f"e{number}", 3.0 * (number if value is None else value) + 1.0)


def digest_of(*parts: bytes | None) -> str:
    """Return a short digest of bytes."""
    return sha256(b"\0".join(part or b"" for part in parts)).hexdigest()[:16]


class AckedLoad(threading.Thread):
    """Produces events at a steady rate until told to stop, and notes which the broker has acknowledged.

    Parameters
    ----------
    stream : KnownStream
        Where to.
    files : Files
        Where it is noted.
    per_s : float
        Events per second; may be set while it runs.
    event_of : callable
        Makes the event of a number.
    """

    def __init__(
        self, stream: KnownStream, files: Files, per_s: float, event_of: Callable[[int], Event] = known_event
    ) -> None:
        super().__init__(name="acked-load", daemon=True)
        self._topic, self._event_of = stream.source, event_of
        self.per_s = per_s
        self._config = {
            "bootstrap.servers": stream.bootstrap,
            **ORDERED,
            "message.timeout.ms": int(_MESSAGE_TIMEOUT_S * 1000),
            "message.max.bytes": 20_000_000,
            "queue.buffering.max.messages": 10_000_000,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 2_000,  # to see partitions that are added
        }
        self._producer = Producer(self._config)
        self._heard_at = time.monotonic()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._file = files.sent.open("wb")
        #: How many events of the steady rate there are so far, and how many records the broker has acknowledged or not.
        self.count = self.n_acked = self.n_refused = 0

    def run(self) -> None:
        due, last = 0.0, time.monotonic()
        while not self._done.wait(_TICK_S):
            now = time.monotonic()
            due, last = due + (now - last) * self.per_s, now
            n_due = int(due)
            self.send(self._event_of(number) for number in range(self.count, self.count + n_due))
            self.count, due = self.count + n_due, due - n_due
            self._producer.poll(0)
            if not len(self._producer):
                self._heard_at = now
            elif now - self._heard_at > _LOST_S:
                self._renew()

    def _renew(self) -> None:
        lost, self._producer = self._producer, Producer(self._config)
        self._heard_at = time.monotonic()
        lost.purge()
        lost.flush(1)

    def send(self, events: Iterable[Event]) -> None:
        """Send more events, from any thread."""
        for record, event_id, answer in events:
            sent = Sent(
                event_id, (record.key or b"").decode(errors="replace"), answer, digest_of(record.value),
                -1, -1, time.time() * 1000.0, acked=False,
            )  # fmt: skip
            options = {"partition": record.partition, "timestamp": record.timestamp_ms}
            options = {name: value for name, value in options.items() if value is not None}
            self._producer.produce(
                self._topic, record.value, record.key, headers=list(record.headers),
                on_delivery=partial(self._on_delivery, sent), **options,
            )  # fmt: skip

    def _on_delivery(self, sent: Sent, error: KafkaError | None, message: Message) -> None:
        if error is None:
            sent = replace(sent, partition=message.partition(), offset=message.offset(), acked=True)
        with self._lock:
            self._heard_at = time.monotonic()
            self.n_acked += error is None
            self.n_refused += error is not None
            self._file.write(orjson.dumps(sent, option=orjson.OPT_APPEND_NEWLINE))

    def stop(self) -> None:
        """Stop, and wait until the broker has said something about every record, so that the file is complete."""
        self._done.set()
        self.join()
        left = self._producer.flush(FLUSH_DEADLINE_S)
        assert not left, f"{left} events are neither acknowledged nor refused"
        self._file.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        # What is still under way, where a run ended early, has no file to be noted in.
        self._producer.purge()
        self._producer.flush(1)
        self._file.close()


class Watcher(threading.Thread):
    """A consumer that reads the predictions during the faults, and writes what it sees.

    Parameters
    ----------
    stream : KnownStream
        Whose predictions.
    files : Files
        Where to.
    """

    def __init__(self, stream: KnownStream, files: Files) -> None:
        super().__init__(name="watcher", daemon=True)
        self._stream, self._files = stream, files
        self._done = threading.Event()
        self._next: dict[int, int] = dict.fromkeys(partitions_of(stream.bootstrap, stream.sink), 0)
        #: How many predictions it has seen, and when it saw the last one, by the wall clock.
        self.count = 0
        self.last_ms = 0.0

    def run(self) -> None:
        with self._files.during.open("wb") as file:
            while not self._done.is_set():
                self._read(file)

    def _read(self, file: BinaryIO) -> None:
        """Read until told to stop, or until nothing comes."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._stream.bootstrap,
                "group.id": "watcher",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(self._stream.sink, partition, at) for partition, at in self._next.items()])
        heard_at = time.monotonic()
        try:
            while not self._done.is_set() and time.monotonic() - heard_at < _LOST_S:
                first = consumer.poll(0.1)
                # consume(n, timeout) would wait for all n.
                messages = [first, *consumer.consume(10_000, 0)] if first is not None else []
                seen_ms = time.time() * 1000.0
                for message in messages:
                    if message.error() is None:  # else the broker is away, and comes back
                        file.write(_line(message, seen_ms))
                        self._next[message.partition()] = message.offset() + 1
                        self.count += 1
                        self.last_ms, heard_at = seen_ms, time.monotonic()
        finally:
            consumer.close()

    @property
    def partitions(self) -> list[int]:
        """Partitions of the topic of predictions."""
        return sorted(self._next)

    def finish(self) -> None:
        """Read to the end of every partition, and stop."""
        ends = end_offsets(self._stream.bootstrap, self._stream.sink)
        wait_for(lambda: all(self._next[p] >= end for p, end in ends.items()), "the watcher to read to the end")
        self.__exit__()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _line(message: Message, at_ms: float) -> bytes:
    found = predicted(message.partition(), message.offset(), message.key(), message.value(), at_ms)
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


def predicted(partition: int, offset: int, key: bytes | None, value: bytes | None, at_ms: float) -> Predicted:
    """Return a prediction record as the oracle sees it."""
    said = orjson.loads(value or b"")
    answers = said["predictions"]
    version = "+".join(str(answer["version"]) for answer in answers.values())
    return Predicted(
        said["event_id"], (key or b"").decode(errors="replace"), answers["triple"]["value"], version,
        digest_of(key, value), partition, offset, at_ms,
    )  # fmt: skip


def write_afterwards(stream: KnownStream, files: Files) -> None:
    """Read predictions and dead letters from their beginnings, and write their files."""
    write_lines(
        files.afterwards,
        (predicted(r.partition, r.offset, r.key, r.value, 0.0) for r in read_all(stream.bootstrap, stream.sink)),
    )
    write_lines(files.dead, (_dead(r.headers, r.value) for r in read_all(stream.bootstrap, stream.dead)))


def _dead(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Dead:
    said, _ = split_own(headers)
    # Of a value that was cut the letter says the hash itself.
    digest = said["sha256"].decode()[:16] if "sha256" in said else digest_of(value)
    return Dead(int(said["partition"]), int(said["offset"]), said["reason"].decode(), digest)
