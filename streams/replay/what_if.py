"""What latency and throughput other settings would give: the worker's own batcher under a virtual clock, no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch, Lineage
from modelstream.streams.build import BuiltPipeline, BuiltStage
from modelstream.streams.infer_spec import BatchSpec
from modelstream.streams.replay.costs import Costs
from modelstream.streams.replay.figures import answers_per_s
from modelstream.streams.replay.offline import run_offline
from modelstream.streams.replay.result import full_speed
from modelstream.streams.spec import Threads, validated
from modelstream.streams.spec_types import Spec
from modelstream.streams.worker_limits import limits_of

__all__ = ["SETTINGS", "AtPace", "WhatIf", "at_full_speed", "at_pace", "grid", "with_setting"]

#: What can be asked about: keys of ``infer.batch``, and the pipeline's ``threads``.
SETTINGS = ("max_size", "max_wait_ms", "target_p99_ms", "in_flight", "threads")

#: More are more than anybody reads, and take minutes.
_MOST_SETTINGS = 64

#: As in a replay: what the first events meet is not steady.
_WARM_UP = 0.25
#: Rows that are run at once for the throughput: some dozens of the largest micro-batches.
_FULL_SPEED_ROWS = 65_536

_NOTHING: dict[str, Any] = {}

#: A setting: names of `SETTINGS` with their values.
Setting = Mapping[str, float | None]


class _ThreadsSpec(Spec):
    threads: Threads | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one setting would give.

    Parameters
    ----------
    setting : mapping of str to float or None
        What is set otherwise.
    p50_ms, p99_ms : float
        From an event's due time to its prediction, the first quarter of the events left out.
    throughput_per_s : float
        Events a second where all are there at once: `ReplayResult.full_speed_per_s` of a replay.
    mean_batch : float
        Rows of a micro-batch, at the arrivals given.
    """

    setting: Setting
    p50_ms: float
    p99_ms: float
    throughput_per_s: float
    mean_batch: float


def grid(choices: Mapping[str, Sequence[float | None]]) -> list[Setting]:
    """Return every combination of choices.

    Raises
    ------
    ConfigError
        A name is unknown, or there are too many.

    Examples
    --------
    >>> grid({"max_size": [64, 256], "max_wait_ms": [0]})
    [{'max_size': 64, 'max_wait_ms': 0}, {'max_size': 256, 'max_wait_ms': 0}]
    """
    for name in choices:
        if name not in SETTINGS:
            raise ConfigError(name, f"is no setting that can be asked about; known here: {', '.join(SETTINGS)}")
    settings: list[Setting] = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    if len(settings) > _MOST_SETTINGS:
        raise ConfigError("", f"{len(settings)} settings are too many; ask about {_MOST_SETTINGS} at once")
    return settings


class AtPace(NamedTuple):
    """What a setting would give at the arrivals that are asked about; names are those of `WhatIf`."""

    p50_ms: float
    p99_ms: float
    mean_batch: float


def at_pace(
    built: BuiltPipeline,
    values: Sequence[bytes | None],
    due_us: NDArray[np.int64] | None,
    setting: Setting,
    costs: Costs,
) -> AtPace:
    """Return what a setting would give with one worker at the arrivals.

    Nothing is decoded or computed: time goes by as the costs say, and batches are closed by the worker's batcher. So
    every event is taken to be predicted.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    values : sequence of bytes or None
        Its records.
    due_us : ndarray of int64, shape (n_events,), or None
        When each comes; None where all are there at once.
    setting : mapping of str to float or None
        What is set otherwise; None takes a key away.
    costs : Costs
        What the work takes.
    """
    other = with_setting(built, setting)
    linger_ms = limits_of(other.spec).linger_ms
    if linger_ms != limits_of(built.spec).linger_ms:
        # The setting brings another linger with it; otherwise the costs know it better.
        costs = costs.model_copy(update={"linger_s": linger_ms / 1000})
    run = run_offline(_hollow(other), values, [None] * len(values), due_us, costs)
    warm_s = run.latency_s[int(_WARM_UP * len(values)) :]
    p50_ms, p99_ms = np.percentile(warm_s * 1000, [50, 99]).tolist() if len(warm_s) else (0.0, 0.0)
    rows = [batch.n_rows for batch in run.batches]
    return AtPace(p50_ms, p99_ms, sum(rows) / len(rows) if rows else 0.0)


