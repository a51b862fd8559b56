"""Records that were deleted before they were read: nothing is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from support.kafka_tools import committed_offsets, delete_records
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed

pytestmark = pytest.mark.kafka


@pytest.fixture
def gap(make_stream: Callable[..., KnownStream]) -> KnownStream:
    """A stream whose group stands at 100, with records from 250 to 400."""
    stream = make_stream(partitions=1)
    stream.send(range(400))
    consumer = Consumer({"bootstrap.servers": stream.bootstrap, "group.id": stream.group, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(stream.source, 0, 100)], asynchronous=False)
    consumer.close()
    delete_records(stream.bootstrap, stream.source, before=250)
    return stream


def test_by_default_reading_goes_on_with_the_oldest_record_and_the_gap_is_counted(gap: KnownStream) -> None:
    with gap.worker() as worker:
        gap.wait_until_committed(worker)
        assert worker.stats()["gap_records"] == 150
        assert f"{gap.source}[0]: records 100 to 249 are gone, going on from 250" in worker.log_tail()
        worker.stop()
    outcome = gap.outcome(range(400))
    assert outcome.lost == {f"e{n}" for n in range(250)}
    assert outcome.duplicates == 0


def test_latest_goes_on_at_the_end(gap: KnownStream) -> None:
    with gap.worker("--set=source.on_gap=latest") as worker:
        wait_for(lambda: worker.stats().get("gap_records"), "the gap to be seen", worker)
        gap.send(range(400, 500))
        gap.wait_until_committed(worker)
        assert worker.stats()["gap_records"] == 300
        worker.stop()
    assert gap.outcome(range(500)).lost == {f"e{n}" for n in range(400)}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_latest_goes_on_from_the_end_as_it_was_when_it_is_started_again(gap: KnownStream, delivery: str) -> None:
    for numbers in (range(0), range(400, 500)):
        gap.send(numbers)
        with gap.worker("--set=source.on_gap=latest", f"--set=delivery={delivery}") as worker:
            gap.wait_until_committed(worker)
            assert worker.stats().get("gap_records") == (0 if numbers else 300)
            worker.stop()
    assert gap.outcome(range(500)).lost == {f"e{n}" for n in range(400)}


def test_fail_ends_the_worker_and_commits_nothing(gap: KnownStream) -> None:
    with (
        gap.worker("--set=source.on_gap=fail") as worker,
        pytest.raises(WorkerFailed, match="ended with code 1") as failure,
    ):
        wait_for(lambda: False, "the worker to end", worker)
    message = str(failure.value)
    assert f"cannot read {gap.source}[0] from 100: it begins at 250, so 150 records were deleted" in message
    assert "Traceback" not in message
    assert committed_offsets(gap.bootstrap, gap.group, gap.source) == {0: 100}
