"""Topics that are read in batches: the stream that an agent sees, with one `RecordBatch` an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from faust import Event, Schema, Stream, Topic
from faust.types.tuples import ConsumerMessage

from modelstream.streams.records import RecordBatch

__all__ = ["BatchMessage", "BatchStream", "RecordBatchSchema", "batch_topic"]


class RecordBatchSchema(Schema):
    """Marks a topic as read in batches: the event's value is the `RecordBatch` as it is."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return the function that makes an event of a message."""

        async def decode(message: BatchMessage, *, propagate: bool = False) -> Any:
            return Event(app, None, message.value, {}, message)

        return decode


def batch_topic(app: Any, name: str) -> Topic:
    """Return a topic of the app whose events are `RecordBatch` values.

    Agents on it take stock messages' place: ``async for batch in stream`` yields a batch of one partition, opened in
    the ledger, and the agent says that it is finished with ``app.consumer.done(batch)``. Nothing is committed before.
    """
    app.batch_topic_names.add(name)
    return app.topic(name, schema=RecordBatchSchema())


class BatchMessage(ConsumerMessage):
    """The message around a batch. It is never acknowledged: the ledger is what counts."""

    @classmethod
    def around(cls, batch: RecordBatch, generation_id: int) -> BatchMessage:
        """Return the message of a batch."""
        return cls(
            batch.tp.topic, batch.tp.partition, batch.end_offset - 1, 0.0, 0, None, None, batch, None, 0, 0, batch.tp,
            generation_id=generation_id,
        )  # fmt: skip


class BatchStream(Stream):
    """A stream that opens a batch in the ledger as its agent takes it up; other channels behave as ever."""

    def __aiter__(self) -> AsyncIterator[Any]:
        if not isinstance(getattr(self.channel, "schema", None), RecordBatchSchema):
            return super().__aiter__()
        iterator = self._batches()
        self._active_agens.add(iterator)
        return iterator

    async def _batches(self) -> AsyncIterator[RecordBatch]:
        self._finalized = True
        started_here = await self.maybe_start()
        consumer, monitor = self.app.consumer, self.app.monitor
        try:
            while not self.should_stop:
                event = await self.channel.__anext__()
                batch = event.value
                if not consumer.take_up(batch):
                    continue
                # Tables find the partition to write to in the current event.
                self._set_current_event(event)
                monitor.messages_received_total += len(batch)
                monitor.events_total += len(batch)
                self.events_total += len(batch)
                yield batch
                self.current_event = None
        except StopAsyncIteration:
            return
        finally:
            self._channel_stop_iteration(self.channel)
            if started_here:
                await self.stop()
                self.service_reset()
