"""Keys of a result that replays on a broker and offline have from the same values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstream.streams.replay.arrivals import Pace, Schedule
from modelstream.streams.replay.result import Latency, StageFigures

if TYPE_CHECKING:
    from modelstream.streams.spec import PipelineSpec

__all__ = ["Labels", "flat_latency", "mean_batch", "stage_specs", "work_options"]


@dataclass(frozen=True, slots=True)
class Labels:
    """What a result says of its replay besides figures; see `ReplayResult`."""

    pipeline: str
    file: str
    pace: Pace
    warm_up: float
    schedule: Schedule | None = None

    def keys(self) -> dict[str, Any]:
        """Return it by the result's keys."""
        pace = self.pace
        return {
            "pipeline": self.pipeline,
            "file": self.file,
            "speed": str(pace),
            "arrivals": pace.kind,
            "seed": pace.seed if pace.kind == "poisson" else None,
            "warm_up": self.warm_up,
            "clamped_events": self.schedule.n_clamped if self.schedule else 0,
            "max_clamped_ms": self.schedule.max_clamped_us / 1000 if self.schedule else 0.0,
        }


def stage_specs(spec: PipelineSpec) -> tuple[dict[str, Any], ...]:
    """Return what a pipeline's file says of its stages."""
    return tuple(stage.model_dump(mode="json", by_alias=True, exclude_defaults=True) for stage in spec.stages)


def work_options(spec: PipelineSpec) -> dict[str, Any]:
    """Return what else of a pipeline's file changes what an event takes, by its path; not where it is from or goes."""
    source = spec.source.model_dump(mode="json", exclude={"topic", "on_gap"})
    return {
        "threads": spec.threads,
        "delivery": spec.delivery,
        "transaction_interval_ms": spec.transaction_interval_ms,
        **{f"source.{name}": value for name, value in source.items()},
        "sink.flight_record": spec.sink.flight_record,
    }


def flat_latency(measured: Latency | None) -> dict[str, Any]:
    """Return the percentiles by the result's own keys."""
    names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
    return {name: None if measured is None else getattr(measured, name) for name in names}


def mean_batch(stages: Sequence[StageFigures]) -> float | None:
    """Return the rows of a micro-batch over all stages; None where there was none."""
    batches = sum(stage.batches for stage in stages)
    return round(sum(stage.rows for stage in stages) / batches, 2) if batches else None
