"""Workers killed and stopped in the middle of their work, while events keep coming."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.load import (
    LiveLoad,
    Mark,
    committed_and_repeated,
    require_bite,
    unequal_duplicates,
    wait_for_commit,
    wait_until_biting,
)
from support.streams import KnownStream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def test_f01_sigkill_in_the_middle_of_a_batch(
    make_slow_stream: Callable[..., KnownStream], measured: Callable[..., None]
) -> None:
    # Longer than it takes to see a commit: what was open then is still open at the kill.
    stream = make_slow_stream(batch_s=0.5)
    marks: list[Mark] = []
    open_batches, recovery_s = [], []
    with LiveLoad(stream, per_s=2_000) as load:
        for after_commit_s in (0.0, 0.1, 0.2, 0.4, 0.8):
            with stream.worker() as worker:
                started = time.monotonic()
                wait_until_biting(worker)
                recovery_s.append(time.monotonic() - started)
                wait_for_commit(stream, marks[-1].n_committed if marks else 0, worker)
                time.sleep(after_commit_s)
                open_batches += wait_until_biting(worker)
                worker.kill()
            time.sleep(1)
            marks.append(Mark.of(stream))
            require_bite(stream.lag() > 0, "nothing was under way when the worker was killed")
        numbers = load.stop()
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(numbers)
    measured(
        "F01 SIGKILL x5", events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates,
        open_batches=open_batches, recovery_s=recovery_s,
    )  # fmt: skip
    assert not outcome.lost
    assert not outcome.wrong
    assert outcome.out_of_order == 0
    assert committed_and_repeated(stream, *marks) == 0
    assert unequal_duplicates(stream) == 0


def test_f03_sigterm_in_the_middle_of_a_batch(
    make_slow_stream: Callable[..., KnownStream], measured: Callable[..., None]
) -> None:
    stream = make_slow_stream()
    open_batches, stop_s = [], []
    with LiveLoad(stream) as load:
        for _ in range(10):
            with stream.worker() as worker:
                open_batches += wait_until_biting(worker)
                stopping = time.monotonic()
                worker.stop()  # exit code 0, or it raises
                stop_s.append(time.monotonic() - stopping)
            require_bite(stream.lag() > 0, "nothing was left to read at SIGTERM")
            mark = Mark.of(stream)
            assert mark.n_produced == mark.n_committed
        numbers = load.stop()
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(numbers)
    measured(
        "F03 SIGTERM x10", events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates,
        open_batches=open_batches, stop_s=stop_s,
    )  # fmt: skip
    assert outcome.is_clean
