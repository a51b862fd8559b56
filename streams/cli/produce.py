"""``modelstream produce``: events of a file to the pipeline's input topic."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import get_args

import click

from modelstream.streams.cli.as_is import as_is_option
from modelstream.streams.cli.common import (
    RateType,
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.cli.progress import rounded_rate, show_progress
from modelstream.streams.event_files import EventFile, FileFormat, KeyWatch, Record, open_events
from modelstream.streams.producing import produce_records
from modelstream.streams.required_topics import require_topics
from modelstream.streams.settings import BrokerSettings

__all__ = ["command"]


@click.command(
    "produce",
    epilog="""\b
Examples:
  modelstream produce pipeline.yaml events.ndjson --broker localhost:9092
  modelstream produce pipeline.yaml flights.csv.gz --rate 5000/s
  modelstream produce pipeline.yaml flights.parquet --limit 1000
  tail -f events.ndjson | modelstream produce pipeline.yaml -
""",
)
@pipeline_argument
@click.argument("file")
@broker_option
@set_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(get_args(FileFormat)),
    help="What FILE holds  [default: what its suffix says]",
)
@click.option("--rate", type=RateType(), metavar="N/s", help="Events per second  [default: as fast as possible]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")
@as_is_option
@click.option("--no-progress", is_flag=True, help="Show only the last line.")
def command(
    pipeline: Path,
    file: str,
    broker: str | None,
    overrides: tuple[str, ...],
    file_format: FileFormat | None,
    rate: float | None,
    limit: int | None,
    as_is: bool,
    no_progress: bool,
) -> None:
    """Send the events of FILE to the source topic of PIPELINE, keyed by the field source.key.

    FILE is NDJSON (one JSON object a line), CSV (the first line names the fields; an empty cell is null, numbers,
    true and false are what they look like, all else is text, and of the key and the id all but whole numbers) or
    Parquet; .gz too; - is standard input.

    Events are written in the format of PIPELINE. Where that is json, lines of NDJSON go out as they stand. Where it is
    f32, an event is the list in the field that source.format names, or else all its fields in their order; FILE may
    also be an array of numpy (.npy), or raw vectors one after the other (.f32).

    Exit code 0 means that Kafka has every event. A broken line ends the run with code 1, but for --as-is; the
    events before it are sent. Ctrl-C ends it with 130.
    """
    spec = read_pipeline(pipeline, overrides).spec
    path = None if file == "-" else Path(file)
    source = spec.source
    events = open_events(
        path, file_format, source.key, as_is=as_is, source_format=source.format, codes=source.code_fields
    )
    settings = broker_settings(broker, spec.broker)
    require_topics(settings, spec, pipeline, writes=["source.topic"])
    watch = KeyWatch(islice(events.records(), limit))
    _produce(settings, spec.source.topic, events, watch, rate=rate, limit=limit, progress=not no_progress)
    if (note := watch.note(source.key, events.name)) is not None:
        click.echo(f"note: {note}", err=True)


def _produce(
    settings: BrokerSettings, topic: str, events: EventFile, records: Iterable[Record],
    *, rate: float | None, limit: int | None, progress: bool,
) -> None:  # fmt: skip
    started = time.monotonic()
    n_produced = 0

    def summary() -> str:
        seconds = time.monotonic() - started
        speed = rounded_rate(n_produced, seconds)
        return f"produced {n_produced:,} events to {topic} in {seconds:.1f} s ({speed} events/s)"

    try:
        with show_progress("produced", progress) as advance:

            def on_progress(n_records: int) -> None:
                nonlocal n_produced
                n_produced = n_records
                shares = (events.share_read(), n_records / limit if limit else None)
                advance(n_records, max((share for share in shares if share is not None), default=None))

            produce_records(settings, topic, records, on_progress, rate)
    except BaseException:
        click.echo(f"stopped: {summary()}", err=True)
        raise
    click.echo(summary(), err=True)
