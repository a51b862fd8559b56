"""The worker's event loop: steps that are ready go first, and input is never kept waiting for long."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Iterator

import pytest

from modelstream.streams.event_loop import new_event_loop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a worker's loop."""
    made = new_event_loop()
    yield made
    made.close()


def test_steps_that_are_ready_are_taken_without_asking_for_input_each_time(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = selectors.DefaultSelector.select

    def select(self: selectors.DefaultSelector, timeout: float | None = None) -> object:
        asked.append(timeout)
        return real(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)

    async def take_steps() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    loop.run_until_complete(take_steps())
    assert 1 <= len(asked) <= 10


def test_input_is_seen_within_some_steps_of_a_loop_that_is_never_idle(loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = socket.socketpair()
    n_steps = 0
    seen_after: list[int] = []

    def step() -> None:
        nonlocal n_steps
        n_steps += 1
        if n_steps < 1_000 and not seen_after:
            loop.call_soon(step)
        else:
            loop.stop()

    with ours, theirs:
        loop.add_reader(ours, lambda: seen_after.append(n_steps))
        loop.call_soon(step)
        theirs.send(b"x")
        loop.run_forever()
        loop.remove_reader(ours)
    assert seen_after
    assert seen_after[0] <= 20


def test_timers_come_in_their_time_and_other_threads_wake_it(loop: asyncio.AbstractEventLoop) -> None:
    async def wait() -> str:
        await asyncio.sleep(0.001)
        return await loop.run_in_executor(None, str, "woken")

    assert loop.run_until_complete(asyncio.wait_for(wait(), 10)) == "woken"
