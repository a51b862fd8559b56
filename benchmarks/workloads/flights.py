"""The flights of examples/flights: real events, of which a function makes 12 features, and three models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from benchmarks.workloads.workload import Kind, Tolerance, open_reference
from numpy.typing import NDArray

from modelstream.examples.flights import data, features
from modelstream.operators.batch import EventBatch

__all__ = ["FLIGHTS_FOLDER", "FlightsWorkload"]

FLIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "examples" / "flights"


class FlightsWorkload:
    """A `Workload` of the flights that left New York in 2013, in their order.

    An output is ``[arrival_delay, late_arrival's label, its score, air_time]``. For a cancelled flight none is due.
    """

    name = "flights"
    kind: Kind = "event"
    width = len(features.FEATURES)
    n_outputs = 4
    #: As the example's own comparison has it: minutes and probabilities come close to zero.
    tolerance = Tolerance(relative=1e-5, absolute=1e-5)
    n_events_max: int | None = data.FLIGHTS

    @cached_property
    def _events(self) -> list[dict[str, Any]]:
        return list(data.read_events())

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {event["id"]: number for number, event in enumerate(self._events)}

    def records(self, n: int) -> Iterator[bytes]:
        """Yield the first `n` flights as JSON."""
        return map(orjson.dumps, islice(self._events, n))

    def event_number(self, identifier: str) -> int:
        """Return which flight of the year an id belongs to, -1 where it is of none."""
        return self._numbers.get(identifier, -1)

    def write_model(self, folder: Path) -> Path:
        """Return the folder of the example's models; they are files of the repository."""
        return FLIGHTS_FOLDER / "models"

    def features(self, n: int) -> NDArray[np.float32]:
        """Return the features of those of the first `n` flights that left, by the example's own function."""
        departed = [self._events[row] for row in self._departed(n)]
        batch = EventBatch.of_events(departed)
        times = [event["scheduled_departure"].removesuffix("Z") for event in departed]
        batch.event_times = np.array(times, "datetime64[ms]")
        return np.asarray(features.departure(batch)["features"], np.float32)

    def expected(self, n: int) -> NDArray[np.float32]:
        """Return what the models say of each of the first `n` flights alone, of shape (n, 4); NaN if cancelled."""
        delay, late, air = (
            open_reference(FLIGHTS_FOLDER / "models" / name / "1" / "model.onnx").run
            for name in ("arrival_delay", "late_arrival", "air_time")
        )
        values = np.full((n, self.n_outputs), np.nan, np.float32)
        # Features are element by element, and so the same beside other rows; the models' sums are not.
        rows = self.features(n)
        for number, i in zip(self._departed(n), range(len(rows)), strict=True):
            row = {"features": rows[i : i + 1]}
            label, probabilities = late(["label", "probabilities"], row)
            said = (delay(["value"], row)[0].item(), label.item(), probabilities[0, 1], air(["value"], row)[0].item())
            values[number] = said
        return values

    def _departed(self, n: int) -> list[int]:
        return [number for number, event in enumerate(islice(self._events, n)) if event["dep_delay"] is not None]
