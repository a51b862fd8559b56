"""Workers with a cache: what comes out is what comes out without one, whatever becomes of Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from support.kafka_tools import end_offsets
from support.redis_server import RedisServer
from support.streams import KnownStream, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

#: The model is so fast that a cache costs more than it saves, which it would find out.
CACHED = "--set=stages[1].infer.cache={ttl_s: 300, bypass: false}"


def test_answers_of_one_worker_serve_the_next(make_stream: Callable[..., KnownStream], redis_url: str) -> None:
    stream = make_stream()
    for again in (False, True):
        # The same numbers again: events delivered twice.
        stream.send(range(5_000))
        with stream.worker(CACHED, "--redis", redis_url) as worker:
            stream.wait_until_committed(worker)
            found = worker.stats()["cache"]["score"]
            worker.stop()
        # Not all of them: on a busy machine Redis may be late, and then is not waited for.
        assert (found["hits"] > 0) == again
        assert sum(found[name] for name in ("hits", "misses", "duplicates", "bypassed")) == 5_000
    outcome = stream.outcome(range(5_000))
    assert (outcome.lost, outcome.wrong, outcome.duplicates) == (set(), [], 5_000)


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_a_redis_that_goes_away_costs_no_prediction(make_stream: Callable[..., KnownStream], fault: str) -> None:
    stream = make_stream()
    n_events = 150_000
    stream.send(range(n_events))
    with RedisServer() as redis, stream.worker(CACHED, "--redis", redis.url) as worker:
        wait_for(lambda: worker.stats().get("predictions", 0) > 1_000, "some predictions", worker)
        assert redis.pid is not None
        os.kill(redis.pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        assert sum(end_offsets(stream.bootstrap, stream.sink).values()) < n_events  # else this proves nothing
        stream.wait_until_committed(worker)
        found: dict[str, Any] = worker.stats()["cache"]["score"]
        worker.stop()
    assert stream.outcome(range(n_events)).is_clean
    assert found["errors"] >= 1
    assert sum(found[name] for name in ("hits", "misses", "duplicates", "bypassed")) == n_events


def test_a_worker_starts_without_the_redis_that_it_is_told_of(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(100))
    with stream.worker(CACHED, "--redis", "redis://127.0.0.1:1/0") as worker:
        stream.wait_until_committed(worker)
        log = worker.log_tail()
        worker.stop()
    assert "what memory does not know is computed until it does" in log
    assert stream.outcome(range(100)).is_clean


def test_equal_rows_of_several_batches_under_way(make_stream: Callable[..., KnownStream], redis_url: str) -> None:
    stream = make_stream(partitions=1)
    numbers = list(range(500)) * 20
    for start in range(0, len(numbers), 1000):
        stream.send(numbers[start : start + 1000])
    options = ("--set=stages[1].infer.batch={in_flight: 4, max_size: 100}", CACHED, "--redis", redis_url)
    with stream.worker(*options) as worker:
        stream.wait_until_committed(worker)
        found = worker.stats()["cache"]["score"]
        worker.stop()
    outcome = stream.outcome(numbers)
    assert (outcome.lost, outcome.wrong, outcome.duplicates) == (set(), [], len(numbers) - 500)
    assert sum(found[name] for name in ("hits", "misses", "duplicates", "coalesced", "bypassed")) == len(numbers)
    assert found["misses"] == 500
