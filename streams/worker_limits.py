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

# Of a target for the latency, what gathering before a fetch may take, and in the producer again: together a tenth, so
# that the rest is left for Kafka's ways, for the models, and for a moment's queue.
_GATHERED_SHARE = 0.05
# A fetch, its work and its wakes of threads take this long: less of a pause changes nothing but the CPU that it costs.
_LEAST_PAUSE_MS = 0.5

# Calls that time out one after the other, each of a part of the batch, or transactions, until rows are finished again.
_WAITS_PER_STALL = 3


def limits_of(spec: PipelineSpec, limits: EngineLimits | None = None) -> EngineLimits:
    """Return the limits of a worker of a pipeline, made of the default ones or of others.

    A target for the latency says what a quick answer is worth: the tighter it is, the more CPU goes into smaller
    batches. The tightest of all stages counts. And rows that wait as long as the pipeline lets them are not stalled.
    """
    limits = limits or EngineLimits()
    infers = [stage.infer for stage in spec.stages if stage.infer]
    targets_ms = [infer.batch.target_p99_ms for infer in infers if infer.batch.target_p99_ms is not None]
    if targets_ms:
        pause_ms = max(_GATHERED_SHARE * min(targets_ms), _LEAST_PAUSE_MS)
        limits = replace(limits, gather_ms=min(limits.gather_ms, pause_ms), linger_ms=min(limits.linger_ms, pause_ms))
    if spec.transaction_interval_ms is not None:
        limits = replace(limits, transaction_interval_ms=spec.transaction_interval_ms)
    waits_ms = [infer.timeout_ms or 0.0 for infer in infers]
    if spec.delivery == "exactly_once":
        waits_ms.append(limits.transaction_interval_ms)
    longest_s = max(waits_ms, default=0.0) / 1000
    return replace(limits, stall_timeout_s=max(limits.stall_timeout_s, _WAITS_PER_STALL * longest_s))


def downstream_s(limits: EngineLimits) -> float:
    """Return what a prediction takes from the producer to its consumer: the linger, and a round trip to the broker."""
    return limits.linger_ms / 1000 + ROUND_TRIP_S


def pool_threads(built: BuiltPipeline) -> int:
    """Return how many threads compute beside the data thread; 0 where no stage has several batches in flight."""
    in_flight = [stage.infer.batch.in_flight for stage in built.spec.stages if stage.infer]
    return min(sum(n for n in in_flight if n > 1), built.threads)
