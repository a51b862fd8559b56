"""F01–F03: workers killed and stopped in the middle of their work, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.fault_run import FaultRun, now_ms, pause
from support.load import committed_and_repeated, require_bite, wait_for_commit, wait_until_biting
from support.streams import KnownStream, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.mark.quick
def test_f01_sigkill_in_the_middle_of_a_batch(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], quick: bool
) -> None:
    # Batches longer than it takes to see a commit: what was open then is still open at the kill.
    n_kills = 1 if quick else 5
    open_batches = []
    with make_run(partitions=2 if quick else 6, batch_s=0.5) as run:
        workers = run.workers(2)
        for _ in range(n_kills):
            wait_until_biting(*workers)
            victim = workers.pop(run.rng.randrange(2))
            wait_for_commit(run.stream, run.moments[-1].mark.n_committed if run.moments else 0, victim)
            # At once after a commit, where one that went too far would show, and at any moment until the next one.
            pause(run.rng.choice([0.0, run.rng.uniform(0, 1)]))
            moment = run.note()
            open_batches += wait_until_biting(victim)
            victim.kill()
            require_bite(moment.uncommitted > 0, "nothing was under way when the worker was killed")
            pause(1)
            workers.append(run.worker())
            run.wait_for_shares(*workers)
        verdict = run.settle(*workers)
    publish(
        f"worker SIGKILL x{n_kills}", verdict, bound=run.bound_of_kills(), recovery_s=run.recoveries_s(),
        uncommitted_at_kill=[moment.uncommitted for moment in run.moments], open_batches=open_batches,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= run.bound_of_kills()
    assert committed_and_repeated(run.stream, *(moment.mark for moment in run.moments)) == 0


def test_f02_a_burst_of_kills(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    n_kills, n_biting, n_at_work = 30, 0, 0
    with make_run(batch_s=0.2) as run:
        workers = run.workers(2)
        wait_until_biting(*workers)
        for _ in range(n_kills):
            victim = workers.pop(run.rng.randrange(2))
            stats = victim.stats()
            n_at_work += bool(stats)
            n_biting += stats.get("open_batches", 0) > 0
            # Only a worker that has partitions can repeat anything.
            if stats.get("partitions"):
                run.note()
            victim.kill()
            last_ms = now_ms()
            workers.append(run.worker())
            pause(run.rng.uniform(0.1, 1))
        require_bite(n_biting > 0, "no kill found a batch under way")
        last = time.monotonic()
        run.wait_for_shares(*workers)
        run.wait_until_recovered(last_ms, *workers)
        drained_s = time.monotonic() - last
        verdict = run.settle(*workers)
    publish(
        f"SIGKILL x{n_kills} every 0.1-1 s", verdict, bound=run.bound_of_kills(),
        recovery_s=run.recoveries_s([last_ms]), drained_s=drained_s, biting_kills=n_biting, at_work=n_at_work,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= run.bound_of_kills()
    assert committed_and_repeated(run.stream, *(moment.mark for moment in run.moments)) == 0


@pytest.mark.quick
def test_f03_sigterm_in_the_middle_of_a_batch(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], quick: bool
) -> None:
    n_stops = 2 if quick else 10
    stop_s, open_batches = [], []
    with make_run(batch_s=0.2) as run:
        workers = run.workers(2)
        for i in range(n_stops):
            victim = workers.pop(0)
            open_batches += wait_until_biting(victim)
            moment = run.note()
            require_bite(moment.uncommitted > 0, "nothing was under way at SIGTERM")
            stopping = time.monotonic()
            victim.stop()  # exit code 0, or it raises
            stop_s.append(time.monotonic() - stopping)
            if i < n_stops - 1:
                workers.append(run.worker())
                run.wait_for_shares(*workers)
        verdict = run.settle(*workers)
    publish(
        f"worker SIGTERM x{n_stops}", verdict, bound=0, recovery_s=run.recoveries_s(),
        stop_s=max(stop_s), open_batches=open_batches,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated == 0


def test_f03_sigterm_of_the_only_worker(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    stop_s = []
    with make_run(partitions=2, batch_s=0.2, per_s=2_000) as run:
        for _ in range(5):
            worker = run.worker()
            wait_until_biting(worker)
            stopping = time.monotonic()
            worker.stop()
            stop_s.append(time.monotonic() - stopping)
            moment = run.note()
            require_bite(moment.uncommitted > 0, "nothing was left to read at SIGTERM")
            assert moment.mark.n_produced == moment.mark.n_committed
        verdict = run.settle(*run.workers(1))
    publish("the only worker SIGTERM x5", verdict, bound=0, stop_s=max(stop_s))
    assert verdict.is_right
    assert verdict.duplicated == 0


def test_f03_a_member_leaves_while_another_one_drains(
    make_slow_stream: Callable[..., KnownStream], measured: Callable[..., None]
) -> None:
    n_events, after_s = 6_000, []
    stream = make_slow_stream(partitions=2, batch_s=0.01)
    with stream.worker(SLOW_S="1") as patient, stream.worker() as quick, ThreadPoolExecutor(1) as background:
        both = (patient, quick)
        wait_for(lambda: all(len(w.stats().get("partitions", ())) == 1 for w in both), "a partition each", *both)
        stream.send(range(100))
        wait_for(lambda: patient.stats()["open_batches"], "the first batch", patient)
        # All others come with the second fetch, and take three seconds.
        stream.send(range(100, n_events))
        wait_for(lambda: patient.stats()["open_batches"] > 1, "the second batch", patient)
        draining = background.submit(patient.stop)
        quick.stop()
        left = time.monotonic()
        draining.result()
        after_s.append(time.monotonic() - left)
    # Its next heartbeat tells it that the group comes together anew, and there is one a second.
    require_bite(after_s[0] > 1.1, "the drain was over before the rebalance")
    n_left = stream.lag()
    with stream.worker() as heir:
        heir.wait_until_ready()
        stream.wait_until_committed(heir)
        heir.stop()
    outcome = stream.outcome(range(n_events))
    measured(
        "F03 a member leaves while another one drains", "at-least-once", events=n_events, lost=len(outcome.lost),
        duplicates=outcome.duplicates, bound=0, wrong=len(outcome.wrong), out_of_order=outcome.out_of_order,
        left_undone=n_left, drained_s=after_s[0],
    )  # fmt: skip
    assert outcome.is_clean
    # What it had taken up it has finished.
    assert n_left == 0
