"""``modelstream explain``: how the predictions of one key or event came about, or why there is none."""

from __future__ import annotations

from heapq import nlargest
from operator import attrgetter
from pathlib import Path

import click
import orjson

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.cli.common import (
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.cli.dlq_text import printable, utc
from modelstream.streams.consuming import mentions, read_topic
from modelstream.streams.dead_letter_json import letter_as_dict
from modelstream.streams.dead_letter_reading import Letter, read_letters
from modelstream.streams.explaining import explanations, where_event_stands
from modelstream.streams.required_topics import require_topics
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.spec import PipelineSpec

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
    """Tell how the predictions of one record key, event id or prediction id came about, or why it has none.

    It reads all of the prediction topic and of the dead-letter topic, and where neither has it, of the source topic, to
    say whether the workers have come to the event at all. The batch, its size, why it was closed, what it
    waited and took, and the cache are told where the pipeline keeps a flight record: sink.flight_record: true.
    """
    spec = read_pipeline(pipeline, overrides).spec
    settings = broker_settings(broker, spec.broker)
    require_topics(settings, spec, pipeline, reads=["sink.topic", "sink.dead_letter"])
    records = read_topic(settings, spec.sink.topic, from_beginning=True, until_end=True)
    every = (explanation for batch in records for explanation in explanations(batch, wanted))
    latest = nlargest(number, every, key=attrgetter("timestamp_ms", "offset"))
    failed = read_letters(settings, spec.sink.dead_letter, redriven=True, is_meant=mentions(wanted))
    letters = nlargest(number, failed, key=attrgetter("written_ms", "place"))
    if not latest and not letters:
        raise ModelStreamError(
            f"{spec.sink.topic} has no prediction with the key, event id or id {wanted!r}, and {spec.sink.dead_letter} "
            f"no dead letter with that key or text{_of_event(settings, spec, wanted)}"
        )
    if as_json:
        told = [*(each.as_dict() for each in reversed(latest)), *map(letter_as_dict, reversed(letters))]
        click.echo(b"\n".join(map(orjson.dumps, told)))
        return
    for explanation in reversed(latest):
        click.echo("\n".join(explanation.lines()))
    for letter in reversed(letters):
        click.echo(_as_text(letter, spec.sink.dead_letter, pipeline))


def _of_event(settings: BrokerSettings, spec: PipelineSpec, wanted: str) -> str:
    try:
        return "; " + where_event_stands(settings, spec.source.topic, spec.pipeline, wanted)
    except BrokerUnavailable:  # whoever may read predictions may not be allowed to read events
        return ""


def _as_text(letter: Letter, topic: str, pipeline: Path) -> str:
    why = printable(f"{letter.reason or '-'}: {letter.detail or '-'}")
    again = ", redriven since" if letter.redriven else ""
    return (
        f"dead letter {letter.place} of {topic}, written {utc(letter.written_ms)}{again}\n"
        f"  stage {printable(letter.stage or '-')}: {why}\n"
        f"  `modelstream dlq show {pipeline} {letter.place}` has the event"
    )
