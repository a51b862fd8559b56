"""A worker that sleeps longer than its session: its partitions go to another, and it wakes up as a zombie."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable

import pytest
from support.kafka_tools import committed_offsets
from support.load import LiveLoad, Mark, committed_and_repeated, require_bite, unequal_duplicates, wait_until_biting
from support.streams import KnownStream, wait_for

from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

#: More than twice the session timeout of 6 s.
ASLEEP_S = 15.0


def test_f04_a_worker_asleep_for_longer_than_its_session(
    make_slow_stream: Callable[..., KnownStream], measured: Callable[..., None]
) -> None:
    stream = make_slow_stream(partitions=4)
    history: list[dict[int, int]] = []

    def note_commits() -> None:
        history.append(committed_offsets(stream.bootstrap, stream.group, stream.source))

    with LiveLoad(stream) as load, stream.worker() as sleeper, stream.worker() as survivor:
        wait_for(lambda: _shares(sleeper, survivor) == [2, 2], "a fair share", sleeper, survivor)
        open_batches = wait_until_biting(sleeper, survivor)
        os.kill(sleeper.pid, signal.SIGSTOP)
        asleep = time.monotonic()
        at_stop = Mark.of(stream)
        uncommitted = stream.lag()
        require_bite(uncommitted > 0, "nothing was under way when the worker fell asleep")
        wait_for(lambda: _shares(survivor) == [4], "the take-over", survivor)
        take_over_s = time.monotonic() - asleep
        wait_for(lambda: time.monotonic() - asleep > ASLEEP_S, "the sleep to end", survivor)
        note_commits()
        os.kill(sleeper.pid, signal.SIGCONT)
        awake = time.monotonic()

        def share_again() -> bool:
            note_commits()
            return _shares(sleeper, survivor) == [2, 2]

        wait_for(share_again, "the sleeper to join again", sleeper, survivor)
        rejoin_s = time.monotonic() - awake
        numbers = load.stop()
        stream.wait_until_committed(sleeper, survivor)
        sleeper.stop()
        survivor.stop()
    outcome = stream.outcome(numbers)
    measured(
        "F04 SIGSTOP 15 s", events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates,
        open_batches=open_batches, take_over_s=take_over_s, rejoin_s=rejoin_s,
    )  # fmt: skip
    assert not outcome.lost
    assert not outcome.wrong
    assert outcome.out_of_order == 0
    # What it had read and not committed, and one window more, before the group told it.
    limits = EngineLimits()
    assert outcome.duplicates <= uncommitted + limits.max_batches_in_flight * limits.fetch_max_records
    assert committed_and_repeated(stream, at_stop) == 0
    assert unequal_duplicates(stream) == 0
    # The zombie's late commits are refused: the group never goes back.
    for before, after in itertools.pairwise(history):
        assert all(after[partition] >= offset for partition, offset in before.items())


def _shares(*workers: WorkerProcess) -> list[int]:
    return [len(worker.stats().get("partitions", ())) for worker in workers]
