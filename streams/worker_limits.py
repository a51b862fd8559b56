"""What limits and threads a pipeline gives its worker, be that a process or one under a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from modelstream.streams.settings import EngineLimits

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline
    from modelstream.streams.spec import PipelineSpec

__all__ = ["ROUND_TRIP_S", "downstream_s", "limits_of", "pool_threads"]

#: What a broker and a consumer add to the producer's linger before a prediction is seen: Kafka's own round trip.
ROUND_TRIP_S = 0.002

# How long events are gathered before the fetch, and predictions in the producer, where a stage has a target for its
# latency: as short as pays.
_TARGET_GATHER_MS = 2.0
_TARGET_LINGER_MS = 0.5


def limits_of(spec: PipelineSpec, limits: EngineLimits | None = None) -> EngineLimits:
    """Return the limits of a worker of a pipeline, made of the default ones or of others."""
    limits = limits or EngineLimits()
    if any(stage.infer and stage.infer.batch.target_p99_ms is not None for stage in spec.stages):
        limits = replace(
            limits,
            gather_ms=min(limits.gather_ms, _TARGET_GATHER_MS),
            linger_ms=min(limits.linger_ms, _TARGET_LINGER_MS),
        )
    if spec.transaction_interval_ms is not None:
        limits = replace(limits, transaction_interval_ms=spec.transaction_interval_ms)
    return limits


def downstream_s(limits: EngineLimits) -> float:
    """Return what a prediction takes from the producer to its consumer: the linger, and a round trip to the broker."""
    return limits.linger_ms / 1000 + ROUND_TRIP_S


def pool_threads(built: BuiltPipeline) -> int:
    """Return how many threads compute beside the data thread; 0 where no stage has several batches in flight."""
    in_flight = [stage.infer.batch.in_flight for stage in built.spec.stages if stage.infer]
    return min(sum(n for n in in_flight if n > 1), built.threads)
