"""``modelstream consume``: predictions, or dead letters, as NDJSON."""

from __future__ import annotations

import io
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import click
import orjson
from confluent_kafka import Message

from modelstream.streams.cli.common import (
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.consuming import as_ndjson, read_topic
from modelstream.streams.dead_letter_json import describe_dead_letter
from modelstream.streams.dead_letter_reading import is_marker
from modelstream.streams.required_topics import require_topics
from modelstream.streams.wording import counted

__all__ = ["command"]


@click.command(
    "consume",
    epilog="""\b
Examples:
  modelstream consume pipeline.yaml --broker localhost:9092
  modelstream consume pipeline.yaml --from-beginning --until-end > predictions.ndjson
  modelstream consume pipeline.yaml --from-beginning -n 10 | jq .predictions
  modelstream consume pipeline.yaml --dead-letters --from-beginning --until-end
""",
)
@pipeline_argument
@broker_option
@set_option
@click.option("-n", "--number", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record, not with new ones.")
@click.option("--until-end", is_flag=True, help="Stop where the topic ended when this command started.")
@click.option("--follow", is_flag=True, help="Go on with new records; so it is without --until-end and -n.")
@click.option("--dead-letters", is_flag=True, help="Print dead letters, with reason and origin, not predictions.")
@click.option(
    "--group", metavar="GROUP", help="Start where this consumer group stands, and commit for it what was printed."
)
def command(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    number: int | None,
    from_beginning: bool,
    until_end: bool,
    follow: bool,
    dead_letters: bool,
    group: str | None,
) -> None:
    """Print the predictions of PIPELINE on standard output, one JSON object a line, as they come.

    Without options it prints new predictions until Ctrl-C. Nothing else goes to standard output.
    """
    if follow and until_end:
        raise click.UsageError("--follow and --until-end exclude each other.")
    if until_end and not from_beginning and group is None:
        raise click.UsageError("--until-end alone would print nothing; add --from-beginning, or --group GROUP.")
    spec = read_pipeline(pipeline, overrides).spec
    topic = spec.sink.dead_letter if dead_letters else spec.sink.topic
    settings = broker_settings(broker, spec.broker)
    read = "sink.dead_letter" if dead_letters else "sink.topic"
    require_topics(settings, spec, pipeline, reads=[read], group=group)
    what = "dead letter" if dead_letters else "prediction"
    endless = number is None and not until_end
    output = sys.stdout.buffer
    encode = _dead_letters_as_ndjson if dead_letters else as_ndjson
    n_printed = 0

    def say_start() -> None:
        if endless:
            click.echo(f"waiting for {what}s of {topic} on {settings.bootstrap}; Ctrl-C ends", err=True)

    reader_has_gone = _reader_has_gone(output)
    try:
        for batch in read_topic(
            settings,
            topic,
            from_beginning=from_beginning,
            until_end=until_end,
            stop=reader_has_gone,
            limit=number,
            group=group,
            on_start=say_start,
        ):
            records = [record for record in batch if not is_marker(record)] if dead_letters else batch
            n_printed += len(records)  # before they are to be seen: Ctrl-C may follow at once
            output.write(encode(records))
            output.flush()
    except KeyboardInterrupt:
        if not endless:
            raise
    if not reader_has_gone():
        click.echo(f"{counted(n_printed, what)} of {topic}", err=True)


def _dead_letters_as_ndjson(batch: list[Message]) -> bytes:
    return b"".join(orjson.dumps(describe_dead_letter(message), option=orjson.OPT_APPEND_NEWLINE) for message in batch)


def _reader_has_gone(output: BinaryIO) -> Callable[[], bool]:
    """Return a function that says whether nobody reads a pipe any more, as after `| head`.

    A write would say so too, but the next one may be hours away.
    """
    try:
        poller = select.poll()
        poller.register(output.fileno(), 0)  # errors are always told
    except (io.UnsupportedOperation, AttributeError):
        return lambda: False
    return lambda: bool(poller.poll(0))
