"""The chain of agents: one Faust agent a stage, with the work on the data thread and the results in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faust import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from modelstream.operators.batch import EventBatch, Fault, Lineage
from modelstream.operators.operator import Operator, run_isolated
from modelstream.streams.dead_letter import dead_letters
from modelstream.streams.delivery import Delivery, Output
from modelstream.streams.records import RecordBatch
from modelstream.streams.transport import batch_topic

if TYPE_CHECKING:
    from modelstream.streams.app import App
    from modelstream.streams.build import BuiltPipeline

__all__ = ["LinkChannel", "StageAgent", "StageStep", "StepResult", "attach_agents"]

logger = logging.getLogger(__name__)

# Batches of one stage in flight: one being computed, one waiting, so that the data thread never idles between two.
_IN_FLIGHT_PER_STAGE = 2


class LinkChannel(Channel):
    """The link between two stages. A rebalance clears Faust's channels; this one must not lose a batch.

    A batch dropped here while a later one of its partition goes on would be produced after it, and twice. So what a
    stage has taken up always goes on; a partition that was given up is known by its tickets.
    """

    _queue: ThrowableQueue | None

    @property
    def queue(self) -> ThrowableQueue:
        """The queue, bounded and without flow control."""
        if self._queue is None:
            self._queue = ThrowableQueue(
                maxsize=self.maxsize or _IN_FLIGHT_PER_STAGE,
                flow_control=FlowControlEvent(initially_suspended=False),
            )
        return self._queue


@dataclass(slots=True)
class StepResult:
    """What one stage made of one batch, computed off the event loop."""

    #: Rows for the next stage; None where there are none or this was the last one.
    batch: EventBatch | None = None
    #: Where the rows came from whose predictions or dead letters are on their way, or that were filtered.
    settled: list[Lineage] = field(default_factory=list)
    #: Those of them that a business rule filtered: finished, since there is nothing to confirm.
    filtered: Lineage | None = None
    #: Counts for the worker's statistics; events where this was the first stage.
    n_events: int = 0
    n_rejected: int = 0
    #: Why the first of them was rejected.
    first_fault: Fault | None = None
    n_predictions: int = 0


def _is_live(batch: RecordBatch | EventBatch) -> bool:
    """Whether any row of the batch still belongs to this worker."""
    sources = (batch,) if isinstance(batch, RecordBatch) else batch.lineage.sources
    return any(source.ticket.live for source in sources)


class StageStep:
    """One stage's work on a batch: the operator, with decoding before the first, encoding and producing after the last.

    Dead letters are produced by the stage that rejects.
    """

    def __init__(self, built: BuiltPipeline, position: int, delivery: Delivery, max_output_bytes: int) -> None:
        stage = built.stages[position]
        self._operator: Operator = stage.operator
        self._codec = built.codec if position == 0 else None
        self._encoder = built.encoder if position == len(built.stages) - 1 else None
        self._sink = built.spec.sink
        self._delivery = delivery
        self._max_output_bytes = max_output_bytes

    def __call__(self, batch: RecordBatch | EventBatch) -> StepResult:
        """Run the stage; called on the data thread."""
        result = StepResult()
        if not _is_live(batch):
            return result
        events = self._decode(batch, result) if isinstance(batch, RecordBatch) else batch
        if len(events):
            settled = run_isolated(self._operator, events)
            self._reject(settled.rejected, result)
            if settled.filtered is not None:
                result.filtered = settled.filtered
                result.settled.append(settled.filtered)
            events = settled.kept
        if len(events):
            self._pass_on(events, result)
        return result

    def _decode(self, records: RecordBatch, result: StepResult) -> EventBatch:
        assert self._codec is not None
        result.n_events = len(records)
        settled = self._codec.decode(
            records.values, records.keys, records.timestamps_ms, default_ids=records.default_ids, source=records
        ).settle()
        self._reject(settled.rejected, result)
        return settled.kept

    def _reject(self, rejected: EventBatch | None, result: StepResult) -> None:
        if rejected is not None:
            self._delivery.produce(dead_letters(self._sink.dead_letter, rejected))
            result.settled.append(rejected.lineage)
            result.n_rejected += len(rejected)
            result.first_fault = result.first_fault or rejected.faults[0]

    def _pass_on(self, events: EventBatch, result: StepResult) -> None:
        if self._encoder is None:
            result.batch = events
            return
        values = self._encoder.encode(events)
        # A character is at most four bytes of UTF-8, and the key, which counts too, stands in the value.
        if 8 * max(map(len, values)) > self._max_output_bytes:
            events, values = self._without_oversize(events, values, result)
        owed = [(source.ticket, count) for source, count in events.lineage.count_by_source()]
        self._delivery.produce(Output(self._sink.topic, events.keys, values, owed))
        result.settled.append(events.lineage)
        result.n_predictions = len(events)

    def _without_oversize(
        self, events: EventBatch, values: list[str], result: StepResult
    ) -> tuple[EventBatch, list[str]]:
        sizes = [len(value.encode()) + len(key or b"") for key, value in zip(events.keys, values, strict=True)]
        for row, n_bytes in enumerate(sizes):
            if n_bytes > self._max_output_bytes:
                detail = f"the prediction record has {n_bytes} bytes, more than {self._max_output_bytes}"
                events.reject(row, Fault("sink", "too_large", detail))
        fits = [value for value, n_bytes in zip(values, sizes, strict=True) if n_bytes <= self._max_output_bytes]
        settled = events.settle()
        self._reject(settled.rejected, result)
        return settled.kept, fits


class StageAgent:
    """A stage as the body of a Faust agent.

    The data thread has the next batch waiting while the result of the one before is booked here. Results are released
    in the order they came: per partition, and so per key, the output has the input's order.
    """

    def __init__(self, app: App, step: Callable[[Any], StepResult], link: LinkChannel | None) -> None:
        self._app = app
        self._step = step
        self._link = link

    async def __call__(self, stream: AsyncIterator[Any]) -> None:
        """Process the stream until it ends; a failure that is not one row's ends the worker."""
        computing: asyncio.Queue[Awaitable[StepResult]] = asyncio.Queue(_IN_FLIGHT_PER_STAGE)
        releaser = asyncio.create_task(self._release_in_order(computing))
        try:
            async for batch in stream:
                await computing.put(asyncio.ensure_future(self._app.on_data_thread(self._step, batch)))
        finally:
            releaser.cancel()

    async def _release_in_order(self, computing: asyncio.Queue[Awaitable[StepResult]]) -> None:
        try:
            while True:
                await self._release(await (await computing.get()))
        except Exception as error:
            await self._app.crash(error)

    async def _release(self, result: StepResult) -> None:
        app = self._app
        app.counters.events += result.n_events
        app.counters.predictions += result.n_predictions
        if result.filtered is not None:
            app.counters.filtered += len(result.filtered)
            for source, n_rows in result.filtered.count_by_source():
                app.consumer.finish(source.ticket, n_rows)
        self._count_rejected(result)
        for lineage in result.settled:
            for source, n_rows in lineage.count_by_source():
                app.consumer.sent(source, n_rows)
        if result.batch is not None:
            assert self._link is not None
            await self._link.put(result.batch)

    def _count_rejected(self, result: StepResult) -> None:
        counters, fault = self._app.counters, result.first_fault
        before = counters.dead_letters
        counters.dead_letters += result.n_rejected
        # The first, the tenth, the hundredth …: enough to be seen, and no log of a thousand lines a second.
        if fault is not None and len(str(counters.dead_letters)) > len(str(before)) - (before == 0):
            logger.warning(
                "%d dead letters so far, now: %s at stage %r: %s", counters.dead_letters, fault.reason, fault.stage,
                fault.detail,
            )  # fmt: skip


def attach_agents(app: App, built: BuiltPipeline) -> None:
    """Add one agent a stage to the app, the first reading the source topic, each next one its link."""
    inbox: Any = batch_topic(app, built.spec.source.topic)
    last = len(built.stages) - 1
    for position, stage in enumerate(built.stages):
        link = None if position == last else LinkChannel(app, maxsize=_IN_FLIGHT_PER_STAGE)
        step = StageStep(built, position, app.delivery, app.limits.max_output_bytes)
        agent = StageAgent(app, step, link)
        app.agent(inbox, name=f"{built.spec.pipeline}.{stage.step_id}")(_as_function(agent))
        inbox = link


def _as_function(agent: StageAgent) -> Callable[[Any], Awaitable[None]]:
    # Faust looks at the signature of a plain coroutine function.
    async def run(stream: Any) -> None:
        await agent(stream)

    return run
