"""The figures of an offline run, by hand from a run that never was."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from modelstream.streams.replay.arrivals import Pace, Schedule
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.offline import ClosedBatch, OfflineRun
from modelstream.streams.replay.offline_result import offline_result
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.result_keys import Labels

DUE_MS = np.array([0, 10, 20, 30, 40, 50, 60, 70])
#: Two become dead letters, at 22 and 52 ms, and one is filtered.
LATENCY_MS = np.array([31, 22, np.nan, 12, 30, np.nan, np.nan, 50])
ANSWERED_MS = np.array([31, 32, 22, 42, 70, 52, np.nan, 120])


def result(warm_up: float = 0.0, latency_ms: NDArray[np.float64] = LATENCY_MS) -> ReplayResult:
    batches = [
        ClosedBatch("score", 1, 3, "deadline", queued_s=0.004, service_s=0.002, finished_s=0.042),
        ClosedBatch("score", 2, 5, "full", queued_s=0.006, service_s=0.005, finished_s=0.12),
        ClosedBatch("again", 1, 1, "idle", queued_s=0.0, service_s=0.25, finished_s=0.12),
    ]
    letters = [
        {"stage": "score", "reason": "wrong_type", "detail": f"field 'x' of {offset}", "offset": offset}
        for offset in (2, 5)
    ]
    run = OfflineRun(
        predictions=[(i, "{}") for i in (0, 1, 3, 4, 7)], dead_letters=letters, n_filtered=1,
        latency_s=latency_ms / 1000, batches=batches, seconds=0.12, answered_s=ANSWERED_MS / 1000,
    )  # fmt: skip
    return offline_result(
        run,
        DUE_MS * 1000,
        Labels("p.yaml", "f.ndjson", Pace(speed=2), warm_up, Schedule(None, 3, 7_500)),
        describe_environment("-"),
    )


def test_latencies_lag_and_the_whole_rate() -> None:
    found = result()
    assert (found.p50_ms, found.p90_ms, found.max_ms) == (30.0, pytest.approx(42.4), 50.0)
    assert found.consumer_latency is not None
    assert (found.consumer_latency.n, found.consumer_latency.mean_ms) == (5, 29.0)
    # 0, 10, 20 at 20 ms; then 10, 30 and 20's letter is out.
    assert (found.max_lag, max(sample.lag for sample in found.series)) == (3, 3)
    assert (found.seconds, found.events_per_s) == (0.12, pytest.approx(8 / 0.12, abs=0.05))
    # More than half of the time from the first prediction to the last passed before the last.
    assert found.answers_per_s is None


def test_the_steady_rate_leaves_the_warm_up_out() -> None:
    # Predictions come after 20, 30, 40, 60 and 80 ms.
    latency_ms = np.array([20, 20, np.nan, 10, 20, np.nan, np.nan, 10])
    assert result(0.0, latency_ms).answers_per_s == pytest.approx(4 / 0.060, abs=0.05)
    assert result(0.5, latency_ms).answers_per_s == pytest.approx(2 / 0.040, abs=0.05)


def test_the_warm_up_is_left_out_of_latencies() -> None:
    found = result(warm_up=0.5)
    assert found.consumer_latency is not None
    assert (found.consumer_latency.n, found.p50_ms, found.warm_up) == (2, 40.0, 0.5)


def test_every_event_is_accounted_for() -> None:
    found = result()
    counts = (found.events, found.predictions, found.dead_letters, found.filtered, found.missing, found.duplicates)
    assert counts == (8, 5, 2, 1, 0, 0)
    assert found.dead_letter_reasons == {"wrong_type at 'score'": 2}
    assert found.first_dead_letter == "event 3, wrong_type at 'score': field 'x' of 2"
    assert (found.speed, found.clamped_events, found.max_clamped_ms) == ("2x", 3, 7.5)


def test_stages_have_their_own_batches_waits_and_service_times() -> None:
    score, again = result().stages
    assert (score.step_id, score.batches, score.rows, score.mean_rows) == ("score", 2, 8, 4.0)
    assert (score.sizes, score.close_reasons) == ({4: 1, 8: 1}, {"deadline": 1, "full": 1})
    assert (score.mean_queued_ms, score.mean_service_ms) == (5.0, 3.5)
    assert (again.rows, again.mean_queued_ms, again.mean_service_ms) == (1, 0.0, 250.0)
    assert result().mean_batch == 3.0
