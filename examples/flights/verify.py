"""Compare predictions with ONNX Runtime run directly on each row alone: no pipeline, no batches, no Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
from numpy.typing import NDArray

from modelstream.examples.flights.features import departure
from modelstream.operators.batch import EventBatch

__all__ = ["compare", "reference"]

_MODELS = Path(__file__).with_name("models")

#: float32 arithmetic in another order of summation, as for another batch size, differs by about this much.
_RELATIVE = 1e-5
#: Relative to values near zero, in minutes or as a probability.
_ABSOLUTE = 1e-5


def _sessions() -> dict[str, ort.InferenceSession]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        name: ort.InferenceSession(_MODELS / name / "1" / "model.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("arrival_delay", "late_arrival", "air_time")
    }


def reference(event: Mapping[str, Any], sessions: Mapping[str, ort.InferenceSession]) -> dict[str, float]:
    """Return what the models say about one event: each number of its prediction by model and field."""
    batch = EventBatch.of_events([dict(event)])
    batch.event_times[:] = np.datetime64(event["scheduled_departure"].removesuffix("Z"), "ms")
    row: NDArray[np.float32] = np.asarray(departure(batch)["features"])
    label, probabilities = sessions["late_arrival"].run(["label", "probabilities"], {"features": row})
    return {
        "arrival_delay.value": float(sessions["arrival_delay"].run(["value"], {"features": row})[0].item()),
        "late_arrival.label": float(label.item()),
        "late_arrival.score": float(probabilities[0, 1]),
        "air_time.value": float(sessions["air_time"].run(["value"], {"features": row})[0].item()),
    }


def compare(
    values: Iterable[bytes], predictions: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> tuple[int, float, list[str]]:
    """Compare every prediction with the reference of its event.

    Parameters
    ----------
    values : iterable of bytes
        The events' JSON.
    predictions : mapping
        ``predictions`` of each prediction record, by event id.

    Returns
    -------
    n_compared : int
        How many events with a prediction there were.
    worst : float
        The largest difference, relative to the larger of the reference and one.
    differing : list of str
        Ids of the events that differ by more than 1e-5.
    """
    sessions = _sessions()
    n_compared, worst, differing = 0, 0.0, []
    for value in values:
        event = orjson.loads(value)
        prediction = predictions.get(event["id"])
        if prediction is None:
            continue
        expected = reference(event, sessions)
        found = {
            f"{name}.{field}": x for name, said in prediction.items() for field, x in said.items() if field != "version"
        }
        n_compared += 1
        error = max(abs(found[name] - x) / max(abs(x), 1.0) for name, x in expected.items())
        worst = max(worst, error)
        same = all(abs(found[name] - x) <= _RELATIVE * abs(x) + _ABSOLUTE for name, x in expected.items())
        if not same or found.keys() != expected.keys():
            differing.append(event["id"])
    return n_compared, worst, differing
