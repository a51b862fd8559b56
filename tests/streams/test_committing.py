"""What the ledger is told of a commit, by Faust's consumer on Apache Kafka: whether the group has the offsets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from faust.types import TP
from support.kafka_tools import committed_offsets

from modelstream.streams.app import App
from modelstream.streams.committing import CommittingConsumer
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka


@pytest.fixture
async def consumer(kafka: Any, make_topics: Callable[..., list[str]]) -> AsyncIterator[CommittingConsumer]:
    """Return a consumer that has a connection to its group, and has not joined it."""
    [source] = make_topics(kafka, "events")
    app = App(source.replace("events", "group"), settings=BrokerSettings(kafka.bootstrap))
    app.batch_topic_names.add(source)
    app.finalize()
    await app.consumer._thread.start()
    yield app.consumer
    await app.consumer._thread.stop()


async def take_over(consumer: CommittingConsumer, tp: TP) -> None:
    """Give it a partition without the others of the group, which an empty group accepts."""

    async def assign() -> None:
        consumer._thread._ensure_consumer().assign([TopicPartition(*tp)])

    await consumer._thread.call_thread(assign)


async def test_a_commit_that_was_not_done_is_due_again(consumer: CommittingConsumer, kafka: Any) -> None:
    [source] = consumer.app.batch_topic_names
    tp = TP(source, 0)
    consumer.ledger.assign({tp: 0})
    consumer.ledger.finish(consumer.ledger.open(tp, 1, 1), 1)
    # The group has not given it the partition, as in a rebalance.
    assert not await consumer._commit({tp: 1})
    assert consumer.ledger.committable(tp) == 1
    await take_over(consumer, tp)
    assert await consumer._commit({tp: 1})
    assert consumer.ledger.committable(tp) is None
    assert committed_offsets(kafka.bootstrap, consumer.app.conf.id, source) == {0: 1}
