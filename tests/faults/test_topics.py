"""F23: what somebody does to the topics while workers run."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.fault_run import FaultRun
from support.streams import wait_for

from modelstream.streams.worker_process import WorkerFailed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_f23_the_topic_is_missing(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    with make_run(per_s=0) as run:
        missing = f"{run.stream.source}-missing"
        worker = run.worker(f"--set=source.topic={missing}", f"--set=sink.topic={run.stream.sink}")
        started = time.monotonic()
        with pytest.raises(WorkerFailed, match="ended with code 2") as failure:
            wait_for(lambda: False, "the worker to end", worker)
        ended_s = time.monotonic() - started
        message = str(failure.value)
        verdict = run.settle()
    publish("topic missing at the start", verdict, bound=0, ended_with_a_message_after_s=ended_s)
    assert missing in message
    assert "Traceback" not in message
