"""The data thread: calls in their order, their results and errors on the loop, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from modelstream.streams.data_thread import DataThread

DEADLINE_S = 30.0


@pytest.fixture
def thread() -> Iterator[DataThread]:
    made = DataThread("test-data")
    yield made
    made.stop()


async def test_calls_are_made_in_their_order_on_one_thread_of_the_name(thread: DataThread) -> None:
    made: list[tuple[int, str]] = []

    def note(number: int, *, more: int = 0) -> int:
        made.append((number, threading.current_thread().name))
        return number + more

    calls = [thread.call(note, 1), thread.call(note, 2, more=10), thread.call(note, 3)]
    assert [await call for call in calls] == [1, 12, 3]
    assert made == [(1, "test-data"), (2, "test-data"), (3, "test-data")]


async def test_an_error_comes_to_who_waits_and_ends_nothing(thread: DataThread) -> None:
    def fail() -> None:
        raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        await thread.call(fail)
    assert await thread.call(lambda: "next") == "next"


async def test_an_error_that_no_future_takes_comes_as_another(thread: DataThread) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(thread.call(next, iter(())), DEADLINE_S)


async def test_who_gives_up_does_not_hold_up_others_and_is_not_called_for(thread: DataThread) -> None:
    go = threading.Event()
    called: list[str] = []
    slow = thread.call(go.wait, DEADLINE_S)
    given_up, after = thread.call(called.append, "given up"), thread.call(called.append, "after")
    slow.cancel()
    given_up.cancel()
    go.set()
    await asyncio.wait_for(after, DEADLINE_S)
    assert called == ["after"]


@pytest.mark.parametrize("can_wait", [True, False])
async def test_a_result_that_can_wait_is_told_with_that_of_the_fetch_behind_it(
    thread: DataThread, can_wait: bool
) -> None:
    go, fetching, fetched = threading.Event(), threading.Event(), threading.Event()

    def fetch() -> bool:
        fetching.set()
        return fetched.wait(DEADLINE_S)

    before = thread.call(go.wait, DEADLINE_S)
    call, behind = thread.call(SimpleNamespace, can_wait=can_wait), thread.fetch(fetch)
    go.set()
    await before
    await asyncio.to_thread(fetching.wait, DEADLINE_S)
    await asyncio.sleep(0)
    assert call.done() != can_wait
    fetched.set()
    await asyncio.wait_for(behind, DEADLINE_S)
    assert call.done()


async def test_a_result_that_can_wait_does_not_wait_for_anything_else(thread: DataThread) -> None:
    go, done = threading.Event(), threading.Event()
    before = thread.call(go.wait, DEADLINE_S)
    patient, given_up = thread.call(SimpleNamespace, can_wait=True), thread.fetch(done.wait, DEADLINE_S)
    second, behind = thread.call(SimpleNamespace, can_wait=True), thread.call(done.wait, DEADLINE_S)
    given_up.cancel()
    go.set()
    await before
    await asyncio.wait_for(asyncio.gather(patient, second), DEADLINE_S)
    assert not behind.done()
    done.set()
    await behind


async def test_it_stops_after_the_call_that_it_is_in(thread: DataThread) -> None:
    go = threading.Event()
    begun = threading.Event()

    def hang() -> str:
        begun.set()
        go.wait(DEADLINE_S)
        return "done"

    running, waiting = thread.call(hang), thread.call(lambda: "never")
    await asyncio.to_thread(begun.wait, DEADLINE_S)
    thread.stop()
    assert waiting.cancelled()
    assert thread.call(lambda: "too late").cancelled()
    go.set()
    assert await asyncio.wait_for(running, DEADLINE_S) == "done"
    for one in threading.enumerate():
        if one.name == "test-data":
            one.join(DEADLINE_S)
            assert not one.is_alive()


async def test_a_loop_that_is_closed_does_not_end_it(thread: DataThread) -> None:
    go = threading.Event()

    def other_loop() -> None:
        async def leave() -> None:
            thread.call(go.wait, DEADLINE_S)

        asyncio.run(leave())

    await asyncio.to_thread(other_loop)
    go.set()
    assert await asyncio.wait_for(thread.call(lambda: 1), DEADLINE_S) == 1


async def test_a_result_that_can_wait_is_told_where_nothing_follows(thread: DataThread) -> None:
    assert (await asyncio.wait_for(thread.call(SimpleNamespace, can_wait=True), DEADLINE_S)).can_wait


async def test_a_result_that_can_wait_is_told_when_the_thread_ends(thread: DataThread) -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> SimpleNamespace:
        begun.set()
        go.wait(DEADLINE_S)
        return SimpleNamespace(can_wait=True)

    patient, behind = thread.call(work), thread.fetch(list)
    await asyncio.to_thread(begun.wait, DEADLINE_S)
    thread.stop()
    go.set()
    await asyncio.wait_for(patient, DEADLINE_S)
    assert behind.cancelled()


async def test_results_told_together_come_in_their_order(thread: DataThread) -> None:
    go, said = threading.Event(), []

    def work() -> SimpleNamespace:
        go.wait(DEADLINE_S)
        return SimpleNamespace(can_wait=True)

    for name, call in (("call", thread.call(work)), ("fetch", thread.fetch(list))):
        call.add_done_callback(lambda _, name=name: said.append(name))
    go.set()
    await asyncio.wait_for(call, DEADLINE_S)
    await asyncio.sleep(0)
    assert said == ["call", "fetch"]
