"""The flight record: headers of a prediction that tell how it came about, for `modelstream explain`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modelstream.operators.batch import CacheState, EventBatch
from modelstream.operators.microbatch import MicroBatch
from modelstream.streams.headers import Headers

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline

__all__ = ["FLIGHT_PREFIX", "FlightRecorder"]

#: A header for each stage that infers: this and its step id.
FLIGHT_PREFIX = "modelstream.flight."


class FlightRecorder:
    """Notes on every row of a stage's micro-batches how they were computed.

    The record of a stage is a JSON object::

        {"batch": "host-4711-17", "size": 512, "close_reason": "idle", "queue_us": 310, "age_us": 4100,
         "service_us": 950, "models": {"arrival_delay": "1"}, "cache": "memory"}

    ``batch`` is unique per worker process, ``size`` in rows, ``queue_us`` the longest wait of its rows in the batcher,
    ``age_us`` the time since its oldest record was produced, ``service_us`` what the models and the cache took, and
    ``cache`` where the row's answer comes from, a `CacheState`; null in a stage without a cache.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    position : int
        Which of its stages this is.
    """

    def __init__(self, built: BuiltPipeline, position: int) -> None:
        stage = built.stages[position]
        self._step_id = stage.step_id
        infer = built.spec.stages[position].infer
        assert infer is not None
        # What the answers stand under: one model may be there twice, in two versions. Those of stacks come last.
        names = [entry.name for entry in infer.models]
        names += [name for name, ensemble in infer.ensembles.items() if ensemble.model is not None]
        models = getattr(stage.operator, "models", ())
        self._models = {name: model.version for name, model in zip(names, models, strict=True)}
        self._worker = f"{socket.gethostname()}-{os.getpid()}"

    def note(self, events: EventBatch, micro_batch: MicroBatch, service_s: float) -> None:
        """Add the stage's record to the kept rows of a micro-batch."""
        record: dict[str, Any] = {
            "batch": f"{self._worker}-{micro_batch.number}",
            "size": len(micro_batch.events),
            "close_reason": str(micro_batch.reason),
            "queue_us": round(micro_batch.queued_s * 1e6),
            "age_us": round(micro_batch.age_s * 1e6),
            "service_us": round(service_s * 1e6),
            "models": self._models,
            "cache": None,
        }
        states = events.cache_states
        if states is None:
            events.flight[self._step_id] = [orjson.dumps(record)] * len(events)
            return
        by_state = {
            state: orjson.dumps({**record, "cache": CacheState(state).name.lower()})
            for state in np.unique(states).tolist()
        }
        events.flight[self._step_id] = [by_state[state] for state in states.tolist()]
        events.cache_states = None

    @staticmethod
    def headers(events: EventBatch) -> list[Headers]:
        """Return the headers of each row's prediction."""
        names = [f"{FLIGHT_PREFIX}{step_id}" for step_id in events.flight]
        return [list(zip(names, row, strict=True)) for row in zip(*events.flight.values(), strict=True)]
