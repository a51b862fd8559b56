"""What tests do with topics from outside the engine: create, fill, read to the end, look at committed offsets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

#: For one admin request, or for the next records of a topic; far beyond what a loaded machine takes.
DEADLINE_S = 30.0
#: Settings of a producer whose retries keep the order and add no record, also where a new leader refuses at first.
ORDERED: Mapping[str, str | int | bool] = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
_LOADING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class Outgoing(NamedTuple):
    """A record to produce. Without a partition the key decides; without a timestamp the clock does."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Incoming(NamedTuple):
    """A record as Kafka holds it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes | None], ...]


def admin_client(bootstrap: str) -> AdminClient:
    """Return an admin client that keeps its connection errors to itself."""
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def create_topic(bootstrap: str, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
    """Create a topic and wait until every partition has a leader."""
    admin = admin_client(bootstrap)
    request = NewTopic(topic, partitions, replication_factor=1, config=dict(config or {}))
    admin.create_topics([request], operation_timeout=DEADLINE_S)[topic].result(DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while not _has_leaders(admin, topic, partitions):
        assert time.monotonic() < deadline, f"topic {topic} has no leaders"
        time.sleep(0.02)


def _has_leaders(admin: AdminClient, topic: str, partitions: int) -> bool:
    # Not list_topics(topic): where a broker creates topics by itself, asking for one by name may create it.
    metadata = admin.list_topics(timeout=DEADLINE_S).topics.get(topic)
    if metadata is None or metadata.error is not None or len(metadata.partitions) != partitions:
        return False
    return all(p.error is None and p.leader >= 0 for p in metadata.partitions.values())


def delete_topics(bootstrap: str, topics: Sequence[str]) -> None:
    """Delete topics, without an error for those that are gone already."""
    if topics:
        # Held until the end: a client that is collected leaves its futures without an answer.
        admin = admin_client(bootstrap)
        for future in admin.delete_topics(list(topics), operation_timeout=DEADLINE_S).values():
            future.exception(DEADLINE_S)


@contextmanager
def group_member(bootstrap: str, *, group: str, topic: str, session_timeout_s: float = 30.0) -> Iterator[Consumer]:
    """Have a member in a consumer group that has joined, and reads nothing more."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": group, "session.timeout.ms": int(session_timeout_s * 1000),
            "log_level": 0,
        }
    )  # fmt: skip
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + DEADLINE_S
        while not consumer.assignment():
            consumer.poll(0.1)
            assert time.monotonic() < deadline, f"nobody can join the group {group}"
        yield consumer
    finally:
        consumer.close()


def delete_records(bootstrap: str, topic: str, before: int) -> None:
    """Do what retention does, to the first partition."""
    place = TopicPartition(topic, 0, before)
    admin = admin_client(bootstrap)  # held until the end: its futures need it
    admin.delete_records([place])[place].result(30)


def produce_all(bootstrap: str, topic: str, records: Iterable[Outgoing | bytes]) -> int:
    """Write records and wait until the broker has acknowledged every one; return how many there were."""
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, **ORDERED})
    n_records = 0
    for record in records:
        outgoing = Outgoing(record) if isinstance(record, bytes) else record
        _produce(producer, topic, outgoing, failed)
        n_records += 1
    left = producer.flush(DEADLINE_S)
    assert not left and not failed, f"{left} records not sent, {len(failed)} refused: {failed[:3]}"
    return n_records


def _produce(producer: Producer, topic: str, record: Outgoing, failed: list[object]) -> None:
    options: dict[str, int] = {}
    if record.partition is not None:
        options["partition"] = record.partition
    if record.timestamp_ms is not None:
        options["timestamp"] = record.timestamp_ms
    while True:
        try:
            producer.produce(
                topic,
                record.value,
                record.key,
                headers=list(record.headers),
                on_delivery=lambda error, _: failed.append(error) if error else None,
                **options,
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)


def partitions_of(bootstrap: str, topic: str) -> list[int]:
    """Return the partitions of a topic, none if there is no such topic."""
    metadata = admin_client(bootstrap).list_topics(timeout=DEADLINE_S).topics.get(topic)
    return sorted(metadata.partitions) if metadata else []


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return for each partition the offset that its next record will have."""
    consumer = _consumer(bootstrap)
    try:
        # The broker's word for "latest" is only where to begin: the embedded broker's is the start of the last batch.
        latest = [
            TopicPartition(topic, p, consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=DEADLINE_S)[1])
            for p in partitions_of(bootstrap, topic)
        ]
        return _read_to_end(consumer, latest)[1]
    finally:
        consumer.close()


def committed_offsets(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the group's committed offset of each partition, partitions without one left out."""
    consumer = _consumer(bootstrap, group)
    try:
        asked = [TopicPartition(topic, p) for p in partitions_of(bootstrap, topic)]
        return {tp.partition: tp.offset for tp in _committed(consumer, asked) if tp.offset >= 0}
    finally:
        consumer.close()


def _committed(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return consumer.committed(asked, timeout=DEADLINE_S)
        except KafkaException as error:
            # A broker just (re)started, or with its first group, loads its groups first; librdkafka does not try again.
            if error.args[0].code() not in _LOADING or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def read_all(bootstrap: str, topic: str, *, isolation: str = "read_uncommitted") -> list[Incoming]:
    """Return every record from the beginning to the end of each partition, in order within a partition.

    Raises
    ------
    TimeoutError
        If the next records do not come within 30 s.
    """
    consumer = _consumer(bootstrap, isolation=isolation)
    try:
        return _read_to_end(consumer, [TopicPartition(topic, p, 0) for p in partitions_of(bootstrap, topic)])[0]
    finally:
        consumer.close()


def _read_to_end(consumer: Consumer, start: list[TopicPartition]) -> tuple[list[Incoming], dict[int, int]]:
    """Return the records from these offsets on, and where each partition ended when its end was reached."""
    records: list[Incoming] = []
    ends: dict[int, int] = {}
    deadline = time.monotonic() + DEADLINE_S
    consumer.assign(start)
    while len(ends) < len(start):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no record for {DEADLINE_S:.0f} s; of {start} only {ends} came to their end")
        first = consumer.poll(0.2)
        # consume(n, timeout) would wait for all n.
        messages = [first, *consumer.consume(10_000, 0)] if first is not None else []
        for message in messages:
            deadline = time.monotonic() + DEADLINE_S
            if _is_end(message):
                ends.setdefault(message.partition(), message.offset())
            elif message.partition() not in ends:
                records.append(_incoming(message))
    return records, ends


def _is_end(message: Message) -> bool:
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)
    return error is not None


def _incoming(message: Message) -> Incoming:
    return Incoming(
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        message.timestamp()[1],
        tuple(message.headers() or ()),
    )


def _consumer(bootstrap: str, group: str = "modelstream-tests", isolation: str = "read_uncommitted") -> Consumer:
    """Return a consumer that joins no group and commits nothing: a group's name is asked for, not taken part in."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            # An end is told by an empty fetch, which the broker holds back for so long: 500 ms by default.
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
