"""What replays of the pipeline as it is tell a prediction: how dear work is on the machine, and what comes on top.

Where a machine is shared, with a broker say, all work takes longer than it does alone; and at a low rate longer still,
because the caches are cold after every wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import orjson

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.costs import Costs, Line
from modelstream.streams.replay.result_keys import stage_specs, work_options
from modelstream.streams.replay.what_if import AtPace, Setting, WhatIf

if TYPE_CHECKING:
    from modelstream.streams.replay.arrivals import Pace
    from modelstream.streams.replay.result import ReplayResult, StageFigures
    from modelstream.streams.spec import PipelineSpec

__all__ = ["Calibration", "calibrate"]

#: A shorter replay is over before librdkafka has filled its queues: at full speed it looks too fast.
_LEAST_MEASURED_S = 0.5

#: What calibration moves depends a little on the rest of it: after so many rounds nothing is left.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the work costs here, and what comes on top of a prediction that goes by it.

    Parameters
    ----------
    paced, full : Costs
        At the pace that is asked about, and at full speed.
    tail_ms : float
        What the measured p99 is beyond the predicted one, where the median is the same: pauses of the machine and of
        the broker, which no cost knows.
    most_per_s : float
        Events a second that the processors of the machine are enough for, whatever the setting.
    """

    paced: Costs
    full: Costs
    tail_ms: float = 0.0
    most_per_s: float = float("inf")

    def what_if(self, setting: Setting, found: AtPace, throughput_per_s: float) -> WhatIf:
        """Return a prediction that was made by `paced`, with the throughput that was predicted by `full`."""
        return WhatIf(
            setting=setting,
            p50_ms=found.p50_ms,
            p99_ms=max(found.p50_ms, found.p99_ms + self.tail_ms),
            throughput_per_s=min(throughput_per_s, self.most_per_s),
            mean_batch=found.mean_batch,
        )


def calibrate(
    costs: Costs,
    at_pace: Callable[[Costs], AtPace],
    at_full_speed: Callable[[Costs], float],
    measured: Sequence[ReplayResult],
    pace: Pace,
    spec: PipelineSpec,
    n_events: int,
) -> Calibration:
    """Return a calibration by which the prediction of one setting comes to what was measured of it.

    * A replay at full speed tells how much longer all work takes there than alone, and what an event costs all
      processors of the machine together: more threads do not give more than that.
    * One at the pace tells, by the service times of its micro-batches, how much longer work takes there. What is left
      of the median is the way through Kafka, and is added to the way out; what is left of the p99 is added to it.

    Parameters
    ----------
    costs : Costs
        As measured in this process.
    at_pace, at_full_speed : callable
        What the setting that was measured would give with some costs, at the pace and at full speed.
    measured : sequence of ReplayResult
        Replays at the setting; none leave the costs as they are.
    pace : Pace
        The arrivals.
    spec : PipelineSpec
        The pipeline.
    n_events : int
        How many arrive.

    Raises
    ------
    ConfigError
        A replay is of something else: more workers than one, another pace or number of events, or a pipeline with other
        stages or options.
    """
    for result in measured:
        _require_same(result, pace, spec, n_events)
    calibration = Calibration(costs, costs)
    # That at full speed first: without service times at the pace, its costs are the better guess there too.
    for result in sorted(measured, key=lambda one: one.arrivals != "max"):
        if result.arrivals == "max":
            calibration = _by_full_speed(calibration, at_full_speed, result)
        else:
            calibration = _by_pace(calibration, at_pace, result)
    return calibration


def _by_full_speed(
    calibration: Calibration, at_full_speed: Callable[[Costs], float], result: ReplayResult
) -> Calibration:
    if not result.full_speed_per_s:
        return calibration
    costs = calibration.full
    for _ in range(_ROUNDS):
        costs = _stretched(costs, at_full_speed(costs) / result.full_speed_per_s)
    most_per_s = float("inf")
    if result.machine_cpu_us_per_event:
        most_per_s = max(result.full_speed_per_s, 1e6 * result.environment.cpus / result.machine_cpu_us_per_event)
    return replace(calibration, paced=costs, full=costs, most_per_s=most_per_s)


