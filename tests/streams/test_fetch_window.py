"""When another fetch makes sense."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import Message
from faust.types import TP

from modelstream.streams import fetch_window
from modelstream.streams.fetch_window import FetchWindow
from modelstream.streams.records import RecordBatch

DEADLINE_S = 60


def batch(n_rows: int, n_bytes: int = 1) -> RecordBatch:
    """Return records of so many bytes each."""
    messages = [
        Message(topic="in", partition=0, offset=i, key=None, value=b"x" * n_bytes, timestamp=(1, 7))
        for i in range(n_rows)
    ]
    return RecordBatch(TP("in", 0), messages, epoch=1)


async def is_done(waiting: asyncio.Task[None]) -> bool:
    """Let the loop do all that is ready, and say whether the wait is over."""
    for _ in range(10):
        await asyncio.sleep(0)
    return waiting.done()


def wait(window: FetchWindow, n_fetched: int = 1, *, took_all: bool = False) -> asyncio.Task[None]:
    return asyncio.create_task(window.wait_for_room(n_fetched, took_all=took_all))


def wait_after_nothing(window: FetchWindow) -> asyncio.Task[None]:
    return wait(window, 0, took_all=True)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the moment after a fetch last for as long as no test runs."""
    monkeypatch.setattr(fetch_window, "_PAUSE_S", 3600.0)


@pytest.mark.parametrize(
    ("max_rows", "max_bytes", "has_room"),
    [(5, 1000, True), (4, 1000, False), (3, 1000, False), (1000, 41, True), (1000, 40, False), (1000, 39, False)],
)
async def test_there_is_room_below_the_limits_of_rows_and_bytes(max_rows: int, max_bytes: int, has_room: bool) -> None:
    window = FetchWindow(max_rows, max_bytes)
    for _ in range(2):
        assert await is_done(wait(window))
        window.enter(batch(2, 10))
    waiting = wait(window)
    assert await is_done(waiting) == has_room
    window.clear()
    await waiting


@pytest.mark.parametrize(("max_rows", "max_bytes"), [(3, 1000), (1000, 3)])
async def test_it_goes_on_when_enough_has_left(max_rows: int, max_bytes: int) -> None:
    window, batches = FetchWindow(max_rows, max_bytes), [batch(1), batch(1), batch(2)]
    for one in batches:
        window.enter(one)
    waiting = wait(window)
    window.leave(batches[0])
    assert not await is_done(waiting), "three are left"
    window.leave(batches[1])
    assert await is_done(waiting)
    assert len(window) == 1


async def test_it_goes_on_when_all_is_forgotten() -> None:
    window, old = FetchWindow(2, 1000), batch(2)
    window.enter(old)
    waiting = wait(window)
    assert not await is_done(waiting)
    window.clear()
    assert await is_done(waiting)
    assert len(window) == 0
    window.enter(batch(2))
    window.leave(old)  # of the assignment before: it makes no room in this one
    waiting = wait(window)
    assert not await is_done(waiting)
    window.clear()
    await waiting


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("how", ["leave", "clear"])
async def test_after_an_empty_fetch_it_waits_until_something_changes(how: str) -> None:
    window, one = FetchWindow(1000, 1000), batch(1)
    window.enter(one)
    window.enter(batch(1))
    assert await is_done(wait(window)), "the fetch brought something"
    window.leave(batch(1))  # what has changed before does not count
    waiting = wait_after_nothing(window)
    assert not await is_done(waiting)
    window.leave(one) if how == "leave" else window.clear()
    assert await is_done(waiting)


@pytest.mark.usefixtures("no_pause")
async def test_after_an_empty_fetch_it_does_not_wait_where_nothing_is_under_way() -> None:
    window, one = FetchWindow(1000, 1000), batch(1)
    assert await is_done(wait_after_nothing(window))
    window.enter(one)
    window.leave(one)
    assert await is_done(wait_after_nothing(window))


@pytest.mark.usefixtures("no_pause")
async def test_after_a_fetch_that_took_all_it_waits_until_the_data_thread_is_told() -> None:
    window = FetchWindow(1000, 1000)
    window.note_call()
    window.enter(batch(1))
    waiting = wait(window, took_all=True)
    assert not await is_done(waiting), "what it was told before is not this batch"
    window.note_call()
    assert await is_done(waiting)
    window.enter(batch(1))
    window.note_call()
    assert await is_done(wait(window, took_all=True)), "it was told before anybody waited"


@pytest.mark.usefixtures("no_pause")
async def test_after_a_fetch_that_left_something_behind_it_does_not_wait() -> None:
    window = FetchWindow(1000, 1000)
    window.enter(batch(1))
    assert await is_done(wait(window, took_all=False))


async def test_after_an_empty_fetch_a_moment_is_enough() -> None:
    window = FetchWindow(1000, 1000)
    window.enter(batch(1))
    await asyncio.wait_for(window.wait_for_room(0, took_all=True), DEADLINE_S)
    assert len(window) == 1
