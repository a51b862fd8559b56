"""The generator's process must neither fail unseen nor outlive a run that failed."""

from __future__ import annotations

import time
from itertools import count
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from benchmarks.checks import RunFailed
from benchmarks.generator import _send
from benchmarks.sending import generating, wait_for_outputs

#: No broker is there: the generator waits for one for some seconds.
_LOAD: dict[str, Any] = {"first": 0, "n": 1, "rate_per_s": 0, "linger_ms": 1}


def test_a_generator_that_fails_fails_the_run() -> None:
    with (
        pytest.raises(RunFailed, match=r"the generator ended with exit code 1: KeyError: 'nothing'"),
        generating("127.0.0.1:1", "topic", "nothing", **_LOAD) as generator,
    ):
        generator.wait(lambda: None, 60)


def test_the_generator_ends_with_a_run_that_fails() -> None:
    running: list[psutil.Process] = []
    with (
        pytest.raises(RunFailed, match="the worker ended"),
        generating("127.0.0.1:1", "topic", "mlp-20", **_LOAD) as generator,
    ):

        def watch() -> None:
            # Servers of other tests may be children of this process too.
            running.extend(child for child in psutil.Process().children() if "benchmarks.generator" in child.cmdline())
            raise RunFailed("the worker ended")

        generator.wait(watch, 60)
    assert running
    assert not any(process.is_running() for process in running)


def test_a_wait_watches_until_all_outputs_are_there() -> None:
    there, watched = count(), []
    cluster: Any = SimpleNamespace(count=lambda _: next(there))
    wait_for_outputs(cluster, "topic", 3, 60, lambda: watched.append(1))
    assert len(watched) == 3


def test_a_wait_ends_where_nothing_more_comes() -> None:
    cluster: Any = SimpleNamespace(count=lambda _: 2)
    with pytest.raises(RunFailed, match="no output for 0 s, 2 of 3 are there"):
        wait_for_outputs(cluster, "topic", 3, 0, lambda: None)


@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_nothing_is_sent_before_the_first_is_due(rate: float) -> None:
    sent_s: list[float] = []
    producer: Any = SimpleNamespace(produce=lambda *_, **__: sent_s.append(time.time()), poll=lambda _: 0)
    start_s, _ = _send(producer, "topic", [b""] * 3, rate)
    assert len(sent_s) == 3
    assert start_s <= sent_s[0]


def test_a_generator_that_was_held_up_says_by_how_much() -> None:
    """The first record takes 50 ms to hand over, and the next was due 1 ms after it."""
    held_up = iter([0.05])
    producer: Any = SimpleNamespace(produce=lambda *_, **__: time.sleep(next(held_up, 0.0)), poll=lambda _: 0)
    _, late_s = _send(producer, "topic", [b""] * 200, 1000.0)
    assert late_s >= 0.049
