"""Exactly-once by real workers: each output once for who reads committed records, at any moment; or a clear refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.kafka_tools import Outgoing, committed_offsets, end_offsets, produce_all, read_all
from support.load import LiveLoad, wait_until_biting
from support.streams import KnownStream, wait_for
from support.transactions import CommittedReader, deliver_exactly_once, records_behind_open_transactions

from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

#: Events without the field that the first stage wants, and records that are no events.
N_FILTERED, N_BROKEN = 100, 50


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]


@pytest.mark.kafka
def test_a_rebalance_and_a_sigterm_in_the_middle(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=4)
    deliver_exactly_once(stream)
    others = [Outgoing(b'{"id":"f%d"}' % i, b"%d" % i) for i in range(N_FILTERED)]
    others += [Outgoing(b"{%d" % i, b"%d" % i) for i in range(N_BROKEN)]
    with (
        CommittedReader(stream.bootstrap, stream.sink) as reader,
        LiveLoad(stream) as load,
        stream.worker() as first,
    ):
        wait_until_biting(first)
        with stream.worker() as second:
            wait_for(lambda: _shares(first, second) == [2, 2], "a share for the second", first, second)
            produce_all(stream.bootstrap, stream.source, others)
            wait_until_biting(first, second)
            assert first.stats()["transactions"]["committed"] > 0
            first.stop()
            wait_for(lambda: _shares(second) == [4], "the hand-over", second)
            wait_until_biting(second)
            numbers = load.stop()
            stream.wait_until_committed(second)
            second.stop()
        wait_for(lambda: len(reader.records) >= len(numbers), "the concurrent reader")
    seen = Counter(orjson.loads(value)["event_id"] for _, value in reader.records)
    assert set(seen.values()) == {1}
    outcome = stream.outcome(numbers, isolation="read_committed")
    assert set(outcome.predictions) == set(seen)
    assert (len(outcome.lost), outcome.duplicates, outcome.wrong, outcome.out_of_order) == (0, 0, [], 0)
    assert Counter(letter.value for letter in outcome.dead_letters) == Counter(b"{%d" % i for i in range(N_BROKEN))
    assert committed_offsets(stream.bootstrap, stream.group, stream.source) == end_offsets(
        stream.bootstrap, stream.source
    )
    assert records_behind_open_transactions(stream.bootstrap, stream.sink, stream.dead) == 0


@pytest.mark.kafka
def test_what_a_transaction_holds_is_seen_when_it_is_committed(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    deliver_exactly_once(stream, interval_ms=60_000)
    with stream.worker() as worker:
        worker.wait_until_ready()
        stream.send([1])
        wait_for(lambda: read_all(stream.bootstrap, stream.sink), "the prediction, not committed", worker)
        assert read_all(stream.bootstrap, stream.sink, isolation="read_committed") == []
        assert stream.lag() == 1
        worker.stop()
    assert stream.outcome([1], isolation="read_committed").is_clean
    assert stream.lag() == 0


@pytest.mark.embedded
def test_a_broker_that_cannot_do_it_is_refused_before_anything_is_read(
    embedded_broker: Any, make_topics: Callable[..., list[str]], tmp_path: Path
) -> None:
    topics = make_topics(embedded_broker, "events", "predictions", "dead")
    stream = KnownStream(embedded_broker.bootstrap, tmp_path, *topics, group=topics[0].replace("events", "group"))
    deliver_exactly_once(stream)
    stream.send(range(3))
    with (
        stream.worker() as worker,
        pytest.raises(WorkerFailed, match=r"delivery: exactly_once is not possible with .* or at_least_once"),
    ):
        worker.wait_until_ready()
    assert read_all(stream.bootstrap, stream.sink) == []


_WITH_A_TABLE = """\
from modelstream.streams import app as engine
from modelstream.streams.worker import log_to_stderr, run_worker

app = engine.app_from_environment()
counts = app.Table("counts", default=int)


@app.agent(app.topic("orders"), name="stock")
async def stock(orders):
    async for order in orders:
        counts["all"] += 1


log_to_stderr("info")
run_worker(app)
"""


@pytest.mark.kafka
def test_agents_and_tables_beside_the_pipeline_are_refused(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    deliver_exactly_once(stream)
    script = stream.folder / "with_a_table.py"
    script.write_text(_WITH_A_TABLE, encoding="utf-8")
    with (
        stream.script(script) as worker,
        pytest.raises(WorkerFailed, match=r"exactly_once covers the stages of a pipeline only.*counts, stock besides"),
    ):
        worker.wait_until_ready()
