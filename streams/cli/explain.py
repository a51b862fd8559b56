"""``modelstream explain``: how the predictions of one key or event came about."""

from __future__ import annotations

from heapq import nlargest
from operator import attrgetter
from pathlib import Path

import click
import orjson

from modelstream.models.errors import ModelStreamError
from modelstream.streams.cli.common import (
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    require_topics,
    set_option,
)
from modelstream.streams.consuming import read_topic
from modelstream.streams.explaining import explanations

__all__ = ["command"]


@click.command(
    "explain",
    epilog="""\b
Examples:
  modelstream explain pipeline.yaml N14228
  modelstream explain pipeline.yaml 3f9c0d4e5b6a79881726354453627180 --json
""",
)
@pipeline_argument
@click.argument("wanted", metavar="KEY_OR_ID")
@broker_option
@set_option
@click.option("-n", "--number", type=click.IntRange(min=1), default=10, show_default=True, help="The latest N of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    pipeline: Path, wanted: str, broker: str | None, overrides: tuple[str, ...], number: int, as_json: bool
) -> None:
    """Tell how the predictions of one record key, event id or prediction id came about.

    It reads the whole prediction topic. The batch, its size, why it was closed, what it waited and took, and the cache
    are told where the pipeline keeps a flight record: sink.flight_record: true.
    """
    spec = read_pipeline(pipeline, overrides).spec
    settings = broker_settings(broker, spec.broker)
    require_topics(settings, spec, pipeline, reads=["sink.topic"])
    records = read_topic(settings, spec.sink.topic, from_beginning=True, until_end=True)
    every = (explanation for batch in records for explanation in explanations(batch, wanted))
    latest = nlargest(number, every, key=attrgetter("timestamp_ms", "offset"))
    if not latest:
        raise ModelStreamError(
            f"{spec.sink.topic} has no prediction with the key, event id or id {wanted!r}; "
            f"if it became a dead letter, `modelstream dlq list {pipeline} --key KEY` has it"
        )
    for explanation in reversed(latest):
        if as_json:
            click.echo(orjson.dumps(explanation.as_dict()))
        else:
            click.echo("\n".join(explanation.lines()))
