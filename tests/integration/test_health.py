"""What a worker says of its health, and what it does when it stops working."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from support.impatient import impatient
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed

pytestmark = pytest.mark.kafka

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

#: Gives the first clients of a kind a broker that is not there: how one looks that has lost it for good.
_LOSES_BROKER = """\
from modelstream.streams import {module} as place

class Lost(place.{client}):
    n_made = 0
    def __init__(self, config, **options):
        Lost.n_made += 1
        nowhere = {{"bootstrap.servers": "127.0.0.1:9"}} if Lost.n_made <= {n_lost} else {{}}
        super().__init__({{**config, **nowhere}}, **options)

place.{client} = Lost
"""

#: As many records as the producer takes until it is full, and has the data thread wait.
_SMALL_QUEUE = """
worker_limits.EngineLimits = functools.partial(worker_limits.EngineLimits, max_unsent_records=10)
"""

_HANGING = """\
import time

def slow(batch):
    if any(event["seq"] == 777 for event in batch.events):
        time.sleep(3600)
    return {}
"""


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


@pytest.mark.parametrize(
    ("module", "client", "more"),
    [("delivery", "Producer", ""), ("delivery", "Producer", _SMALL_QUEUE), ("pump", "Consumer", "")],
)
def test_a_client_that_has_lost_its_broker_is_replaced(
    make_stream: Callable[..., KnownStream], module: str, client: str, more: str
) -> None:
    stream = make_stream()
    stream.send(range(100))
    # The watchdog alone would not help within the test: it sees nothing as long as records are fetched.
    code = _LOSES_BROKER.format(module=module, client=client, n_lost=1) + more
    with impatient(stream, code, stall_timeout_s=600) as worker:
        stream.wait_until_committed(worker)
        assert "a librdkafka client has lost its broker; reading anew" in worker.log_tail()
        worker.stop()
    assert stream.outcome(range(100)).is_clean


def test_where_new_clients_find_no_broker_either_the_worker_ends(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(100))
    code = _LOSES_BROKER.format(module="pump", client="Consumer", n_lost=99)
    with (
        impatient(stream, code, stall_timeout_s=600) as worker,
        pytest.raises(WorkerFailed, match="librdkafka finds no broker, though one answers"),
    ):
        stream.wait_until_committed(worker, deadline_s=100)


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
    told: list[list[str] | None] = []
    with impatient(stream) as worker, pytest.raises(WorkerFailed, match="ended with code 1") as failure:
        wait_for(lambda: worker.health("ready") == [], "the worker to be ready", worker)
        stream.wait_until_committed(worker)
        assert worker.health("live") == []
        stream.send([777])
        wait_for(lambda: worker.health("live"), "the worker to be told dead", worker)
        told.append(worker.health("live"))
        wait_for(lambda: False, "the worker to end", worker)
    assert "the data thread has been busy for" in str(told)
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
        wait_for(lambda: worker.stats().get("predictions") == 11, "the first records", worker)
        # More than two limits with an end that is never read up to. Records go on coming through afterwards.
        passed = time.monotonic() + 5.0
        wait_for(lambda: time.monotonic() > passed, "the limits to pass", worker)
        stream.send(range(11, 20))
        wait_for(lambda: worker.stats().get("predictions") == 20, "the other records", worker)
        assert "no progress" not in worker.log_tail()
        worker.stop()
    assert stream.outcome(range(20)).is_clean
