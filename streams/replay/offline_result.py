"""From an offline run to the result of a replay: the same figures, by the virtual clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from modelstream.streams.replay.figures import Course, answers_per_s, highest_lag, latency, latency_curve, samples
from modelstream.streams.replay.offline import ClosedBatch, OfflineRun
from modelstream.streams.replay.result import Environment, ReplayResult, StageFigures
from modelstream.streams.replay.result_keys import Labels, flat_latency, mean_batch
from modelstream.streams.wording import event_number, letter_reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["offline_result"]


@dataclass(frozen=True, slots=True)
class _Times:
    """Of the events that have an answer, and of those that have a prediction, when: in microseconds."""

    due_us: NDArray[np.int64]
    answered: NDArray[np.intp]
    answered_us: NDArray[np.int64]
    predicted: NDArray[np.intp]

    @classmethod
    def of(cls, run: OfflineRun, due_us: NDArray[np.int64]) -> _Times:
        answered = np.flatnonzero(~np.isnan(run.answered_s))
        return cls(
            due_us=due_us,
            answered=answered,
            answered_us=np.round(run.answered_s[answered] * 1e6).astype(np.int64),
            predicted=np.flatnonzero(~np.isnan(run.latency_s)),
        )

    def course(self, run: OfflineRun, warm_up: float) -> Course:
        latency_us = np.round(run.latency_s[self.predicted] * 1e6).astype(np.int64)
        return Course(
            start_us=0,
            sent_us=self.due_us,
            answered_us=self.answered_us,
            due_sent_us=self.due_us[self.answered],
            predicted_us=self.due_us[self.predicted] + latency_us,
            latency_us=latency_us,
            is_warm=self.predicted >= int(warm_up * len(self.due_us)),
        )


def offline_result(
    run: OfflineRun,
    due_us: NDArray[np.int64] | None,
    labels: Labels,
    environment: Environment,
    n_repeated_ids: int = 0,
) -> ReplayResult:
    """Return the figures of an offline run.

    Parameters
    ----------
    run : OfflineRun
        The run.
    due_us : ndarray of int64, shape (n_events,), or None
        When each event was due; None where all were there at once.
    labels : Labels
        What was replayed.
    environment : Environment
        Machine and versions.
    n_repeated_ids : int
        Events that have the id of an earlier one.
    """
    n_events = len(run.latency_s)
    times = _Times.of(run, np.zeros(n_events, np.int64) if due_us is None else due_us)
    course = times.course(run, labels.warm_up)
    measured = latency(course.latency_us[course.is_warm])
    seconds = max(run.seconds, 1e-6)
    stages = tuple(_stage(step_id, run.batches) for step_id in dict.fromkeys(batch.step_id for batch in run.batches))
    return ReplayResult(
        **_labels(labels),
        **flat_latency(measured),
        events=n_events,
        sent=n_events,
        events_per_s=round(n_events / seconds, 1),
        seconds=round(run.seconds, 6),
        max_lag=highest_lag(course),
        mean_batch=mean_batch(stages),
        cache_hit_rate=None,
        cpu_us_per_event=None,
        peak_rss_mb=None,
        predictions=len(run.predictions),
        dead_letters=len(run.dead_letters),
        dead_letter_reasons=dict(Counter(map(_reason, run.dead_letters)).most_common()),
        first_dead_letter=_told(run.dead_letters[0]) if run.dead_letters else "",
        filtered=run.n_filtered,
        missing=n_events - len(run.predictions) - len(run.dead_letters) - run.n_filtered,
        duplicates=0,
        repeated_ids=n_repeated_ids,
        answers_per_s=answers_per_s(course.predicted_us, labels.warm_up, course.start_us),
        append_latency=None,
        consumer_latency=measured,
        latency_curve=latency_curve(course.latency_us[course.is_warm]),
        series=samples(course, None),
        stages=stages,
        environment=environment,
    )


def _reason(letter: dict[str, Any]) -> str:
    return letter_reason(letter["stage"], letter["reason"])


def _told(letter: dict[str, Any]) -> str:
    return f"{event_number(letter['offset'])}, {_reason(letter)}: {letter['detail']}"


def _labels(labels: Labels) -> dict[str, Any]:
    return {
        **labels.keys(),
        "workers": 1,
        "partitions": 1,
        # Virtual time begins here, so that two runs are equal to the last byte.
        "started_at": datetime.fromtimestamp(0, UTC),
        "latency_clock": "virtual",
        "max_send_delay_ms": 0.0,
        "p99_send_delay_ms": 0.0,
    }


def _stage(step_id: str, batches: list[ClosedBatch]) -> StageFigures:
    ours = [batch for batch in batches if batch.step_id == step_id]
    rows = sum(batch.n_rows for batch in ours)
    sizes = Counter(1 << (batch.n_rows - 1).bit_length() for batch in ours)
    return StageFigures(
        step_id=step_id,
        batches=len(ours),
        rows=rows,
        mean_rows=round(rows / len(ours), 2),
        sizes=dict(sorted(sizes.items())),
        close_reasons=dict(Counter(batch.reason for batch in ours)),
        mean_queued_ms=round(sum(batch.queued_s for batch in ours) / len(ours) * 1000, 4),
        mean_service_ms=round(sum(batch.service_s for batch in ours) / len(ours) * 1000, 4),
    )
