"""How a stage's agent calls its step: few calls at a time, and no more rows than the step has room for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

from modelstream.streams.agents import StageAgent
from modelstream.streams.steps import StepResult


class HeldCalls:
    """Stands for the app: calls on its data thread end when the test says so."""

    def __init__(self) -> None:
        self.counters = SimpleNamespace(events=0, predictions=0, filtered=0, dead_letters=0)
        self.consumer = SimpleNamespace(note_call=lambda: None)
        self.is_draining = False
        self.arrived: list[list[list[int]]] = []
        self.rows: list[int] = []
        self.crashed_by: list[BaseException] = []
        self._futures: list[asyncio.Future[StepResult]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def on_data_thread(self, step: Any, arrived: list[list[int]], *, drain: bool) -> asyncio.Future[StepResult]:
        self.arrived.append(list(arrived))
        self.rows.append(sum(map(len, arrived)))
        self._futures.append(asyncio.get_running_loop().create_future())
        return self._futures[-1]

    async def crash(self, error: BaseException) -> None:
        self.crashed_by.append(error)

    def add_future(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def finish(self, call: int, **result: Any) -> None:
        self._futures[call].set_result(StepResult(**result))
        await settle()

    def forget(self) -> None:
        self._futures.clear()

    async def fail(self, call: int, error: Exception) -> None:
        self._futures[call].set_exception(error)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Agent:
    """An agent whose stream the test feeds with batches of rows."""

    def __init__(self) -> None:
        self.calls = HeldCalls()
        self._events: asyncio.Queue[list[range]] = asyncio.Queue()
        self.agent = StageAgent(self.calls, "stage", None)  # type: ignore[arg-type]
        self.agent.use(lambda *_: None)  # type: ignore[arg-type]
        self._task = asyncio.create_task(self.agent(self._stream()))

    async def _stream(self) -> AsyncIterator[list[range]]:
        while True:
            yield await self._events.get()

    async def send(self, *n_rows: int) -> None:
        self._events.put_nowait(list(map(range, n_rows)))
        await settle()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_two_calls_at_a_time_and_the_next_takes_all_that_came_meanwhile() -> None:
    agent = Agent()
    for n_rows in (1, 2, 3, 4):
        await agent.send(n_rows)
    assert agent.calls.rows == [1, 2]
    await agent.calls.finish(0)
    assert agent.calls.rows == [1, 2, 7]
    await agent.stop()


async def test_rows_of_calls_that_are_not_done_take_room() -> None:
    agent = Agent()
    await agent.send(10)
    await agent.send(20)
    await agent.send(20)
    # The step has counted the rows of its first call only.
    await agent.calls.finish(0, room_rows=20)
    assert sum(agent.calls.rows) == 30
    await agent.calls.finish(1, room_rows=15)
    assert sum(agent.calls.rows) == 50
    await agent.stop()


async def test_what_was_fetched_together_goes_into_one_call() -> None:
    agent = Agent()
    await agent.send(1, 2, 3)
    assert agent.calls.rows == [6]
    await agent.stop()


async def test_a_call_that_fails_ends_the_worker_and_is_the_last() -> None:
    agent = Agent()
    await agent.send(1)
    await agent.send(2)
    await agent.send(3)
    error = RuntimeError("broken")
    await agent.calls.fail(0, error)
    await agent.calls.finish(1, n_events=2)
    assert agent.calls.crashed_by == [error]
    assert agent.calls.rows == [1, 2]
    assert agent.calls.counters.events == 0
    await agent.stop()


async def test_of_two_calls_that_fail_both_are_asked_for_their_error() -> None:
    agent, told = Agent(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    await agent.send(1)
    await agent.send(1)
    for call in (0, 1):
        await agent.calls.fail(call, RuntimeError("refused"))
    await agent.stop()
    agent.calls.forget()
    gc.collect()
    await settle()
    assert told == []
    assert len(agent.calls.crashed_by) == 1


async def test_what_came_goes_into_a_call_in_its_order() -> None:
    agent = Agent()
    for n_rows in ((1,), (2,), (3, 4), (5,)):
        await agent.send(*n_rows)
    await agent.calls.finish(0)
    assert agent.calls.arrived[2] == [range(3), range(4), range(5)]
    await agent.stop()


async def test_a_wake_while_both_places_are_taken_is_one_call_once_a_place_is_free() -> None:
    agent = Agent()
    await agent.send(1)
    await agent.send(2)
    agent.agent.wake()
    await settle()
    assert agent.calls.rows == [1, 2]
    await agent.calls.finish(0)
    assert agent.calls.rows == [1, 2, 0]
    await agent.calls.finish(1)
    await agent.calls.finish(2)
    assert agent.calls.rows == [1, 2, 0]
    await agent.stop()


async def test_the_step_is_called_when_it_is_due_as_the_last_call_said() -> None:
    agent = Agent()
    await agent.send(1)
    await agent.calls.finish(0, due_in_s=0)
    assert agent.calls.rows == [1, 0]
    await agent.calls.finish(1, due_in_s=0.01)
    assert agent.calls.rows == [1, 0]
    await asyncio.sleep(0.05)
    assert agent.calls.rows == [1, 0, 0]
    await agent.send(1)
    await agent.calls.finish(2, due_in_s=0.01)
    await agent.calls.finish(3)
    await asyncio.sleep(0.05)
    assert agent.calls.rows == [1, 0, 0, 1]
    await agent.stop()
