"""F04: a worker that sleeps longer than its session. Its partitions go to another, and it wakes up as a zombie."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable

import pytest
from support.fault_run import FaultRun, now_ms
from support.kafka_tools import committed_offsets
from support.load import committed_and_repeated, require_bite, wait_until_biting
from support.streams import wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

#: More than twice the session timeout of 6 s.
ASLEEP_S = 15.0


def test_f04_a_worker_asleep_for_longer_than_its_session(
    make_run: Callable[..., FaultRun], publish: Callable[..., None]
) -> None:
    history: list[dict[int, int]] = []
    with make_run(batch_s=0.2) as run:
        stream = run.stream

        def note_commits() -> None:
            history.append(committed_offsets(stream.bootstrap, stream.group, stream.source))

        sleeper, survivor = run.workers(2)
        wait_until_biting(sleeper, survivor)
        moment = run.note()
        os.kill(sleeper.pid, signal.SIGSTOP)
        asleep, bound = time.monotonic(), run.at_risk(moment.mark)
        require_bite(moment.uncommitted > 0, "nothing was under way when the worker fell asleep")
        wait_for(lambda: len(survivor.stats().get("partitions", ())) == 6, "the take-over", survivor)
        take_over_s = time.monotonic() - asleep
        wait_for(lambda: time.monotonic() - asleep > ASLEEP_S, "the sleep to end", survivor)
        note_commits()
        os.kill(sleeper.pid, signal.SIGCONT)
        awake, awake_ms = time.monotonic(), now_ms()

        def share_again() -> bool:
            note_commits()
            return [len(w.stats().get("partitions", ())) for w in (sleeper, survivor)] == [3, 3]

        wait_for(share_again, "the sleeper to join again", sleeper, survivor)
        rejoin_s = time.monotonic() - awake
        verdict = run.settle(sleeper, survivor)
    publish(
        f"worker SIGSTOP for {ASLEEP_S:.0f} s", verdict, bound=bound,
        recovery_s=run.recoveries_s([moment, awake_ms]), take_over_s=take_over_s, rejoin_s=rejoin_s,
        uncommitted_at_stop=moment.uncommitted,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= bound
    assert committed_and_repeated(run.stream, moment.mark) == 0
    # The zombie's late commits are refused: the group never goes back.
    for before, after in itertools.pairwise(history):
        assert all(after[partition] >= offset for partition, offset in before.items())
