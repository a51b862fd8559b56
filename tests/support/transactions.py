"""What a reader of committed records sees while and after transactions are broken, and what hangs."""

from __future__ import annotations

import threading
from typing import Self

from confluent_kafka import Consumer, TopicPartition
from support.kafka_tools import DEADLINE_S, Incoming, partitions_of, read_all
from support.streams import KnownStream, wait_for

_POLL_S = 0.1


class CommittedReader(threading.Thread):
    """Reads the committed records of a topic from its beginning on, until told to stop."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(name="committed-reader", daemon=True)
        self._consumer = _consumer(bootstrap, "read_committed")
        self._consumer.assign([TopicPartition(topic, p, 0) for p in partitions_of(bootstrap, topic)])
        self._done = threading.Event()
        #: Partition and value of the records, in the order in which they were seen.
        self.records: list[tuple[int, bytes]] = []

    def run(self) -> None:
        while not self._done.is_set():
            first = self._consumer.poll(_POLL_S)
            for message in [] if first is None else [first, *self._consumer.consume(10_000, 0)]:
                # An error of a broker that is away is no record, and goes away as well.
                if message.error() is None:
                    self.records.append((message.partition(), message.value() or b""))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        self._consumer.close()


def deliver_exactly_once(stream: KnownStream, interval_ms: int | None = None) -> None:
    """Put the guarantee into a stream's pipeline file."""
    lines = ["delivery: exactly_once"] + ([] if interval_ms is None else [f"transaction_interval_ms: {interval_ms}"])
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(text + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def records_behind_open_transactions(bootstrap: str, *topics: str) -> int:
    """Return how many offsets of the topics' ends committed readers do not get to: high watermark less stable offset.

    Raises
    ------
    TimeoutError
        If the broker does not answer.
    """
    stable, high = _consumer(bootstrap, "read_committed"), _consumer(bootstrap, "read_uncommitted")
    try:
        places = [TopicPartition(topic, p) for topic in topics for p in partitions_of(bootstrap, topic)]
        return sum(_end(high, place) - _end(stable, place) for place in places)
    finally:
        stable.close()
        high.close()


def read_committed(bootstrap: str, topic: str) -> list[Incoming]:
    """Return every committed record of a topic once no transaction is open.

    A commit returns before its markers are in all partitions, and until then one seems to end before it.
    """
    wait_for(lambda: records_behind_open_transactions(bootstrap, topic) == 0, f"the transactions of {topic} to end")
    return read_all(bootstrap, topic, isolation="read_committed")


def _end(consumer: Consumer, place: TopicPartition) -> int:
    found = consumer.get_watermark_offsets(place, timeout=DEADLINE_S)
    if found is None:
        raise TimeoutError(f"no end of {place} within {DEADLINE_S:.0f} s")
    end: int = found[1]
    return end


def _consumer(bootstrap: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "modelstream-tests",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "log_level": 0,
        }
    )
