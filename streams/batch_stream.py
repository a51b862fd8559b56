"""Topics that are read in batches: the stream that an agent sees, with a `RecordBatch` or a whole fetch an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any

from faust import Event, Schema, Stream, Topic
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from modelstream.streams.records import RecordBatch

__all__ = ["BatchMessage", "BatchStream", "RecordBatchSchema", "as_events", "batch_topic"]


class RecordBatchSchema(Schema):
    """Marks a topic as read in batches: the event's value is a `RecordBatch` as it is, or the list of a whole fetch."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return the function that makes an event of a message."""

        async def decode(message: BatchMessage, *, propagate: bool = False) -> Any:
            is_whole = message.topic in app.whole_fetch_topic_names
            return Event(app, None, message.value if is_whole else message.value[0], {}, message)

        return decode


def batch_topic(app: Any, name: str, *, whole_fetches: bool = False) -> Topic:
    """Return a topic of the app whose events are `RecordBatch` values.

    Agents on it take stock messages' place: ``async for batch in stream`` yields a batch of one partition, opened in
    the ledger, and the agent says that it is finished with ``app.consumer.done(batch)``. Nothing is committed before.

    Parameters
    ----------
    app : App
        The app.
    name : str
        The topic.
    whole_fetches : bool
        Whether the agent takes a list of the batches that were fetched together, of several partitions. An event has
        a cost whatever it carries. Not for agents with tables: the current event is of the first batch's partition.
    """
    app.batch_topic_names.add(name)
    if whole_fetches:
        app.whole_fetch_topic_names.add(name)
    return app.topic(name, schema=RecordBatchSchema())


class BatchMessage(ConsumerMessage):
    """The message around batches. It is never acknowledged: the ledger is what counts."""

    @classmethod
    def around(cls, batches: list[RecordBatch], generation_id: int) -> BatchMessage:
        """Return the message of some batches of one topic, which looks as if all were of the first one's partition."""
        first = batches[0]
        return cls(
            first.tp.topic, first.tp.partition, first.end_offset - 1, 0.0, 0, None, None, batches, None, 0, 0, first.tp,
            generation_id=generation_id,
        )  # fmt: skip


def as_events(batches: Iterable[RecordBatch], whole_fetch_topics: Collection[str]) -> Iterable[list[RecordBatch]]:
    """Return what was fetched as events carry it: a partition by itself, or all of a topic together."""
    events: dict[TP | str, list[RecordBatch]] = {}
    for batch in batches:
        is_whole = batch.tp.topic in whole_fetch_topics
        events.setdefault(batch.tp.topic if is_whole else batch.tp, []).append(batch)
    return events.values()


class BatchStream(Stream):
    """A stream that opens a batch in the ledger as its agent takes it up; other channels behave as ever."""

    def __aiter__(self) -> AsyncIterator[Any]:
        if not isinstance(getattr(self.channel, "schema", None), RecordBatchSchema):
            return super().__aiter__()
        iterator = self._batches()
        self._active_agens.add(iterator)
        return iterator

    async def _batches(self) -> AsyncIterator[RecordBatch | list[RecordBatch]]:
        self._finalized = True
        started_here = await self.maybe_start()
        consumer, monitor = self.app.consumer, self.app.monitor
        whole_fetches = self.channel.get_topic_name() in self.app.whole_fetch_topic_names
        try:
            while not self.should_stop:
                event = await self.channel.__anext__()
                batches = [batch for batch in event.message.value if consumer.take_up(batch)]
                if not batches:
                    continue
                # Tables find the partition to write to in the current event.
                self._set_current_event(event)
                n_rows = sum(map(len, batches))
                monitor.messages_received_total += n_rows
                monitor.events_total += n_rows
                self.events_total += n_rows
                yield batches if whole_fetches else batches[0]
                self.current_event = None
        except StopAsyncIteration:
            return
        finally:
            self._channel_stop_iteration(self.channel)
            if started_here:
                await self.stop()
                self.service_reset()
