"""From what a replay left behind to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from modelstream.models.errors import ModelStreamError
from modelstream.models.threads import cpu_budget
from modelstream.operators.cache_counters import CacheCounters
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.figures import (
    Course,
    answers_per_s,
    highest_lag,
    latency,
    latency_curve,
    samples,
)
from modelstream.streams.replay.matching import UNKNOWN, Matcher
from modelstream.streams.replay.result import ReplayResult, ending
from modelstream.streams.replay.result_keys import Labels, flat_latency, mean_batch, stage_specs, work_options
from modelstream.streams.replay.session import Observation
from modelstream.streams.replay.target import Target
from modelstream.streams.replay.workers import count_of, stage_figures
from modelstream.streams.stage_spec import RulesSpec, StageSpec

__all__ = ["sum_up"]


@dataclass(frozen=True, slots=True)
class _Answered:
    """The events that have a prediction, each with its first one."""

    positions: NDArray[np.int64]
    came_us: NDArray[np.int64]
    appended_us: NDArray[np.int64] | None
    n_predictions: int
    n_duplicates: int
    n_repeated_ids: int


def sum_up(observation: Observation, target: Target, labels: Labels) -> ReplayResult:
    """Return the result of a replay."""
    seen = observation
    answered = _answered(seen, is_own=target.workers is not None)
    letters = seen.letters.answered(seen.intended_us)
    filtered, n_answered = _filtered(seen, target), len(answered.positions) + len(letters[0])
    all_sent = _sent_figures(seen, filtered, n_answered)
    if isinstance(seen.ended_by, ModelStreamError):
        seen = _until_the_last_answer(seen, np.concatenate([answered.positions, letters[0]]))
    is_warm = answered.positions >= int(labels.warm_up * len(seen.sent_us))
    course = _course(seen, answered, letters, is_warm)
    stages = stage_figures(seen.stats_after, seen.stats_before)
    missing = _missing(seen, filtered, n_answered)
    return ReplayResult(
        **_what_was_replayed(target, labels),
        **_pace_figures(seen, course, missing or 0),
        **_latency_figures(seen, answered, course),
        max_lag=highest_lag(course),
        mean_batch=mean_batch(stages),
        cache_hit_rate=_hit_rate([stage.cache for stage in stages if stage.cache is not None]),
        **_cpu_figures(seen, course),
        peak_rss_mb=round(int(seen.usage.rss_bytes.max()) / 1e6, 1) if seen.usage else None,
        predictions=answered.n_predictions,
        dead_letters=len(letters[0]),
        dead_letter_reasons=dict(seen.letters.reasons.most_common()),
        first_dead_letter=seen.letters.first,
        filtered=filtered,
        missing=missing,
        **all_sent,
        duplicates=answered.n_duplicates,
        repeated_ids=answered.n_repeated_ids,
        answers_per_s=answers_per_s(course.predicted_us, labels.warm_up, course.start_us),
        **ending(seen.ended_by),
        started_at=datetime.fromtimestamp(seen.start_us / 1e6, UTC),
        series=samples(course, seen.usage),
        stages=stages,
    )


def _until_the_last_answer(seen: Observation, answered: NDArray[np.int64]) -> Observation:
    """Leave out what was sent after that: to a worker or broker that had failed."""
    n = int(answered.max(initial=-1)) + 1
    sent_us = seen.sent_us[:n]
    return replace(seen, intended_us=seen.intended_us[:n], sent_us=sent_us, id_hashes=seen.id_hashes[:n], moved_us=0)


def _course(
    seen: Observation,
    answered: _Answered,
    letters: tuple[NDArray[np.int64], NDArray[np.int64]],
    is_warm: NDArray[np.bool_],
) -> Course:
    letters_at, letters_us = letters
    clock_us = answered.came_us if answered.appended_us is None else answered.appended_us
    return Course(
        start_us=seen.start_us,
        sent_us=seen.sent_us,
        answered_us=np.concatenate([clock_us, letters_us]),
        due_sent_us=seen.sent_us[np.concatenate([answered.positions, letters_at])],
        predicted_us=clock_us,
        # Less than a millisecond is cut off where the broker stamps; an answer never comes before its event.
        latency_us=np.maximum(clock_us - seen.intended_us[answered.positions], 0),
        is_warm=is_warm,
        moved_us=seen.moved_us,
    )


def _what_was_replayed(target: Target, labels: Labels) -> dict[str, Any]:
    return {
        **labels.keys(),
        "stage_specs": stage_specs(target.spec),
        "work_options": work_options(target.spec),
        "workers": None if target.workers is None else len(target.workers),
        "partitions": target.partitions,
        "environment": describe_environment(target.broker_name),
    }


def _pace_figures(seen: Observation, course: Course, n_missing: int) -> dict[str, Any]:
    n_sent = len(seen.sent_us)
    first_us = int(seen.sent_us[0]) if n_sent else seen.start_us
    seconds = max(course.end_us - first_us, 1) / 1e6
    delay_ms = (seen.sent_us - seen.intended_us) / 1000 if n_sent else np.zeros(1)
    return {
        "events": n_sent,
        "seconds": round(seconds, 6),
        "events_per_s": round((n_sent - n_missing) / seconds, 1),
        "max_send_delay_ms": round(float(delay_ms.max()), 3),
        "p99_send_delay_ms": round(float(np.percentile(delay_ms, 99)), 3),
    }


def _latency_figures(seen: Observation, answered: _Answered, course: Course) -> dict[str, Any]:
    by_append = answered.appended_us is not None
    measured = latency(course.latency_us[course.is_warm])
    return {
        **flat_latency(measured),
        "latency_clock": "log_append_time" if by_append else "consumer",
        "append_latency": measured if by_append else None,
        "consumer_latency": latency((answered.came_us - seen.intended_us[answered.positions])[course.is_warm]),
        "latency_curve": latency_curve(course.latency_us[course.is_warm]),
    }


def _answered(seen: Observation, *, is_own: bool) -> _Answered:
    hashes, came_us, appended_us = seen.answers.hashes(), seen.answers.came_us(), seen.answers.appended_us()
    matcher = Matcher(seen.id_hashes)
    positions = matcher.match(hashes)
    is_first = positions != UNKNOWN
    # On topics of the replay's own nobody else writes; on others', what answers none of these events is none of ours.
    n_predictions = len(hashes) if is_own else int(np.isin(hashes, seen.id_hashes).sum())
    return _Answered(
        positions=positions[is_first],
        came_us=came_us[is_first],
        appended_us=None if appended_us is None else appended_us[is_first],
        n_predictions=n_predictions,
        n_duplicates=n_predictions - int(is_first.sum()),
        n_repeated_ids=matcher.n_repeated,
    )


def _filtered(seen: Observation, target: Target) -> int | None:
    if target.workers is not None and seen.stats_after:
        return count_of("filtered", seen.stats_after, seen.stats_before)
    return None if any(map(_may_filter, target.spec.stages)) else 0


def _may_filter(stage: StageSpec) -> bool:
    by_rules = stage.rules.keep is not None if isinstance(stage.rules, RulesSpec) else stage.rules is not None
    return stage.filter is not None or by_rules


def _missing(seen: Observation, filtered: int | None, n_answered: int) -> int | None:
    if filtered is None or seen.ended_by is not None:
        return None
    return max(len(seen.sent_us) - n_answered - filtered, 0)


def _sent_figures(seen: Observation, filtered: int | None, n_answered: int) -> dict[str, Any]:
    n_sent = len(seen.sent_us)
    n_open = max(n_sent - n_answered - (filtered or 0), 0)
    return {"sent": n_sent, "unanswered": None if seen.ended_by is None else n_open}


def _hit_rate(caches: Sequence[CacheCounters]) -> float | None:
    answered = sum(cache.hits + cache.duplicates + cache.coalesced for cache in caches)
    rows = answered + sum(cache.misses + cache.bypassed for cache in caches)
    return round(answered / rows, 6) if rows else None


def _cpu_figures(seen: Observation, course: Course) -> dict[str, Any]:
    if seen.usage is None or not len(seen.sent_us):
        return {"cpu_us_per_event": None}
    start_us, end_us, n_events = seen.start_us, course.end_us, len(seen.sent_us)
    found: dict[str, Any] = {"cpu_us_per_event": seen.usage.cpu_between_s(start_us, end_us) / n_events * 1e6}
    # With a share of the machine, in a container say, what others use there tells nothing of the processors here.
    if cpu_budget() == psutil.cpu_count():
        machine_cpu_s = seen.usage.machine_cpu_between_s(start_us, end_us)
        found["machine_cpu_us_per_event"] = machine_cpu_s / n_events * 1e6
    return {name: round(figure, 3) for name, figure in found.items()}
