"""The reference: the loop an expert writes by hand with confluent-kafka, in batches from fetch to produce.

At-least-once, and nothing else: no validation, no dead letters, no second model; one bad record ends it. About once a
second it flushes, then commits.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, SESSION_TIMEOUT_S, Job
from benchmarks.systems.scoring import open_score
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

__all__ = ["run"]

#: Most records per model call.
BATCH = 1024


def _open_consumer(job: Job) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": job.broker,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # The default stops fetching for a whole second once the local queue is full.
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 20,
            "check.crcs": False,
        }
    )
    consumer.subscribe([job.input_topic])
    return consumer


def _fail(error: KafkaError | None, _: Message) -> None:
    raise KafkaException(error)


def _open_producer(job: Job) -> Producer:
    return Producer(
        {
            "bootstrap.servers": job.broker,
            "acks": ACKS,
            "compression.type": "none",
            "linger.ms": LINGER_MS,
            "queue.buffering.max.messages": 500_000,
            # One callback for all records, called for failures only: a lost output must stop the commit.
            "on_delivery": _fail,
            "delivery.report.only.error": True,
        }
    )


def _commit(consumer: Consumer, producer: Producer, topic: str, positions: dict[int, int]) -> None:
    if producer.flush(30):
        raise RuntimeError("the broker did not take the outputs within 30 s")
    if positions:
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in positions.items()]
        consumer.commit(offsets=offsets, asynchronous=False)


def _values_of(messages: Sequence[Message]) -> list[bytes]:
    """Return what records hold."""
    return [message.value() for message in messages]


def _work(
    job: Job, outputs_of: Callable[[list[Message]], Sequence[bytes | str]], consumer: Consumer, producer: Producer,
    running: Callable[[], bool],
) -> None:  # fmt: skip
    positions: dict[int, int] = {}
    due = time.monotonic() + COMMIT_INTERVAL_S
    while running():
        # consume(n, timeout) alone would wait for n records, or for the whole timeout.
        first = consumer.poll(0.1)
        if first is not None:
            messages = [first, *consumer.consume(BATCH - 1, 0)]
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
            for output in outputs_of(messages):
                producer.produce(job.output_topic, output)
            producer.poll(0)
            for message in messages:
                positions[message.partition()] = message.offset() + 1
        if time.monotonic() >= due:
            _commit(consumer, producer, job.input_topic, positions)
            due = time.monotonic() + COMMIT_INTERVAL_S
    _commit(consumer, producer, job.input_topic, positions)


def run(
    job: Job, score: Callable[[Any], Sequence[bytes | str]], take: Callable[[list[Message]], Any] = _values_of
) -> None:
    """Score what comes until SIGTERM.

    Parameters
    ----------
    job : Job
        Where from, and where to.
    score : callable
        Returns the outputs of what was taken of records, in their order.
    take : callable
        Returns what is taken of records: what they hold, by default.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    consumer, producer = _open_consumer(job), _open_producer(job)
    _work(job, lambda messages: score(take(messages)), consumer, producer, lambda: not stopping)
    consumer.close()


def main() -> None:
    job = Job.from_command_line()
    run(job, open_score(job))


if __name__ == "__main__":
    main()
