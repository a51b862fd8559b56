"""The check behind every figure: each event has one output, and it is what the model says of that row alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
from benchmarks.cluster import Cluster
from benchmarks.workloads.workload import Tolerance, Workload, values_of
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from numpy.typing import NDArray

__all__ = ["Outputs", "RunFailed", "check_outputs", "n_due"]


class RunFailed(RuntimeError):
    """A worker that ended, stalled, or brought other outputs than one right one for every event."""


@dataclass(frozen=True)
class Outputs:
    """Right outputs, as they stand on their topic.

    Parameters
    ----------
    numbers : ndarray of int64, shape (n_due,)
        Of which event each is.
    append_ms : ndarray of int64, shape (n_due,), or None
        When the broker appended each, in milliseconds since 1970; None where it does not stamp records.
    """

    numbers: NDArray[np.int64]
    append_ms: NDArray[np.int64] | None


def check_outputs(cluster: Cluster, topic: str, workload: Workload, expected: NDArray[np.float32]) -> Outputs:
    """Compare all outputs on a topic with the right values.

    Parameters
    ----------
    cluster : Cluster
        Where the topic is.
    topic : str
        The output topic of a worker that has ended.
    workload : Workload
        What the events are, and how exact their outputs must be.
    expected : ndarray of float32, shape (n_events, n_outputs)
        For each event, what the model says of it; NaN where no output is due.

    Returns
    -------
    Outputs
        All of them.

    Raises
    ------
    RunFailed
        An output is missing, repeated, wrong, or for an event that was never sent, or for which none is due.
    """
    numbers: list[int] = []
    values: list[list[float]] = []
    stamps: list[NDArray[np.int64]] = []
    for messages in cluster.read(topic, n_due(expected)):
        for message in messages:
            output = orjson.loads(message.value())
            numbers.append(workload.event_number(output["event_id"]))
            values.append(values_of(output))
        stamps.append(np.array([message.timestamp() for message in messages], np.int64))
    outputs = np.array(numbers, np.int64)
    _compare(outputs, np.array(values, np.float64), expected, workload.tolerance)
    times = np.concatenate(stamps)
    return Outputs(outputs, times[:, 1] if (times[:, 0] == TIMESTAMP_LOG_APPEND_TIME).all() else None)


def n_due(expected: NDArray[np.float32]) -> int:
    """Return for how many events an output is due."""
    return int((~np.isnan(expected[:, 0])).sum())


def _compare(
    numbers: NDArray[np.int64], values: NDArray[np.float64], expected: NDArray[np.float32], tolerance: Tolerance
) -> None:
    is_due = ~np.isnan(expected[:, 0])
    n = len(expected)
    known = (numbers >= 0) & (numbers < n)
    counts = np.bincount(numbers[known], minlength=n)
    right = expected[numbers[known]].astype(np.float64)
    # So put that NaN is off, too.
    off = ~(np.abs(values[known] - right) <= tolerance.relative * np.abs(right) + tolerance.absolute).all(axis=1)
    found = {
        "lost": (counts[is_due] == 0).sum(),
        "repeated": (counts[counts > 1] - 1).sum(),
        "wrong": (off & is_due[numbers[known]]).sum(),
        "not due": (counts[~is_due] > 0).sum(),
        "of unknown events": (~known).sum(),
    }
    if any(found.values()):
        raise RunFailed(f"of {n} events: " + ", ".join(f"{count} {what}" for what, count in found.items()))
