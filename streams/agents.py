"""The chain of agents: one Faust agent a stage, with the work on the data thread and the results in order."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from faust import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from modelstream.streams.batch_stream import batch_topic
from modelstream.streams.dead_letter_log import DeadLetterLog
from modelstream.streams.infer_step import InferStep, make_step
from modelstream.streams.steps import Step, StepResult

if TYPE_CHECKING:
    from modelstream.operators.batch import EventBatch
    from modelstream.streams.app import App
    from modelstream.streams.build import BuiltPipeline
    from modelstream.streams.records import RecordBatch

__all__ = ["LinkChannel", "StageAgent", "attach_agents"]


# Calls of one step in flight: one being made, one waiting, so that the data thread never idles between two.
_CALLS_IN_FLIGHT = 2


class LinkChannel(Channel):
    """The link between two stages. A rebalance clears Faust's channels; this one must not lose a batch.

    A batch dropped here while a later one of its partition goes on would be produced after it, and twice. So what a
    stage has taken up always goes on; a partition that was given up is known by its tickets. How much waits here is
    bounded where it is fetched.
    """

    _queue: ThrowableQueue | None

    @property
    def queue(self) -> ThrowableQueue:
        """The queue, without flow control."""
        if self._queue is None:
            self._queue = ThrowableQueue(flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue

    def pass_on(self, batches: list[EventBatch]) -> None:
        """Pass on what one call made, as one event."""
        for subscriber in self._subscribers:
            subscriber.queue.put_nowait(batches)


class StageAgent:
    """A stage as the body of a Faust agent.

    Whatever has arrived while the data thread was busy goes into one call of the step, batches of several partitions
    together. Results are released in the order of the calls: per partition, and so per key, the output has the
    input's order.

    Parameters
    ----------
    app : App
        The app.
    name : str
        The agent's name in it.
    link : LinkChannel or None
        Where the batches for the next stage go.
    """

    def __init__(self, app: App, name: str, link: LinkChannel | None) -> None:
        self.name = name
        self._app = app
        self._link = link
        self._letters = DeadLetterLog(lambda: app.counters.dead_letters)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_running = False
        self._step: Step | None = None
        self._arrived: deque[RecordBatch | EventBatch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # Whether the step is to be called, be it with nothing, as soon as there is a place for another call.
        self._is_wanted = False
        self._n_calls = 0
        # What the step has room for, and what is on its way to it in calls that are not done.
        self._room_rows = sys.maxsize
        self._called_rows = 0

    def use(self, step: Step) -> None:
        """Set the step. It wakes this agent, so it is made after it."""
        self._step = step

    def wake(self) -> None:
        """Have the step called although nothing may have arrived. Called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker ends
                self._loop.call_soon_threadsafe(self._want_call)

    async def __call__(self, stream: AsyncIterator[list[Any]]) -> None:
        """Process the stream until it ends; a failure that is not one row's ends the worker."""
        self._loop = asyncio.get_running_loop()
        self._is_running = True
        try:
            # What was fetched together, or what the stage before made in one call, comes as one event.
            async for batches in stream:
                self._arrived += batches
                self._want_call()
        finally:
            self._is_running = False

    def _want_call(self) -> None:
        self._is_wanted = True
        self._call_step()

    def _call_step(self) -> None:
        """Call the step if it is wanted and there is a place for a call."""
        if not self._is_wanted or self._n_calls == _CALLS_IN_FLIGHT or not self._is_running:
            return
        assert self._step is not None
        self._is_wanted = False
        arrived, n_rows = [], 0
        while self._arrived and self._room_rows > self._called_rows + n_rows:
            arrived.append(self._arrived.popleft())
            n_rows += len(arrived[-1])
        self._called_rows += n_rows
        self._n_calls += 1
        call = self._app.on_data_thread(self._step, arrived, drain=self._app.is_draining)
        # The data thread makes one call after the other, so they end in their order.
        call.add_done_callback(partial(self._end_call, n_rows))
        self._app.consumer.note_call()

    def _end_call(self, n_rows: int, call: asyncio.Future[StepResult]) -> None:
        self._n_calls -= 1
        self._called_rows -= n_rows
        if call.cancelled():
            return  # the worker ends
        call.exception()  # or asyncio logs that nobody asked: both calls may fail
        if not self._is_running:
            return
        try:
            result = call.result()
            self._room_rows = result.room_rows
            self._release(result)
        except Exception as error:
            self._is_running = False
            self._app.add_future(self._crash(error))
        else:
            self._plan_next_call(result)

    async def _crash(self, error: Exception) -> None:
        try:
            raise error  # Faust logs what is being handled
        except Exception:
            await self._app.crash(error)

    def _plan_next_call(self, result: StepResult) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if result.due_in_s == 0 or (self._arrived and result.room_rows > self._called_rows):
            self._is_wanted = True
        elif result.due_in_s is not None:
            self._timer = self._loop.call_later(result.due_in_s, self._want_call)
        self._call_step()

    def _release(self, result: StepResult) -> None:
        app = self._app
        app.counters.events += result.n_events
        app.counters.predictions += result.n_predictions
        app.counters.filtered += result.n_filtered
        app.counters.dead_letters += result.n_rejected
        self._letters.note(result.faults.values())
        for source, n_rows in result.settled:
            app.consumer.sent(source, n_rows)
        if result.batches:
            assert self._link is not None
            self._link.pass_on(result.batches)


def attach_agents(app: App, built: BuiltPipeline) -> None:
    """Add one agent a stage to the app, the first reading the source topic, each next one its link."""
    inbox: Any = batch_topic(app, built.spec.source.topic, whole_fetches=True)
    last = len(built.stages) - 1
    for position, stage in enumerate(built.stages):
        link = None if position == last else LinkChannel(app)
        agent = StageAgent(app, f"{built.spec.pipeline}.{stage.step_id}", link)
        step = make_step(
            built, position, app.delivery, app.limits.max_output_bytes,
            downstream_s=app.downstream_s, pool=app.compute_pool, wake=agent.wake,
        )  # fmt: skip
        agent.use(step)
        app.stage_agents.append(agent)
        if isinstance(step, InferStep):
            app.batch_statistics[stage.step_id] = step.statistics
        app.agent(inbox, name=agent.name)(_as_function(agent))
        inbox = link


def _as_function(agent: StageAgent) -> Callable[[Any], Awaitable[None]]:
    # Faust looks at the signature of a plain coroutine function.
    async def run(stream: Any) -> None:
        await agent(stream)

    return run
