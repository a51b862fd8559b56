"""Nothing lost, nothing twice, nothing out of order: by real workers on Apache Kafka."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.kafka_tools import committed_offsets, end_offsets
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerProcess

pytestmark = pytest.mark.kafka

N_EVENTS = 150_000


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]


def test_every_event_has_its_prediction_and_the_group_stands_at_the_end(
    make_stream: Callable[..., KnownStream],
) -> None:
    stream = make_stream()
    stream.send(range(20_000))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        stats = worker.stats()
        worker.stop()
    assert stream.outcome(range(20_000)).is_clean
    committed = committed_offsets(stream.bootstrap, stream.group, stream.source)
    assert committed == end_offsets(stream.bootstrap, stream.source)
    assert (stats["events"], stats["predictions"], stats["open_batches"]) == (20_000, 20_000, 0)


def test_a_lone_event_is_answered(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    with stream.worker() as worker:
        worker.wait_until_ready()
        stream.send([7])
        wait_for(lambda: worker.stats().get("predictions") == 1, "the prediction", worker)
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome([7]).is_clean


def test_sigterm_under_load_loses_nothing_and_repeats_nothing(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(N_EVENTS))
    for _ in range(2):
        with stream.worker() as worker:
            wait_for(lambda worker=worker: worker.stats().get("predictions", 0) > 1_000, "some predictions", worker)
            worker.stop()
        # It stopped in the middle, with everything it had produced committed: otherwise this proves nothing.
        produced = sum(end_offsets(stream.bootstrap, stream.sink).values())
        assert 0 < produced < N_EVENTS
        assert stream.lag() == N_EVENTS - produced
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(N_EVENTS)).is_clean


def test_sigkill_under_load_loses_nothing(make_stream: Callable[..., KnownStream]) -> None:
    stream, n_events = make_stream(), 4 * N_EVENTS  # more than a second's work: it is killed between two commits
    stream.send(range(n_events))
    with stream.worker() as worker:
        wait_for(lambda: stream.lag() < n_events, "the first commit", worker)
        worker.kill()
    assert 0 < sum(end_offsets(stream.bootstrap, stream.sink).values()) < n_events
    assert 0 < stream.lag() < n_events
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(range(n_events))
    assert not outcome.lost
    assert not outcome.wrong
    # What was produced and not committed comes again; the first occurrences keep their order.
    assert outcome.out_of_order == 0


def test_two_workers_share_the_partitions_and_hand_over_without_loss(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=4)
    stream.send(range(N_EVENTS))
    with stream.worker() as first, stream.worker() as second:
        wait_for(lambda: _shares(first, second) == [2, 2], "a fair share", first, second)
        first.stop()  # its partitions go to the second
        wait_for(lambda: _shares(second) == [4], "the hand-over", second)
        stream.send(range(N_EVENTS, N_EVENTS + 1_000))
        stream.wait_until_committed(second)
        second.stop()
    assert stream.outcome(range(N_EVENTS + 1_000)).is_clean


def test_a_second_worker_joins_in_the_middle_of_the_load(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=4)
    stream.send(range(N_EVENTS))
    with stream.worker() as first:
        wait_for(lambda: first.stats().get("predictions", 0) > 1_000, "some predictions", first)
        with stream.worker() as second:
            wait_for(lambda: _shares(first, second) == [2, 2], "a share for the second", first, second)
            stream.wait_until_committed(first, second)
            assert first.stats()["events"] + second.stats()["events"] == N_EVENTS
            second.stop()
        first.stop()
    assert stream.outcome(range(N_EVENTS)).is_clean
