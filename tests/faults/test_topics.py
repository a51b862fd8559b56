"""F23: what somebody does to the topics while workers run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_tools import DEADLINE_S, admin_client, committed_offsets, end_offsets
from support.load import require_bite
from support.oracle import Sent, read_lines
from support.secured_kafka import SecuredKafka, plain_login
from support.streams import KnownStream, wait_for

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


def test_f23_the_login_is_refused(
    secured_kafka: SecuredKafka, make_topics: Callable[..., list[str]], tmp_path: Path, publish: Callable[..., None]
) -> None:
    names = make_topics(secured_kafka, "events", "predictions", "dead", partitions=1)
    stream = KnownStream(secured_kafka.bootstrap, tmp_path, *names, group=names[0].replace("events", "group"))
    with FaultRun(stream, Random(0), per_s=0, broker=secured_kafka.address("OPEN")) as run:
        worker = run.worker(environ=plain_login("worker", "wr0ng"))
        started = time.monotonic()
        with pytest.raises(WorkerFailed, match="ended with code 1") as failure:
            wait_for(lambda: False, "the worker to end", worker)
        ended_s = time.monotonic() - started
        message = str(failure.value)
        verdict = run.settle()
    publish("login refused", verdict, bound=0, ended_with_a_message_after_s=ended_s)
    assert "does not let User:worker in" in message
    assert "wr0ng" not in message
    assert "Traceback" not in message


def test_f23_partitions_are_added(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    with make_run(partitions=2) as run:
        workers = run.workers(2)
        pause(2)
        moment = run.note()
        admin = admin_client(run.stream.bootstrap)  # held: a client that is collected leaves its futures unanswered
        for future in admin.create_partitions([NewPartitions(run.stream.source, 6)]).values():
            future.result(DEADLINE_S)

        def shared() -> bool:
            return sum(len(worker.stats().get("partitions", ())) for worker in workers) == 6

        wait_for(shared, "the new partitions to be assigned", *workers, every_s=0.2)
        assigned_s = (now_ms() - moment.at_ms) / 1000
        pause(3)
        verdict = run.settle(*workers)
    publish("partitions added, 2 to 6", verdict, bound=0, recovery_s=run.recoveries_s(), assigned_s=assigned_s)
    assert verdict.is_right
    assert verdict.duplicated == 0


def test_f23_retention_passed_the_offset(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    with make_run(partitions=2) as run:
        stream = run.stream
        [worker] = run.workers(1)
        worker.stop()
        committed = committed_offsets(stream.bootstrap, stream.group, stream.source)
        pause(3)
        # As retention would, delete half of what waits.
        ends = end_offsets(stream.bootstrap, stream.source)
        low = {partition: (committed[partition] + end) // 2 for partition, end in ends.items()}
        n_gap = sum(low[partition] - committed[partition] for partition in low)
        require_bite(n_gap > 0, "nothing waited that could be deleted")
        admin = admin_client(stream.bootstrap)
        asked = [TopicPartition(stream.source, partition, offset) for partition, offset in low.items()]
        for future in admin.delete_records(asked).values():
            future.result(DEADLINE_S)
        moment = run.note()
        [worker] = run.workers(1)
        counted = worker.stats()["gap_records"]
        verdict = run.settle(worker)
    gone = {
        sent.event_id
        for sent in read_lines(run.files.sent, Sent)
        if committed[sent.partition] <= sent.offset < low[sent.partition]
    }
    publish(
        "retention passed the offset", replace(verdict, lost=verdict.lost - gone), bound=0,
        recovery_s=run.recoveries_s([moment]), deleted=n_gap, counted=counted,
    )  # fmt: skip
    # Nothing but what was deleted is missing, and exactly that is counted.
    assert verdict.lost == gone
    assert counted == n_gap == len(gone)
    assert replace(verdict, lost=frozenset()).is_right
