"""What a worker says of its health, and what it does when it stops working."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.kafka_server import ApacheKafka
from support.kafka_tools import create_topic
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

pytestmark = pytest.mark.kafka

#: A worker that gives a partition two seconds.
_IMPATIENT = """\
import functools

from modelstream.models.errors import ModelStreamError
from modelstream.streams import app as engine
from modelstream.streams.pump import Pump
from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker import exit_process, log_to_stderr, run_worker

engine.EngineLimits = functools.partial(EngineLimits, stall_timeout_s=2.0)
{more}
app = engine.app_from_environment()
app.conf.web_port, app.web_port_is_chosen = {port}, True
log_to_stderr("info")
code = 0
try:
    run_worker(app)
except ModelStreamError as error:
    print("error:", error)
    code = 1
exit_process(code)
raise SystemExit(code)
"""

#: Has librdkafka stop fetching, without a word, after the first batch of an assignment: as often as told.
_STOPS_FETCHING = """\
fetch = Pump.fetch
n_stops = {n_stops}

def fetch_and_stop(pump, timeout_s):
    global n_stops
    batches = fetch(pump, timeout_s)
    if batches and n_stops:
        n_stops -= 1
        pump._consumer.pause(pump._consumer.assignment())
    return batches

Pump.fetch = fetch_and_stop
"""

_HANGING = """\
import time

def slow(batch):
    if any(event["seq"] == 777 for event in batch.events):
        time.sleep(3600)
    return {}
"""


def impatient(stream: KnownStream, more: str = "") -> WorkerProcess:
    """Return a worker that gives a partition two seconds, on a web port of its own."""
    script = stream.folder / "impatient.py"
    worker = stream.script(script)
    script.write_text(_IMPATIENT.format(more=more, port=worker.port), encoding="utf-8")
    return worker


def test_a_fetch_that_stops_is_started_again(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(100))
    with impatient(stream, _STOPS_FETCHING.format(n_stops=1)) as worker:
        stream.wait_until_committed(worker)
        stream.send(range(100, 200))
        stream.wait_until_committed(worker)
        assert "reading anew" in worker.log_tail()
        worker.stop()
    assert stream.outcome(range(200)).is_clean


def test_a_model_that_hangs_ends_the_worker_and_the_message_names_the_partition(
    make_stream: Callable[..., KnownStream],
) -> None:
    stream = make_stream(partitions=1)
    (stream.folder / "hanging.py").write_text(_HANGING, encoding="utf-8")
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(
        text.replace("stages:", "stages:\n  - id: slow\n    extract: hanging:slow"), encoding="utf-8"
    )
    stream.send(range(500))
    with impatient(stream) as worker, pytest.raises(WorkerFailed, match="ended with code 1") as failure:
        stream.wait_until_committed(worker)
        stream.send([777])
        wait_for(lambda: False, "the worker to end", worker)
    assert f"no progress on {stream.source}[0] for 2 s, nor after reading anew" in str(failure.value)
    assert "a model or function does not return" in str(failure.value)
    assert "Traceback" not in str(failure.value)
    assert stream.lag() == 1
    assert stream.outcome(range(500)).is_clean


def test_marks_of_transactions_at_the_end_are_nothing_to_read(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    producer = Producer({"bootstrap.servers": stream.bootstrap, "transactional.id": stream.group, "log_level": 0})
    producer.init_transactions(30)
    stream.send(range(10))
    with impatient(stream) as worker:
        for finish in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            producer.produce(stream.source, b'{"id": "e10", "seq": 10}', b"key-10")
            producer.flush(30)
            finish(30)
        # More than two limits with an end that is never read up to. Records go on coming through afterwards.
        passed = time.monotonic() + 5.0
        wait_for(lambda: time.monotonic() > passed, "the limits to pass", worker)
        stream.send(range(11, 20))
        wait_for(lambda: worker.stats().get("predictions") == 20, "the other records", worker)
        assert "no progress" not in worker.log_tail()
        worker.stop()
    assert stream.outcome(range(20)).is_clean


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
        told = [line for line in worker.log_tail().splitlines() if "reading" not in line and "web server" not in line]
        assert len(told) == 2, told  # it does not answer; it answers again
        worker.stop()
    assert not stream.outcome(range(100)).lost