def _by_pace(calibration: Calibration, at_pace: Callable[[Costs], AtPace], result: ReplayResult) -> Calibration:
    told = calibration.paced
    factor = _stretch_of(result.stages, told)
    costs = _stretched(told, factor)
    if result.p50_ms is None or result.p99_ms is None:
        return replace(calibration, paced=costs)
    if at_pace(costs).p50_ms > result.p50_ms:
        # A stage that waits, say for a service, takes no longer because caches are cold: leave those without a figure.
        costs = _stretched(told, factor, only={stage.step_id for stage in result.stages})
    for _ in range(_ROUNDS):
        missing_s = (result.p50_ms - at_pace(costs).p50_ms) / 1000
        costs = costs.model_copy(update={"path_out_s": max(0.0, costs.path_out_s + missing_s)})
    return replace(calibration, paced=costs, tail_ms=result.p99_ms - at_pace(costs).p99_ms)


def _stretch_of(stages: Sequence[StageFigures], costs: Costs) -> float:
    """Return by how much longer the micro-batches of stages took than the costs say of batches of their mean size."""
    took_s = told_s = 0.0
    last = [*costs.stages][-1]
    for stage in stages:
        if stage.mean_service_ms and stage.mean_rows:
            took_s += stage.batches * stage.mean_service_ms / 1000
            line = costs.stages[stage.step_id]
            # What follows the last stage counts as a part of its service.
            parts = (line, costs.produce) if stage.step_id == last else (line,)
            told_s += stage.batches * sum(part.fixed_s + part.per_row_s * stage.mean_rows for part in parts)
    return took_s / told_s if told_s else 1.0


def _stretched(costs: Costs, factor: float, only: Collection[str] | None = None) -> Costs:
    """Return costs where all takes longer by a factor; of the stages perhaps some only."""

    def longer(line: Line) -> Line:
        return Line(fixed_s=line.fixed_s * factor, per_row_s=line.per_row_s * factor)

    return costs.model_copy(
        update={
            "stages": {
                step_id: longer(line) if only is None or step_id in only else line
                for step_id, line in costs.stages.items()
            },
            "fetch": longer(costs.fetch),
            "decode": longer(costs.decode),
            "produce": longer(costs.produce),
        }
    )


def _require_same(result: ReplayResult, pace: Pace, spec: PipelineSpec, n_events: int) -> None:
    problem = None
    if result.latency_clock == "virtual":
        problem = "was made without a broker; replay on one"
    elif result.ended_early:
        problem = "was stopped before the end"
    elif result.workers != 1:
        problem = f"is of {result.workers or 'running'} workers; predictions are of one, as replay --workers 1"
    elif result.arrivals != "max" and (result.speed, result.arrivals) != (str(pace), pace.kind):
        problem = (
            f"is at {result.speed}, {result.arrivals}, and asked is {pace}, {pace.kind}; "
            "replay at the same pace, or at full speed"
        )
    # At full speed the rate tells, and that depends little on their number.
    elif result.arrivals != "max" and result.events != n_events:
        problem = f"is of {result.events:,} events, and asked is about {n_events:,}; give both the same --limit"
    elif result.stage_specs is None or result.work_options is None:
        problem = "does not say what its pipeline was; replay again, with this version"
    elif (difference := _difference(result.stage_specs, result.work_options, spec)) is not None:
        problem = f"is of another pipeline: it had {difference}"
    elif result.seconds < _LEAST_MEASURED_S:
        problem = (
            f"took {result.seconds:.2f} s, and less than {_LEAST_MEASURED_S} s tells too little; replay more events"
        )
    if problem is not None:
        raise ConfigError("--measured", f"the replay of {result.file} through {result.pipeline} {problem}")


def _difference(stages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], spec: PipelineSpec) -> str | None:
    """Return where a pipeline that was measured and one that is asked about differ first; None where they do not."""
    for theirs, ours in zip_longest(stages, stage_specs(spec)):
        if theirs != ours:
            return f"{_json(theirs)} where this one has {_json(ours)}"
    for name, ours in work_options(spec).items():
        if options.get(name) != ours:
            return f"{name} {_json(options.get(name))} where this one has {_json(ours)}"
    return None


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
