"""``modelstream batch``: the events of a file to a file of predictions, without Kafka."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import get_args

import click

from modelstream.models.errors import ConfigError
from modelstream.streams.batch_prediction import AnyRecord, BatchTotals, predict_records
from modelstream.streams.cli.common import (
    EXIT_FAILED,
    OutputFile,
    ended_by_ctrl_c,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.cli.progress import rounded_rate, show_progress
from modelstream.streams.event_files import EventFile, FileFormat, KeyWatch, format_of, open_events
from modelstream.streams.prediction_files import open_output, open_predictions, output_format
from modelstream.streams.replay.capture import CaptureFile, is_capture
from modelstream.streams.spec import SourceSpec
from modelstream.streams.wording import counted, letter_reason

__all__ = ["command"]

#: As a worker has it: objects are many here, and none in a cycle.
_GC_THRESHOLD = 200_000


@click.command(
    "batch",
    epilog="""\b
Examples:
  modelstream batch pipeline.yaml events.ndjson predictions.parquet
  modelstream batch pipeline.yaml flights.csv.gz predictions.ndjson.gz --dead-letters dead.ndjson
  modelstream batch pipeline.yaml events.parquet - | jq .predictions
""",
)
@pipeline_argument
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@set_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(get_args(FileFormat)),
    help="What IN holds  [default: what its suffix says]",
)
@click.option("--dead-letters", type=OutputFile(), metavar="FILE", help="Write dead letters there, as NDJSON.")
@click.option("--strict", is_flag=True, help="End with code 1 if there is a dead letter.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")
@click.option("--no-progress", is_flag=True, help="Show only the summary.")
def command(
    pipeline: Path,
    source: str,
    target: str,
    overrides: tuple[str, ...],
    file_format: FileFormat | None,
    dead_letters: Path | None,
    strict: bool,
    limit: int | None,
    no_progress: bool,
) -> int:
    """Write the predictions of PIPELINE for the events of IN to OUT: those that a worker makes.

    They are so byte for byte where events have the id and the time that the pipeline names.

    IN is NDJSON, CSV or Parquet, as for `produce`, .gz too, or what `replay --capture` wrote; - is standard input. OUT
    is .parquet, or NDJSON (.ndjson, .ndjson.gz, - for standard output), in the order of IN. In Parquet the column value
    holds the prediction record, and its parts stand beside it in columns of their own, as late_arrival.score.

    An event that cannot be processed is a dead letter; the others are predicted. Exit code 0 means that OUT has every
    other event's prediction, 1 that IN is broken, that there are dead letters and no predictions, or that --strict
    found dead letters. With dead letters OUT is written all the same. Ctrl-C ends it with 130, and writes no file.
    """
    described = read_pipeline(pipeline, overrides)
    spec = described.spec
    path, out = (None if name == "-" else Path(name) for name in (source, target))
    _check_names(path, out, dead_letters)
    events, rows = _open(path, file_format, spec.source)
    gc.set_threshold(_GC_THRESHOLD)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_ctrl_c(_left_unfinished(out, dead_letters)))
        built = described.build()
        started = time.monotonic()
        writer = stack.enter_context(open_predictions(out, built.answers))
        letters = stack.enter_context(open_output(dead_letters)) if dead_letters else None
        advance = stack.enter_context(show_progress("predicted", not no_progress))

        def on_progress(n_events: int) -> None:
            advance(
                n_events, max(filter(None, (events.share_read(), n_events / limit if limit else None)), default=None)
            )

        records = KeyWatch(islice(rows, limit))
        totals = predict_records(built, records, writer, letters.write if letters else None, on_progress)
    _summarise(totals, time.monotonic() - started, dead_letters)
    if (note := records.note(spec.source.key, events.name)) is not None:
        click.echo(f"note: {note}", err=True)
    if totals.n_dead_letters and not totals.n_predictions:
        click.echo(
            "error: no predictions: there are dead letters alone, so the pipeline does not fit the events", err=True
        )
        return EXIT_FAILED
    return EXIT_FAILED if strict and totals.n_dead_letters else 0


def _check_names(path: Path | None, out: Path | None, dead_letters: Path | None) -> None:
    output_format(out)
    named = [one.resolve() for one in (path, out, dead_letters) if one is not None]
    if len(set(named)) < len(named):
        raise ConfigError(str(out), "IN, OUT and --dead-letters must be different files")


def _left_unfinished(out: Path | None, dead_letters: Path | None) -> str:
    """Return what a run leaves that is stopped before its end: files are whole, or those of before."""
    parts = [] if out else ["standard output has a part of the predictions"]
    if files := [str(file) for file in (out, dead_letters) if file is not None]:
        parts.append(f"nothing is written to {' or '.join(files)}")
    return ", and ".join(parts)


def _open(
    path: Path | None, file_format: FileFormat | None, source: SourceSpec
) -> tuple[EventFile | CaptureFile, Iterator[AnyRecord]]:
    """Return IN, and its records: captured ones as they were, lines as they stand where records are JSON."""
    if path is not None and file_format in (None, "parquet") and is_capture(path):
        captured = CaptureFile(path)
        return captured, captured.records()
    as_is = source.format == "json" and (file_format or format_of(path)) == "ndjson"
    events = open_events(
        path, file_format, source.key, as_is=as_is, source_format=source.format, codes=source.code_fields
    )
    if not as_is:
        return events, events.records()
    # Without blank lines, which `produce` skips too.
    return events, (record for record in events.records() if record[1] and not record[1].isspace())


def _summarise(totals: BatchTotals, seconds: float, dead_letters: Path | None) -> None:
    speed = rounded_rate(totals.n_events, seconds)
    click.echo(
        f"predicted {totals.n_predictions:,} of {counted(totals.n_events, 'event')} in {seconds:.1f} s "
        f"({speed} events/s); {totals.n_filtered:,} filtered, {counted(totals.n_dead_letters, 'dead letter')}",
        err=True,
    )
    for (stage, reason), n_letters in totals.reasons.most_common():
        click.echo(f"  {n_letters:>9,}  {letter_reason(stage, reason)}", err=True)
    if totals.n_dead_letters:
        where = f"in {dead_letters}" if dead_letters else "not kept; --dead-letters FILE keeps them"
        click.echo(f"  the first: {totals.first_letter}\n  {where}", err=True)
