"""The broker dies and comes back on its data, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.kafka_tools import create_topic
from support.load import LiveLoad, Mark, committed_and_repeated, require_bite, slow_down, wait_until_biting
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

AWAY_S = 5.0


def test_f05_the_broker_is_killed_and_comes_back(
    start_kafka: Callable[..., Any], tmp_path: Path, measured: Callable[..., None]
) -> None:
    kafka = start_kafka()
    for topic in ("events", "predictions", "dead"):
        create_topic(kafka.bootstrap, topic, 2)
    stream = KnownStream(kafka.bootstrap, tmp_path, "events", "predictions", "dead", group="group")
    slow_down(stream, seconds=0.2)
    marks, recovery_s, survived = [], [], []
    with ExitStack() as stack:
        load = stack.enter_context(LiveLoad(stream))
        worker = stack.enter_context(stream.worker())
        for _ in range(2):
            wait_until_biting(worker)
            marks.append(Mark.of(stream))
            require_bite(stream.lag() > 0, "nothing was under way when the broker died")
            kafka.kill()
            time.sleep(AWAY_S)
            kafka.restart()
            back = time.monotonic()
            try:
                _wait_for_progress(worker)
                survived.append("alive")
            except WorkerFailed as error:
                survived.append(f"ended ({str(error).splitlines()[0]})")
                worker = stack.enter_context(stream.worker())
                _wait_for_progress(worker)
            recovery_s.append(time.monotonic() - back)
        numbers = load.stop()
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(numbers)
    measured(
        "F05 broker SIGKILL x2", events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates,
        out_of_order=outcome.out_of_order, worker=survived, recovery_s=recovery_s,
    )  # fmt: skip
    assert not outcome.lost
    assert not outcome.wrong
    assert outcome.out_of_order == 0
    assert committed_and_repeated(stream, *marks) == 0


def _wait_for_progress(worker: WorkerProcess) -> None:
    before = worker.stats().get("predictions", 0)
    wait_for(lambda: worker.stats().get("predictions", 0) > before, "predictions after the broker's return", worker)
