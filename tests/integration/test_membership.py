"""A worker stays in its group as long as its data plane is alive, though aiokafka never fetches for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.streams import KnownStream, wait_for

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
