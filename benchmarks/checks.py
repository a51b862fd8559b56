"""The check behind every figure: each event has one output, and it is what the model says of that row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from benchmarks.cluster import Cluster
from benchmarks.workload import event_number
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from numpy.typing import NDArray

__all__ = ["RunFailed", "check_outputs"]

#: How far a value may be from the model's own answer: matrix products add in another order when there are more rows.
RELATIVE_TOLERANCE = 1e-5


class RunFailed(RuntimeError):
    """A worker that ended, stalled, or brought other outputs than one right one for every event."""


def check_outputs(cluster: Cluster, topic: str, expected: NDArray[np.float32]) -> NDArray[np.int64] | None:
    """Compare all outputs on a topic with the right values.

    Parameters
    ----------
    cluster : Cluster
        Where the topic is.
    topic : str
        The output topic of a worker that has ended.
    expected : ndarray of float32, shape (n_events,)
        For each event, what the model says of it.

    Returns
    -------
    ndarray of int64, shape (n_events,), or None
        When the broker appended the outputs, in milliseconds, sorted. None where it does not stamp records.

    Raises
    ------
    RunFailed
        An output is missing, repeated, wrong, or for an event that was never sent.
    """
    numbers: list[int] = []
    values: list[float] = []
    stamps: list[NDArray[np.int64]] = []
    for messages in cluster.read(topic, len(expected)):
        for message in messages:
            number, value = _parse(message.value())
            numbers.append(number)
            values.append(value)
        stamps.append(np.array([message.timestamp() for message in messages], np.int64))
    _compare(np.array(numbers, np.int64), np.array(values, np.float64), expected)
    times = np.concatenate(stamps)
    return np.sort(times[:, 1]) if (times[:, 0] == TIMESTAMP_LOG_APPEND_TIME).all() else None


def _parse(output: bytes) -> tuple[int, float]:
    """Return the event's number and the value. modelstream's record names model and version, the others' do not."""
    record: dict[str, Any] = orjson.loads(output)
    value = record["value"] if "value" in record else record["predictions"]["mlp"]["value"]
    return event_number(record["event_id"]), value


def _compare(numbers: NDArray[np.int64], values: NDArray[np.float64], expected: NDArray[np.float32]) -> None:
    n = len(expected)
    known = numbers < n
    counts = np.bincount(numbers[known], minlength=n)
    # So put that NaN is off, too.
    off = ~(np.abs(values[known] / expected[numbers[known]] - 1) <= RELATIVE_TOLERANCE)
    found = {
        "lost": (counts == 0).sum(),
        "repeated": (counts[counts > 1] - 1).sum(),
        "wrong": off.sum(),
        "of unknown events": (~known).sum(),
    }
    if any(found.values()):
        raise RunFailed(f"of {n} events: " + ", ".join(f"{count} {what}" for what, count in found.items()))
