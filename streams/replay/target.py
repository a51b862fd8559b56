"""What a replay is sent through: topics and workers made for it, or the pipeline's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError
from modelstream.streams.cluster import Cluster
from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.replay.workers import Workers
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.spec import PipelineSpec
from modelstream.streams.worker_process import WorkerFailed

__all__ = ["Target", "live_target", "own_target", "partitions_of"]

#: Partitions of a replay's topic where the pipeline's own is not there to be copied.
_PARTITIONS = 4
#: A worker's exit code where the pipeline, not the run, is wrong.
_EXIT_CONFIG = 2
#: So that the broker's own clock says when a prediction was there.
_STAMPED = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True, slots=True)
class Target:
    """Topics, and the workers between them.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    spec : PipelineSpec
        The pipeline, with the topics and the group that are used.
    partitions : int
        Of the source topic.
    workers : Workers or None
        Those that were started for this replay; None where the pipeline's own do the work.
    next_offsets : ndarray of int64, shape (partitions,)
        Where the partitions of the source topic end, as far as it is this replay's own; kept up by who sends.
    broker_name : str
        What to call the broker in a result.
    environ : mapping of str to str
        Environment of the processes that are started.
    """

    settings: BrokerSettings
    spec: PipelineSpec
    partitions: int
    workers: Workers | None
    next_offsets: NDArray[np.int64]
    broker_name: str
    environ: Mapping[str, str]


def partitions_of(settings: BrokerSettings, topic: str) -> int:
    """Return how many partitions a replay's topic should have: as many as the pipeline's own, or 4."""
    return Cluster(settings).partition_counts([topic])[topic] or _PARTITIONS


@contextmanager
def own_target(
    settings: BrokerSettings,
    pipeline: Path,
    overrides: Sequence[str],
    *,
    partitions: int,
    workers: int,
    worker_options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    broker_name: str | None = None,
) -> Iterator[Target]:
    """Make topics and a group for one replay, start workers on them, and remove all of it at the end.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    pipeline : Path
        The pipeline file.
    overrides : sequence of str
        Values of it to set, as ``--set`` takes them.
    partitions, workers : int
        How many.
    worker_options : sequence of str
        Further options of ``modelstream run``.
    environ : mapping of str to str, optional
        Environment of the workers; that of this process by default.
    broker_name : str, optional
        What to call the broker in a result; its address by default.

    Raises
    ------
    WorkerFailed
        A worker ends, or does not get ready; or, at the end, fails to stop.
    ConfigError
        The pipeline is wrong: a worker refuses it.
    BrokerUnavailable, BrokerRefused
        The broker is away, or does not let us make topics.
    """
    environ = dict(os.environ if environ is None else environ)
    name = f"modelstream-replay-{time.time_ns() // 1_000_000:x}"
    source, sink, dead = topics = [f"{name}.{role}" for role in ("events", "predictions", "dead")]
    own = [f"pipeline={name}", f"source.topic={source}", f"sink.topic={sink}", f"sink.dead_letter={dead}"]
    spec = load_pipeline(pipeline, [*overrides, *own]).spec
    options = [f"--set={override}" for override in (*overrides, *own)]
    arguments = [str(pipeline), "--broker", settings.bootstrap, *options, "--log-level", "warning", *worker_options]
    cluster = Cluster(settings)
    try:
        cluster.create_topics(dict.fromkeys(topics, partitions), config={sink: _STAMPED, dead: _STAMPED})
        with Workers(workers, arguments, environ) as started:
            _wait_until_ready(started, partitions)
            yield Target(
                settings, spec, partitions, started, np.zeros(partitions, np.int64),
                broker_name or settings.bootstrap, environ,
            )  # fmt: skip
            started.stop()
    finally:
        cluster.delete(topics, group=name)


def _wait_until_ready(workers: Workers, partitions: int) -> None:
    try:
        workers.wait_until_ready(partitions)
    except WorkerFailed as error:
        if error.code == _EXIT_CONFIG:
            raise ConfigError("", str(error)) from None
        raise


def live_target(
    settings: BrokerSettings, spec: PipelineSpec, partitions: int, environ: Mapping[str, str] | None = None
) -> Target:
    """Return the pipeline's own topics, and whatever workers read them.

    Events are told from others there by their ids, so `spec` must name a field of them.
    """
    return Target(
        settings, spec, partitions, None, np.zeros(partitions, np.int64), settings.bootstrap,
        dict(os.environ if environ is None else environ),
    )  # fmt: skip
