"""A static member that is started again, and a topic that is deleted under a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewPartitions
from support.kafka_tools import admin_client, delete_topics
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture
def make_stream(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> Callable[[int], KnownStream]:
    """Make a stream with known answers and so many partitions."""

    def make(partitions: int) -> KnownStream:
        source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=partitions)
        return KnownStream(kafka.bootstrap, tmp_path, source, sink, dead, group=source.replace("events", "group"))

    return make


def test_a_static_member_that_is_started_again_moves_no_partitions(make_stream: Callable[[int], KnownStream]) -> None:
    stream = make_stream(4)

    def member(name: str) -> WorkerProcess:
        return stream.worker("--group-instance-id", name, "--session-timeout", "30")

    with member("one") as survivor, member("two") as bounced:
        wait_for(lambda: _shares(survivor, bounced) == [2, 2], "a fair share", survivor, bounced)
        generation = _log_of_readings(survivor)
        stream.send(range(100))
        stream.wait_until_committed(survivor, bounced)
        bounced.stop()
        with member("two") as again:
            stream.send(range(100, 200))
            stream.wait_until_committed(survivor, again)
            assert _shares(survivor, again) == [2, 2]
            assert _log_of_readings(survivor) == generation  # nothing was taken away from it, nor given to it
            again.stop()
        survivor.stop()
    assert stream.outcome(range(200)).is_clean


def test_of_two_workers_of_one_name_the_older_one_ends(make_stream: Callable[[int], KnownStream]) -> None:
    stream = make_stream(2)
    with stream.worker("--group-instance-id", "one") as older:
        stream.send(range(100))
        stream.wait_until_committed(older)
        with stream.worker("--group-instance-id", "one") as newer:
            with pytest.raises(WorkerFailed, match="ended with code 1") as failure:
                wait_for(lambda: False, "the older one to end", older)
            stream.send(range(100, 200))
            stream.wait_until_committed(newer)
            newer.stop()
    assert "under the name of this one (--group-instance-id)" in str(failure.value)
    assert "Traceback" not in str(failure.value)
    assert stream.outcome(range(200)).is_clean


def test_a_leader_that_was_started_again_shares_out_partitions_that_are_added(
    make_stream: Callable[[int], KnownStream],
) -> None:
    stream = make_stream(1)

    def leader() -> WorkerProcess:
        return stream.worker("--group-instance-id", "one", "--session-timeout", "30")

    with leader() as first:
        wait_for(lambda: _shares(first) == [1], "its partition", first)
        first.stop()
    with leader() as again:
        wait_for(lambda: _shares(again) == [1], "its partition", again)
        admin = admin_client(stream.bootstrap)
        admin.create_partitions([NewPartitions(stream.source, 3)])[stream.source].result(30)
        wait_for(lambda: _shares(again) == [3], "the new partitions", again)
        stream.send(range(100))
        stream.wait_until_committed(again)
        again.stop()
    assert stream.outcome(range(100)).is_clean


def test_a_topic_that_is_deleted_ends_the_worker(make_stream: Callable[[int], KnownStream]) -> None:
    stream = make_stream(1)
    stream.send(range(100))
    with stream.worker() as worker, pytest.raises(WorkerFailed, match="ended with code 1") as failure:
        stream.wait_until_committed(worker)
        delete_topics(stream.bootstrap, [stream.source])
        wait_for(lambda: False, "the worker to end", worker)
    assert stream.source in str(failure.value)
    assert "Traceback" not in str(failure.value)


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]


def _log_of_readings(worker: WorkerProcess) -> list[str]:
    return [line for line in worker.log_tail().splitlines() if " reading " in line]
