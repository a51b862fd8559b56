"""The chain of agents: one Faust agent a stage, with the work on the data thread and the results in order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from faust import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from modelstream.streams.batch_stream import batch_topic
from modelstream.streams.dead_letter_log import DeadLetterLog
from modelstream.streams.infer_step import InferStep, make_step
from modelstream.streams.steps import Step, StepResult

if TYPE_CHECKING:
    from modelstream.streams.app import App
    from modelstream.streams.build import BuiltPipeline

__all__ = ["LinkChannel", "StageAgent", "attach_agents"]


# Calls of one step in flight: one being made, one waiting, so that the data thread never idles between two.
_CALLS_IN_FLIGHT = 2

# Batches that wait before a stage. Events are bounded where they are fetched; this only bounds the bookkeeping.
WAITING_BATCHES = 64


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
                maxsize=self.maxsize or WAITING_BATCHES,
                flow_control=FlowControlEvent(initially_suspended=False),
            )
        return self._queue


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
        self._step: Step | None = None
        self._arrived: asyncio.Queue[Any] = asyncio.Queue(WAITING_BATCHES)
        self._called = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
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
                self._loop.call_soon_threadsafe(self._called.set)

    async def __call__(self, stream: AsyncIterator[Any]) -> None:
        """Process the stream until it ends; a failure that is not one row's ends the worker."""
        self._loop = asyncio.get_running_loop()
        calls: asyncio.Queue[tuple[Awaitable[StepResult], int]] = asyncio.Queue()
        places = asyncio.Semaphore(_CALLS_IN_FLIGHT)
        tasks = [
            asyncio.create_task(self._crash_unless_it_works(self._call_step(calls, places))),
            asyncio.create_task(self._crash_unless_it_works(self._release_in_order(calls, places))),
        ]
        try:
            async for arrived in stream:
                # What the stage before made in one call comes as one event.
                for batch in arrived if isinstance(arrived, list) else (arrived,):
                    await self._arrived.put(batch)
                    # Each time: there may be more of them than places, and only a call makes room.
                    self._called.set()
        finally:
            for task in tasks:
                task.cancel()

    async def _crash_unless_it_works(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            await self._app.crash(error)

    async def _call_step(
        self, calls: asyncio.Queue[tuple[Awaitable[StepResult], int]], places: asyncio.Semaphore
    ) -> None:
        assert self._step is not None
        while True:
            await places.acquire()
            await self._called.wait()
            self._called.clear()
            arrived, n_rows = [], 0
            while self._room_rows > self._called_rows + n_rows and not self._arrived.empty():
                arrived.append(self._arrived.get_nowait())
                n_rows += len(arrived[-1])
            self._called_rows += n_rows
            calls.put_nowait((self._app.on_data_thread(self._step, arrived, drain=self._app.is_draining), n_rows))
            self._app.consumer.note_call()

    async def _release_in_order(
        self, calls: asyncio.Queue[tuple[Awaitable[StepResult], int]], places: asyncio.Semaphore
    ) -> None:
        while True:
            call, n_rows = await calls.get()
            result = await call
            self._called_rows -= n_rows
            self._room_rows = result.room_rows
            places.release()
            await self._release(result)
            self._plan_next_call(result)

    def _plan_next_call(self, result: StepResult) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if result.due_in_s == 0 or (result.room_rows > self._called_rows and not self._arrived.empty()):
            self._called.set()
        elif result.due_in_s is not None:
            self._timer = self._loop.call_later(result.due_in_s, self._called.set)

    async def _release(self, result: StepResult) -> None:
        app = self._app
        app.counters.events += result.n_events
        app.counters.predictions += result.n_predictions
        for filtered in result.filtered:
            app.counters.filtered += len(filtered)
        app.counters.dead_letters += result.n_rejected
        self._letters.note(result.faults.values())
        for lineage in result.settled:
            for source, n_rows in lineage.count_by_source():
                app.consumer.sent(source, n_rows)
        if result.batches:
            assert self._link is not None
            await self._link.put(result.batches)


def attach_agents(app: App, built: BuiltPipeline) -> None:
    """Add one agent a stage to the app, the first reading the source topic, each next one its link."""
    inbox: Any = batch_topic(app, built.spec.source.topic)
    last = len(built.stages) - 1
    for position, stage in enumerate(built.stages):
        link = None if position == last else LinkChannel(app, maxsize=WAITING_BATCHES)
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
