"""Batch topics beside a stock topic and a table: rebalances under load, while tables recover, lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from support.kafka_tools import Outgoing, delete_topics, produce_all
from support.streams import KnownStream, wait_for

pytestmark = pytest.mark.kafka

_APP = """\
import os

import orjson
from modelstream.streams.app import App
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.transport import batch_topic
from modelstream.streams.worker import log_to_stderr, run_worker

app = App({group!r}, settings=BrokerSettings.resolve(option=None, in_file=None, environ=os.environ), topic_partitions=4)
amounts = app.Table("amounts", default=int)
seen = open("{folder}/seen-%d" % os.getpid(), "w")


@app.agent(app.topic({orders!r}, value_serializer="json"))
async def stock(orders):
    async for order in orders:
        amounts[order["customer"]] += 1


@app.agent(batch_topic(app, {readings!r}))
async def batches(stream):
    async for batch in stream:
        seen.writelines("%d\\n" % orjson.loads(value)["seq"] for value in batch.values)
        seen.flush()
        app.consumer.done(batch)


log_to_stderr("info")
run_worker(app)
"""

_ROUNDS = 4


def test_a_worker_that_joins_and_leaves_while_tables_recover(
    make_stream: Callable[..., KnownStream], make_topics: Callable[..., list[str]], kafka: Any
) -> None:
    stream = make_stream(partitions=4)
    [orders] = make_topics(kafka, "orders", partitions=4)
    script = stream.folder / "mixed.py"
    names = {"group": stream.group, "orders": orders, "readings": stream.source, "folder": stream.folder}
    script.write_text(_APP.format(**names), encoding="utf-8")
    load = _Load(stream, orders)
    load.start()
    try:
        with stream.script(script) as first:
            wait_for(lambda: _seen(stream), "the first worker to read", first)
            for _ in range(_ROUNDS):
                with stream.script(script) as second:
                    wait_for(lambda: _has_read(stream, second.pid), "the second worker to read", first, second)
                    second.stop()
            load.stop()
            stream.wait_until_committed(first)
            first.stop()
    finally:
        load.stop()
        delete_topics(stream.bootstrap, [f"{stream.group}-amounts-changelog"])
    seen = _seen(stream)
    assert set(seen) == set(range(load.sent))
    assert len(seen) == load.sent


def _seen(stream: KnownStream) -> list[int]:
    return [int(line) for file in stream.folder.glob("seen-*") for line in file.read_text().split()]


def _has_read(stream: KnownStream, pid: int) -> bool:
    file = stream.folder / f"seen-{pid}"
    return file.exists() and file.stat().st_size > 0


class _Load(threading.Thread):
    """Events on both topics, some 10,000 a second, until stopped."""

    def __init__(self, stream: KnownStream, orders: str) -> None:
        super().__init__(daemon=True)
        self._stream, self._orders = stream, orders
        self._stopping = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._stopping.wait(0.03):
            numbers = range(self.sent, self.sent + 400)
            self._stream.send(numbers)
            values = (orjson.dumps({"customer": str(n % 50)}) for n in numbers)
            produce_all(self._stream.bootstrap, self._orders, (Outgoing(value, value) for value in values))
            self.sent = numbers.stop

    def stop(self) -> None:
        self._stopping.set()
        self.join()
