"""A third worker comes and goes, again and again, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.load import LiveLoad, require_bite, wait_until_biting
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_f11_a_third_worker_comes_and_goes(
    make_slow_stream: Callable[..., KnownStream], measured: Callable[..., None]
) -> None:
    stream = make_slow_stream(partitions=6)
    open_batches, rebalance_s = [], []
    with LiveLoad(stream) as load, stream.worker() as first, stream.worker() as second:
        wait_for(lambda: _shares(first, second) == [3, 3], "a fair share", first, second)
        for _ in range(5):
            open_batches += wait_until_biting(first, second)
            with stream.worker() as third:
                wait_for(lambda third=third: _shares(first, second, third) == [2, 2, 2], "a share each", first, second)
                open_batches += wait_until_biting(first, second, third)
                stopping = time.monotonic()
                third.stop()
            wait_for(lambda: _shares(first, second) == [3, 3], "a share each again", first, second)
            rebalance_s.append(time.monotonic() - stopping)
            require_bite(stream.lag() > 0, "nothing was under way during the rebalances")
        numbers = load.stop()
        stream.wait_until_committed(first, second)
        first.stop()
        second.stop()
    outcome = stream.outcome(numbers)
    measured(
        "F11 third worker x5", events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates,
        rebalance_s=rebalance_s,
    )  # fmt: skip
    assert outcome.is_clean


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]