def at_full_speed(built: BuiltPipeline, values: Sequence[bytes | None], setting: Setting, costs: Costs) -> float:
    """Return the events a second that a setting would give where all are there at once; parameters as of `at_pace`."""
    many = [values[i % len(values)] for i in range(_FULL_SPEED_ROWS)] if len(values) else []
    run = run_offline(_hollow(with_setting(built, setting)), many, [None] * len(many), None, costs)
    # Of events that were filtered there is no time.
    answered_us = np.round(run.answered_s[~np.isnan(run.answered_s)] * 1e6).astype(np.int64)
    whole_per_s = len(many) / run.seconds if run.seconds else float("inf")
    return full_speed(answers_per_s(answered_us, _WARM_UP, 0), len(answered_us), len(many), whole_per_s)


def with_setting(built: BuiltPipeline, setting: Setting) -> BuiltPipeline:
    """Return a pipeline with another setting of all its stages that infer.

    Raises
    ------
    ConfigError
        A value is none that the pipeline file could have.
    """
    keys: dict[str, Any] = {
        name: int(value) if value is not None and value == int(value) else value for name, value in setting.items()
    }
    threads = validated(_ThreadsSpec, {"threads": keys.pop("threads", built.spec.threads)}).threads
    stages = []
    for stage in built.spec.stages:
        if stage.infer is not None:
            said = stage.infer.batch.model_dump(exclude_unset=True) | keys
            batch = validated(BatchSpec, {name: value for name, value in said.items() if value is not None}, "batch")
            stage = stage.model_copy(update={"infer": stage.infer.model_copy(update={"batch": batch})})
        stages.append(stage)
    return replace(built, spec=built.spec.model_copy(update={"stages": tuple(stages), "threads": threads}))


def _hollow(built: BuiltPipeline) -> BuiltPipeline:
    """Return a pipeline that does nothing with its events but count them."""
    sink = built.spec.sink.model_copy(update={"flight_record": False})
    return replace(
        built,
        spec=built.spec.model_copy(update={"sink": sink}),
        codec=_HollowCodec(),  # type: ignore[arg-type]
        stages=tuple(BuiltStage(stage.step_id, _HollowOperator(stage.step_id)) for stage in built.stages),
        encoder=_HollowEncoder(),  # type: ignore[arg-type]
    )


class _HollowCodec:
    def decode(
        self,
        values: Sequence[bytes | None],
        keys: list[bytes | None],
        timestamps_ms: NDArray[np.int64],
        default_ids: object = None,
        lineage: Lineage | None = None,
        default_times_ms: object = None,
        priorities: NDArray[np.int8] | None = None,
    ) -> EventBatch:
        n_rows = len(values)
        return EventBatch(
            keys=keys,
            ids=[""] * n_rows,
            event_times=timestamps_ms.view("datetime64[ms]"),
            events=[_NOTHING] * n_rows,
            lineage=Lineage.of_source(None, n_rows) if lineage is None else lineage,
            record_times=timestamps_ms,
            n_bytes=np.fromiter((len(value or b"") for value in values), np.int64, n_rows),
            priorities=priorities,
        )


@dataclass(frozen=True, slots=True)
class _HollowOperator:
    step_id: str

    def __call__(self, batch: EventBatch) -> EventBatch:
        return batch


class _HollowEncoder:
    def encode(self, batch: EventBatch) -> list[str]:
        return [""] * len(batch)
