"""The pace of sending, on a clock that only moves when it is told to."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kafka_tools import read_all

from modelstream.streams.replay.generator import INTENDED_HEADER, _generate, send_when_due
from modelstream.streams.replay.prepared import prepare
from modelstream.streams.replay.shared import Shared
from modelstream.streams.spec import SourceSpec


@dataclass
class World:
    """A clock in which sending and sleeping take time."""

    now_us: int = -1000
    costs_us: list[int] = field(default_factory=list)
    slices: list[tuple[int, int, int]] = field(default_factory=list)
    slept: int = 0

    def send(self, first: int, last: int) -> None:
        self.slices.append((self.now_us, first, last))
        self.now_us += self.costs_us.pop() if self.costs_us else 0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept += 1
        self.now_us += max(round(seconds * 1e6), 1)

    def run(self, n: int, due_us: np.ndarray | None) -> None:
        send_when_due(n, due_us, self.send, elapsed_us=lambda: self.now_us, sleep=self.sleep)


dues = st.lists(st.integers(0, 300_000), max_size=600).map(lambda values: np.array(sorted(values), np.int64))


@given(dues, st.lists(st.integers(0, 100_000), max_size=20))
def test_every_event_is_sent_once_in_order_and_never_early(due_us: np.ndarray, costs_us: list[int]) -> None:
    world = World(costs_us=costs_us)
    world.run(len(due_us), due_us)
    ends = [0, *(last for _, _, last in world.slices)]
    assert [(first, last) for _, first, last in world.slices] == list(pairwise(ends))
    assert ends[-1] == len(due_us)
    for at_us, first, last in world.slices:
        assert first < last
        assert (due_us[first:last] <= at_us).all()


@given(dues)
def test_where_sending_costs_nothing_events_are_late_by_one_short_sleep_at_most(due_us: np.ndarray) -> None:
    world = World()
    world.run(len(due_us), due_us)
    for at_us, first, _ in world.slices:
        assert at_us - due_us[first] <= 200


def test_a_pause_does_not_move_the_schedule() -> None:
    due_us = np.arange(100) * 1000
    world = World(costs_us=[50_000])  # the first slice takes as long as fifty events
    world.run(100, due_us)
    at_us, first, last = world.slices[1]
    assert (at_us, first, last) == (50_000, 1, 51)
    assert world.slices[-1][0] == 99_000


def test_without_a_schedule_nothing_waits_but_for_the_start() -> None:
    world = World()
    world.run(1000, None)
    assert world.slices[0][0] == 0
    assert world.slept == 1
    assert world.slices[-1][2] == 1000


def test_it_ends_when_it_is_told_to() -> None:
    world = World()
    send_when_due(
        10, np.arange(10) * 1_000_000, world.send, elapsed_us=lambda: world.now_us, sleep=world.sleep,
        is_stopped=lambda: world.now_us > 2_500_000,
    )  # fmt: skip
    assert world.slices[-1][2] == 3


@pytest.mark.embedded
@pytest.mark.parametrize("due_us", [[0, 250_000, 1_000_000], None])
def test_however_late_an_event_is_sent_it_counts_from_when_it_was_due(
    embedded_broker: Any, make_topics: Callable[..., list[str]], tmp_path: Path, due_us: list[int] | None
) -> None:
    (topic,) = make_topics(embedded_broker, "events")
    prepare([(None, b"%d" % i, -1) for i in range(3)], SourceSpec(topic=topic), 1, tmp_path)
    shared = Shared.create(tmp_path, 3, None if due_us is None else np.array(due_us))
    before_us = time.time_ns() // 1000
    shared.start_us = before_us - 60_000_000  # the whole schedule is past: all are late, by a minute or nearly
    try:
        _generate(tmp_path, topic, embedded_broker.bootstrap)
    finally:
        gc.enable()
        gc.unfreeze()
    intended_us, sent_us = shared.intended_us.tolist(), shared.sent_us.tolist()
    assert min(sent_us) >= before_us
    if due_us is None:  # no schedule, and so none to be late for
        assert all(before_us <= due <= sent for due, sent in zip(intended_us, sent_us, strict=True))
    else:
        assert intended_us == [shared.start_us + due for due in due_us]
    records = sorted(read_all(embedded_broker.bootstrap, topic), key=lambda record: record.value or b"")
    assert [dict(record.headers)[INTENDED_HEADER] for record in records] == [b"%d" % due for due in intended_us]
    assert [record.timestamp_ms for record in records] == [due // 1000 for due in intended_us]
    assert (shared.n_sent, shared.is_done) == (3, True)
