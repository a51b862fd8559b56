"""The topics that a command or worker needs: are they there, and may it do with them what it is to do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from confluent_kafka.admin import AclOperation

from modelstream.models.errors import ConfigError
from modelstream.streams.cluster import Cluster
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.spec import PipelineSpec

__all__ = ["require_topics", "require_worker_topics"]


def require_topics(
    settings: BrokerSettings,
    spec: PipelineSpec,
    pipeline: Path,
    *,
    reads: Collection[str] = (),
    writes: Collection[str] = (),
    group: str | None = None,
    only: Collection[str] | None = None,
) -> dict[str, int]:
    """Return the numbers of partitions of the pipeline's topics.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    spec : PipelineSpec
        The pipeline.
    pipeline : Path
        Its file, for the advice.
    reads, writes : collection of str
        Paths of the topics that are to be read and written, as ``sink.dead_letter``: the broker must allow it.
    group : str, optional
        The consumer group to read in: the broker must allow that too.
    only : collection of str, optional
        Paths of the topics that must be there; by default all.

    Raises
    ------
    ConfigError
        If a topic does not exist; the engine never leaves that to the broker's defaults.
    BrokerRefused
        If the broker does not let us in, or not do this.
    """
    topics = {
        "source.topic": spec.source.topic,
        "sink.topic": spec.sink.topic,
        "sink.dead_letter": spec.sink.dead_letter,
    }
    uses: dict[str, list[AclOperation]] = {}
    for operation, paths in ((AclOperation.READ, reads), (AclOperation.WRITE, writes)):
        for path in paths:
            uses.setdefault(topics[path], []).append(operation)
    if only is not None:
        topics = {path: topic for path, topic in topics.items() if path in only}
    cluster = Cluster(settings)
    counts = cluster.partition_counts(topics.values())
    cluster.require_access(uses, group)
    for path, topic in topics.items():
        # A login does not see the topics that it has no right to, and need not have one to those it does not use.
        if counts[topic] is None and (topic in uses or not settings.has_login):
            raise ConfigError(
                path,
                f"no topic {topic!r} on {settings.bootstrap}; "
                f"create it, or let `modelstream topics {pipeline}` create all of this pipeline",
            )
    return {topic: count for topic, count in counts.items() if count is not None}


def require_worker_topics(settings: BrokerSettings, spec: PipelineSpec, pipeline: Path) -> dict[str, int]:
    """As `require_topics`, for all that a worker does."""
    return require_topics(
        settings, spec, pipeline, reads=["source.topic"], writes=["sink.topic", "sink.dead_letter"], group=spec.pipeline
    )
