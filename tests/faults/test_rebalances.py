"""F11: a third worker comes and goes, again and again, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.fault_run import FaultRun, now_ms, pause
from support.load import require_bite, wait_until_biting

from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

N_ROUNDS = 6


def test_f11_a_third_worker_comes_and_goes(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    rebalance_s = []
    with make_run(batch_s=0.1) as run:
        first, second = run.workers(2)
        steady_s, steady = time.monotonic(), run.watcher.count
        pause(5)
        steady_per_s = (run.watcher.count - steady) / (time.monotonic() - steady_s)
        began, answered, sent = time.monotonic(), run.watcher.count, run.load.n_acked
        began_ms = now_ms()
        for _ in range(N_ROUNDS):
            wait_until_biting(first, second)
            run.note()
            third = run.worker()
            run.wait_for_shares(first, second, third)
            pause(run.rng.uniform(0, 1))
            wait_until_biting(first, second, third)
            moment = run.note()
            require_bite(moment.uncommitted > 0, "nothing was under way during the rebalance")
            stopping = time.monotonic()
            third.stop()
            run.wait_for_shares(first, second)
            rebalance_s.append(time.monotonic() - stopping)
        storm_s, answered, sent = time.monotonic() - began, run.watcher.count - answered, run.load.n_acked - sent
        ended_ms = now_ms()
        verdict = run.settle(first, second)
    publish(
        f"third worker comes and goes x{N_ROUNDS}", verdict, bound=0, recovery_s=run.recoveries_s(),
        storm_s=storm_s, rebalance_s=max(rebalance_s), answered_percent=100 * answered / sent,
        throughput_percent=100 * answered / storm_s / steady_per_s, p99_ms=run.p99_ms(began_ms, ended_ms),
    )  # fmt: skip
    assert verdict.is_right
    # Nobody dies here, so everything is finished before it is handed over.
    assert verdict.duplicated == 0
    assert answered / storm_s >= 0.5 * steady_per_s


def test_f11_a_static_member_comes_and_goes(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    with make_run(batch_s=0.1) as run:

        def member(name: str) -> WorkerProcess:
            return run.worker("--group-instance-id", name, "--session-timeout", "30")

        survivor, bounced = member("one"), member("two")
        run.wait_for_shares(survivor, bounced)
        readings = _readings(survivor)
        for _ in range(N_ROUNDS):
            wait_until_biting(survivor, bounced)
            run.note()
            bounced.stop()
            bounced = member("two")
            run.wait_for_shares(survivor, bounced)
        revocations = len(_readings(survivor)) - len(readings)
        verdict = run.settle(survivor, bounced)
    publish(
        f"static member stopped and started x{N_ROUNDS}", verdict, bound=0, recovery_s=run.recoveries_s(),
        revocations_on_the_other=revocations,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated == 0
    assert revocations == 0


def _readings(worker: WorkerProcess) -> list[str]:
    """Return the lines by which a worker says that it was given partitions."""
    return [line for line in worker.log_tail(1_000).splitlines() if " reading " in line]
