"""The broker the systems are measured on: which one, its topics, and the records put on it beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from benchmarks.ending import stopping_on_sigterm
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

__all__ = ["PARTITIONS", "BrokerFailed", "Cluster", "open_broker", "open_cluster"]

#: Of the input topic and of every output topic.
PARTITIONS = 2

#: With a small heap the broker collects garbage every second, at tens of thousands of events/s, for 10 to 30 ms, which
#: is then what p99 shows of every system. With this one, once a minute; its pages are there from the start.
_HEAP = ("-Xms2g", "-Xmx2g", "-Xmn1536m", "-XX:+AlwaysPreTouch")

_TIMEOUT_S = 30

#: Before anything is prepared the broker must answer; most often the address is wrong.
_ANSWER_S = 5

#: How long nothing more must come for a topic to count as read to its end.
_QUIET_S = 1.0


class BrokerFailed(RuntimeError):
    """A broker that cannot be started or does not answer."""


@contextmanager
def open_broker(name: str) -> Iterator[str]:
    """Yield the address of the broker to measure on, which is ended afterwards if it was started here.

    SIGTERM leaves the block as well, so that all that was started in it is ended.

    Parameters
    ----------
    name : str
        ``kafka`` starts Apache Kafka, ``embedded`` the broker of the `embedded` extra; anything else is the address of
        one that runs already.

    Raises
    ------
    BrokerFailed
        It cannot be started.
    """
    with stopping_on_sigterm(), _opened(name) as address:
        yield address


@contextmanager
def _opened(name: str) -> Iterator[str]:
    if name == "kafka":
        from tests.support.kafka_server import ApacheKafka, KafkaUnavailable

        try:
            kafka = ApacheKafka(heap=_HEAP)
        except KafkaUnavailable as error:
            raise BrokerFailed(f"{error}\n--broker embedded needs neither Java nor Maven") from None
        try:
            yield kafka.start().bootstrap
        finally:
            kafka.stop()
    elif name == "embedded":
        from modelstream.streams.embedded import EmbeddedBroker

        with EmbeddedBroker() as broker:
            yield broker.bootstrap
    else:
        yield name


@contextmanager
def open_cluster(broker: str) -> Iterator[Cluster]:
    """Yield a cluster on the broker that `open_broker` opens; its topics are deleted afterwards.

    Raises
    ------
    BrokerFailed
        It cannot be started, or does not answer.
    """
    with open_broker(broker) as address:
        cluster = Cluster(address)
        try:
            yield cluster
        finally:
            cluster.close()


class Cluster:
    """Topics and offsets of one broker.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of the broker.

    Raises
    ------
    BrokerFailed
        It does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        # The broker may go away before the clients: their complaints about it would spoil the table.
        self._client = {"bootstrap.servers": address, "log_level": 2}
        self._admin = AdminClient(self._client)
        try:
            self._admin.list_topics(timeout=_ANSWER_S)
        except KafkaException as error:
            raise BrokerFailed(f"no broker answers on {address}: {error.args[0].str()}") from None
        self._probe = self._open_consumer()
        self._topics: list[str] = []
        # Those that are written in transactions: among their offsets are also those of commits.
        self._transactional: set[str] = set()
        #: Whether the broker's end offsets can be trusted; the embedded one names the *start* of the last batch.
        self._lists_ends = True
        self._tails: dict[str, _Tail] = {}

    def _open_consumer(self) -> Consumer:
        group = {"group.id": "modelstream-benchmark", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        return Consumer({**self._client, **group, "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 20})

    def create_topic(self, topic: str, *, transactional: bool = False) -> None:
        """Create an empty topic, whose records get the broker's time when it appends them."""
        if transactional:
            self._transactional.add(topic)
        config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
        new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config=config)
        try:
            self._admin.create_topics([new], operation_timeout=_TIMEOUT_S)[topic].result(_TIMEOUT_S)
        except KafkaException as error:
            raise BrokerFailed(f"cannot create a topic on {self.address}: {error.args[0].str()}") from None
        self._topics.append(topic)
        self._wait_until_known(topic)

    def _wait_until_known(self, topic: str) -> None:
        """Wait until the broker tells a leader of each partition: a client remembers "unknown" for half a minute."""
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            told = self._probe.list_topics(topic, _TIMEOUT_S).topics[topic]
            if len(told.partitions) == PARTITIONS and all(part.leader >= 0 for part in told.partitions.values()):
                return
            time.sleep(0.02)
        raise BrokerFailed(f"{topic} was created, and has no leaders after {_TIMEOUT_S} s")

    def has(self, topic: str) -> bool:
        """Return whether a topic was created here."""
        return topic in self._topics

    def preload(self, topic: str, records: Iterable[bytes]) -> None:
        """Create a topic and put records on it, on its partitions in turn, without keys."""
        self.create_topic(topic)
        producer = Producer({**self._client, "acks": "all", "linger.ms": 20})
        n = 0
        for record in records:
            while True:
                try:
                    producer.produce(topic, record, partition=n % PARTITIONS)
                    n += 1
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush(_TIMEOUT_S)
        self._lists_ends = self._lists_ends and self.count(topic) == n
        deadline = time.monotonic() + _TIMEOUT_S
        while (there := self.count(topic)) != n:
            if time.monotonic() > deadline:
                raise BrokerFailed(f"{topic} holds {there} of {n} records")

    def count(self, topic: str) -> int:
        """Return how many records are on a topic, over all of its partitions, commits of transactions among them."""
        if self._lists_ends:
            return sum(self._end(part) for part in _parts(topic))
        if topic not in self._tails:
            self._tails[topic] = _Tail(self._open_consumer(), topic)
        return self._tails[topic].count()

    def _end(self, part: TopicPartition) -> int:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                end: int = self._probe.get_watermark_offsets(part, timeout=_TIMEOUT_S)[1]
                return end
            except KafkaException as error:
                # A new partition may have no leader yet on the broker that is asked.
                if time.monotonic() > deadline:
                    raise BrokerFailed(f"{part.topic} has no end: {error.args[0].str()}") from None
                self._probe.list_topics(part.topic, _TIMEOUT_S)
                time.sleep(0.02)

    def is_transactional(self, topic: str) -> bool:
        """Return whether a topic's offsets are not all those of records."""
        return topic in self._transactional

    def members(self, group: str) -> int:
        """Return how many members of a group have partitions of their own; 0 while it settles."""
        found = self._admin.describe_consumer_groups([group])[group].result(_TIMEOUT_S)
        if found.state != ConsumerGroupState.STABLE:
            return 0
        return sum(bool(member.assignment and member.assignment.topic_partitions) for member in found.members)

    def committed(self, group: str, topic: str) -> int:
        """Return how many records of a topic a group has committed, over all of its partitions."""
        request = ConsumerGroupTopicPartitions(group, _parts(topic))
        found = self._admin.list_consumer_group_offsets([request])[group].result(_TIMEOUT_S).topic_partitions
        return sum(max(part.offset, 0) for part in found)

    def read(self, topic: str, n: int) -> Iterator[list[Message]]:
        """Yield all records of a topic that nobody writes to any more, `n` of them or about that."""
        is_counted = self._lists_ends and not self.is_transactional(topic)
        left = self.count(topic) if is_counted else n
        consumer = self._open_consumer()
        consumer.assign(_parts(topic, offset=0))
        try:
            while left > 0 and (messages := consumer.consume(min(left, 10_000), _TIMEOUT_S)):
                yield [_checked(message) for message in messages]
                left -= len(messages)
            if left > 0:
                raise BrokerFailed(f"{left} records of {topic} cannot be read")
            while not is_counted and (messages := consumer.consume(10_000, _QUIET_S)):
                yield [_checked(message) for message in messages]
        finally:
            consumer.close()

    def close(self) -> None:
        """Delete every topic that was created here, and let go of the broker."""
        self.delete_topics()
        self._probe.close()

    def delete_topics(self) -> None:
        """Delete every topic that was created here."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        if self._topics:
            for future in self._admin.delete_topics(self._topics, operation_timeout=_TIMEOUT_S).values():
                # A broker that is going away anyway, or forbids deletion, is no reason to fail a measurement.
                with suppress(KafkaException):
                    future.result(_TIMEOUT_S)
            self._topics.clear()


class _Tail:
    """Counts the records of a topic by reading them, for a broker that does not say how many there are."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        consumer.assign(_parts(topic, offset=0))
        self._consumer = consumer
        self._seen = 0
        self.close = consumer.close

    def count(self) -> int:
        """Return how many have been seen, with those that have come since the last call."""
        self._seen += len(self._consumer.consume(100_000, 0))
        return self._seen


def _parts(topic: str, offset: int | None = None) -> list[TopicPartition]:
    positions = () if offset is None else (offset,)
    return [TopicPartition(topic, partition, *positions) for partition in range(PARTITIONS)]


def _checked(message: Message) -> Message:
    if message.error() is not None:
        raise KafkaException(message.error())
    return message
