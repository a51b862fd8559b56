"""A broker that is away for longer than a partition is given: the worker says so, waits, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.impatient import impatient
from support.kafka_server import ApacheKafka
from support.kafka_tools import create_topic
from support.streams import KnownStream, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_a_broker_that_is_away_is_told_and_so_is_its_return(
    start_kafka: Callable[..., ApacheKafka], tmp_path: Path
) -> None:
    kafka = start_kafka()
    for topic in ("events", "predictions", "dead"):
        create_topic(kafka.bootstrap, topic)
    stream = KnownStream(kafka.bootstrap, tmp_path, "events", "predictions", "dead", group="told")
    assert kafka.pid is not None
    # With a broker that is asleep longer than a partition is given: the watchdog must not take that for a stall.
    with impatient(stream) as worker:
        wait_for(lambda: worker.health("ready") == [], "the worker to be ready", worker)
        stream.send(range(100))
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            wait_for(lambda: worker.health("ready"), "the worker not to be ready", worker)
            [problem] = worker.health("ready") or []
            assert problem.startswith(f"broker {kafka.bootstrap} has not answered for")
            assert worker.health("live") == []
            passed = time.monotonic() + 4.0
            wait_for(lambda: time.monotonic() > passed, "the limits to pass", worker)
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        wait_for(lambda: worker.health("ready") == [], "the worker to be ready again", worker)
        stream.wait_until_committed(worker)
        # On a slow machine the outage may outlast the session, of which there is a line of its own.
        others = ("reading", "web server", "connecting anew")
        told = [line for line in worker.log_tail().splitlines() if not any(other in line for other in others)]
        assert len(told) == 2, told  # it does not answer; it answers again
        worker.stop()
    assert not stream.outcome(range(100)).lost
