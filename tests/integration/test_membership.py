"""A worker stays in its group as long as its data plane is alive, though aiokafka never fetches for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import NewPartitions
from support.kafka_tools import admin_client
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

pytestmark = pytest.mark.kafka

_APP = """\
import asyncio
import sys

from modelstream.streams import app as engine
from modelstream.streams.worker import log_to_stderr, run_worker

engine.App.max_poll_interval_s = 2.0  # minutes in earnest
app = engine.app_from_environment()
log_to_stderr("info")
run_worker(app)
"""


def test_a_worker_that_reads_by_the_data_plane_alone_is_not_idle_to_its_group(
    make_stream: Callable[..., KnownStream],
) -> None:
    stream = make_stream()
    script = stream.folder / "short_interval.py"
    script.write_text(_APP, encoding="utf-8")
    with stream.script(script) as worker:
        stream.send(range(100))
        stream.wait_until_committed(worker)
        # Three intervals without an event: aiokafka would leave the group after one, and never come back.
        idle_until = time.monotonic() + 6.0
        wait_for(lambda: time.monotonic() > idle_until, "the intervals to pass", worker)
        stream.send(range(100, 200))
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(200)).is_clean


def test_what_the_group_refuses_ends_the_worker(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    with stream.worker("--session-timeout", "86400") as worker, pytest.raises(WorkerFailed, match="code 2") as failure:
        wait_for(lambda: False, "the worker to end", worker)
    assert "--session-timeout: the broker" in str(failure.value)
    assert "does not allow 86400 s; its bounds are group.min.session.timeout.ms" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_partitions_that_are_added_are_read(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    with stream.worker() as worker:
        stream.send(range(100))
        stream.wait_until_committed(worker)
        admin = admin_client(stream.bootstrap)
        admin.create_partitions([NewPartitions(stream.source, 3)])[stream.source].result(30)
        wait_for(lambda: _shares(worker) == [3], "the new partitions", worker)
        stream.send(range(100, 200))
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(range(200))
    assert not outcome.lost
    assert not outcome.duplicates


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]
