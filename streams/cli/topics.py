"""``modelstream topics``: the pipeline's topics, created where they are missing."""

from __future__ import annotations

from pathlib import Path

import click

from modelstream.streams.cli.common import (
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.cluster import Cluster

__all__ = ["command"]


@click.command(
    "topics",
    epilog="""\b
Examples:
  modelstream topics pipeline.yaml --broker localhost:9092
  modelstream topics pipeline.yaml --partitions 12 --replication-factor 3
""",
)
@pipeline_argument
@broker_option
@set_option
@click.option(
    "--partitions", type=click.IntRange(min=1), default=6, show_default=True, help="Partitions of each new topic."
)
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 32_767),
    metavar="N",
    help="Copies of each partition  [default: the cluster's]",
)
def command(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    partitions: int,
    replication_factor: int | None,
) -> None:
    """Create the source, sink and dead-letter topics of PIPELINE where they are missing.

    Topics that are there stay as they are, whatever their number of partitions.
    """
    spec = read_pipeline(pipeline, overrides).spec
    wanted = dict.fromkeys([spec.source.topic, spec.sink.topic, spec.sink.dead_letter], partitions)
    cluster = Cluster(broker_settings(broker, spec.broker))
    there = cluster.partition_counts(wanted)
    created = cluster.create_topics(wanted, replication_factor=replication_factor or -1)
    for topic in wanted:
        is_new = topic in created
        count = partitions if is_new else there[topic]
        click.echo(f"{'created' if is_new else 'exists '}  {topic}  {count} partition{'s' if count != 1 else ''}")
