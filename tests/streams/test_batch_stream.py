"""What an agent on a batch topic gets: a partition at a time with an event of its own, or all of a fetch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from confluent_kafka import Message
from faust.types import TP

from modelstream.streams.app import App
from modelstream.streams.batch_stream import BatchMessage, as_events, batch_topic
from modelstream.streams.records import RecordBatch
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.transport import BatchConsumer

DEADLINE_S = 30
PARTITIONS = [TP("in", partition) for partition in range(3)]


def fetched(epochs: Iterable[int]) -> list[RecordBatch]:
    """Return a record of each partition, fetched under these epochs."""
    return [
        RecordBatch(
            tp,
            [Message(topic="in", partition=tp.partition, offset=0, key=None, value=b"x", timestamp=(1, 7))],
            epoch,
        )
        for tp, epoch in zip(PARTITIONS, epochs, strict=True)
    ]


@pytest.mark.parametrize("whole_fetches", [True, False])
async def test_an_agent_gets_what_still_belongs_to_this_worker(whole_fetches: bool) -> None:
    app = App("group", settings=BrokerSettings("127.0.0.1:1"))
    topic = batch_topic(app, "in", whole_fetches=whole_fetches)
    consumer, stream = app.consumer, app.stream(topic)
    iterator = aiter(stream)
    consumer._thread.thread_loop.close()  # it has no connection
    first_take = asyncio.create_task(anext(iterator))
    await asyncio.sleep(0)
    app.flow_control.resume()
    await app.topics._update_indices()
    await app.topics.on_partitions_assigned(set(PARTITIONS))
    consumer.ledger.assign(dict.fromkeys(PARTITIONS, 0))
    stale, *fresh = fetched(epochs=(consumer._epoch - 1, consumer._epoch, consumer._epoch))
    for event in as_events([stale, *fresh], app.whole_fetch_topic_names):
        await consumer.callback(BatchMessage.around(event, app.consumer_generation_id))
    taken = [await asyncio.wait_for(first_take, DEADLINE_S)]
    if whole_fetches:
        assert taken == [fresh]
        assert stream.current_event.value == [stale, *fresh]
    else:
        assert stream.current_event.message.partition == 1
        taken.append(await asyncio.wait_for(anext(iterator), DEADLINE_S))
        assert stream.current_event.message.partition == 2
        assert stream.current_event.value is fresh[1]
        assert taken == fresh
    assert [batch.ticket is None for batch in (stale, *fresh)] == [True, False, False]
    await iterator.aclose()


async def test_what_is_left_of_a_fetch_is_dropped_when_its_epoch_ends() -> None:
    app = App("group", settings=BrokerSettings("127.0.0.1:1"))
    batch_topic(app, "in")
    consumer = app.consumer
    consumer._thread.thread_loop.close()  # it has no connection
    batches = fetched([consumer._epoch] * 3)
    got: list[object] = []
    fetches, again = deque([batches]), asyncio.Event()

    def fetch(_: float) -> list[RecordBatch]:
        if fetches:
            return fetches.popleft()
        app.loop.call_soon_threadsafe(again.set)
        return []

    async def take(message: BatchMessage) -> None:
        got.append(message.value)
        consumer._epoch += 1

    # Another assignment begins while the first of them is passed on.
    consumer._pump, consumer.callback = SimpleNamespace(fetch=fetch, gaps=deque(), took_all=True), take
    consumer._reading.set()
    task = asyncio.create_task(BatchConsumer._fetch_batches.fun(consumer))
    try:
        await asyncio.wait_for(again.wait(), DEADLINE_S)
    finally:
        task.cancel()
        await asyncio.wait([task])
        app._data_thread.stop()
    assert got == [[batches[0]]]
    assert (len(consumer._window), set(consumer._positions)) == (1, {PARTITIONS[0]})
