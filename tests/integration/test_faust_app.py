"""The app is a normal Faust app: Faust's command line runs it, and stock topics and tables work beside batch topics."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from support.kafka_tools import Outgoing, committed_offsets, delete_topics, end_offsets, partitions_of, produce_all
from support.runs import plain_environment
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerProcess

FAUST = str(Path(sys.executable).with_name("faust"))
ENGINE = "modelstream.streams.app"
DEADLINE_S = 60.0

MIXED = """\
import os

import orjson
from modelstream.streams.app import App
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.transport import batch_topic

settings = BrokerSettings.resolve(option=None, in_file=None, environ=os.environ)
app = App({group!r}, settings=settings, topic_partitions={partitions})
amounts = app.Table("amounts", default=int)
read = {{"rows": 0, "total": 0}}


@app.agent(app.topic({orders!r}, value_serializer="json"))
async def stock(orders):
    async for order in orders:
        amounts[order["customer"]] += order["amount"]


@app.agent(batch_topic(app, {readings!r}))
async def batches(stream):
    async for batch in stream:
        readings = [orjson.loads(value) for value in batch.values]
        read["rows"] += len(readings)
        read["total"] += sum(reading["seq"] for reading in readings)
        app.consumer.done(batch)


@app.page("/counts")
async def counts(view, request):
    return view.json({{"amounts": dict(amounts.items()), **read}})
"""


class FaustWorker(WorkerProcess):
    """``faust -A MODULE worker``, with environment variables as ``NAME=VALUE``."""

    def __init__(self, module: str, *environ: str) -> None:
        super().__init__([])
        self._module = module
        self._environ = environ

    def _command(self) -> list[str]:
        # `env` becomes the worker: its process id, and so its signals, are the worker's.
        return ["env", *self._environ, FAUST, "-A", self._module, "worker", "--web-port", str(self._port)]

    def ask(self, page: str) -> Any:
        """Return a page of the app, nothing while it does not answer."""
        return self._ask(page) or {}


def run_faust(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Faust's on the engine's app to its end."""
    kept = plain_environment()
    return subprocess.run(
        [FAUST, "-A", ENGINE, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, env=kept | environ, text=True, check=False,
    )  # fmt: skip


@pytest.mark.kafka
def test_the_faust_worker_processes_the_stream_and_stops_cleanly(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(20_000))
    settings = f"MODELSTREAM_PIPELINE={stream.file}", f"MODELSTREAM_BROKER={stream.bootstrap}"
    with FaustWorker(ENGINE, *settings) as worker:
        worker.wait_until_ready()
        stream.wait_until_committed(worker)
        assert worker.stats()["predictions"] == 20_000
        worker.stop()  # code 0
    assert stream.outcome(range(20_000)).is_clean


@pytest.mark.kafka
def test_sigterm_to_the_faust_worker_under_load_repeats_nothing(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    events = range(100_000)
    stream.send(events)
    settings = f"MODELSTREAM_PIPELINE={stream.file}", f"MODELSTREAM_BROKER={stream.bootstrap}"
    with FaustWorker(ENGINE, *settings) as worker:
        wait_for(lambda: worker.stats().get("predictions", 0) > 1_000, "some predictions", worker)
        worker.stop()
    produced = sum(end_offsets(stream.bootstrap, stream.sink).values())
    assert 0 < produced < len(events)
    assert stream.lag() == len(events) - produced
    with FaustWorker(ENGINE, *settings) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(events).is_clean


def test_the_stages_are_faust_agents(tmp_path: Path) -> None:
    stream = KnownStream("localhost:9092", tmp_path, "events", "predictions", "dead", group="trial")
    done = run_faust("agents", "--local", MODELSTREAM_PIPELINE=str(stream.file), MODELSTREAM_BROKER=stream.bootstrap)
    assert done.returncode == 0, done.stderr
    for stage in ("@trial.wanted", "@trial.score"):
        assert stage in done.stdout


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "MODELSTREAM_PIPELINE: set it to the path of a pipeline file"),
        ({"MODELSTREAM_PIPELINE": "nowhere.yaml"}, "nowhere.yaml: no such file"),
    ],
)
def test_without_a_pipeline_there_is_a_message(environ: dict[str, str], named: str) -> None:
    done = run_faust("worker", **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kafka
def test_a_missing_source_topic_is_told_and_not_created(kafka: Any, tmp_path: Path) -> None:
    name = f"missing-{uuid4().hex[:8]}"
    stream = KnownStream(kafka.bootstrap, tmp_path, name, f"{name}-out", f"{name}-dead", group=name)
    settings = f"MODELSTREAM_PIPELINE={stream.file}", f"MODELSTREAM_BROKER={stream.bootstrap}"
    with FaustWorker(ENGINE, *settings) as worker:
        wait_for(lambda: f"{name} not found" in worker.log_tail(), "the worker to say so", worker)
        worker.stop()
    # Faust creates the topics of its own tables and replies; with 8 partitions, whatever the pipeline needs.
    assert not partitions_of(kafka.bootstrap, name)


@pytest.mark.kafka
def test_stock_topics_and_tables_work_beside_batch_topics(
    kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path
) -> None:
    partitions = 3
    orders, readings = make_topics(kafka, "orders", "readings", partitions=partitions)
    group = orders.replace("orders", "mixed")
    text = MIXED.format(group=group, partitions=partitions, orders=orders, readings=readings)
    (tmp_path / "mixed.py").write_text(text)
    settings = f"PYTHONPATH={tmp_path}", f"MODELSTREAM_BROKER={kafka.bootstrap}"
    expected: dict[str, int] = {}

    def send(n_orders: int, n_readings: int) -> None:
        produce_all(kafka.bootstrap, readings, (_record({"seq": n}, f"key-{n % 50}") for n in range(n_readings)))
        sent = [(f"customer-{n % 20}", n) for n in range(n_orders)]
        for customer, amount in sent:
            expected[customer] = expected.get(customer, 0) + amount
        produce_all(kafka.bootstrap, orders, (_record({"customer": c, "amount": a}, c) for c, a in sent))

    def wait_until_committed(worker: FaustWorker) -> None:
        for topic in (orders, readings):
            end = end_offsets(kafka.bootstrap, topic)
            wait_for(
                lambda topic=topic, end=end: committed_offsets(kafka.bootstrap, group, topic) == end,
                f"the group to commit {topic}",
                worker,
            )

    try:
        send(n_orders=2_000, n_readings=30_000)
        with FaustWorker("mixed", *settings) as worker:
            wait_until_committed(worker)
            assert worker.ask("counts") == {"amounts": expected, "rows": 30_000, "total": sum(range(30_000))}
            worker.stop()
        with FaustWorker("mixed", *settings) as worker:
            # Recovered from the changelog on Kafka, before there is anything new; no batch is read again.
            wait_for(lambda: worker.ask("counts").get("amounts") == expected, "the table to recover", worker)
            send(n_orders=500, n_readings=10_000)
            wait_until_committed(worker)
            assert worker.ask("counts") == {"amounts": expected, "rows": 10_000, "total": sum(range(10_000))}
            worker.stop()
    finally:
        delete_topics(kafka.bootstrap, [f"{group}-amounts-changelog"])


def _record(value: dict[str, Any], key: str) -> Outgoing:
    return Outgoing(orjson.dumps(value), key.encode())
