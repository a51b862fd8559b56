"""``modelstream dlq``: dead letters listed, shown, sent back, and marked as done."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import orjson
from confluent_kafka import Message

from modelstream.streams.cli.common import EXIT_FAILED, broker_option, pipeline_argument, set_option
from modelstream.streams.cli.dlq_options import (
    DeadLetterTopics,
    PlaceType,
    counting,
    filter_options,
    find_topics,
    nothing,
    say,
)
from modelstream.streams.cli.dlq_redrive import redrive_letters
from modelstream.streams.cli.dlq_text import as_table, describe_letter, printable, summary
from modelstream.streams.dead_letter_json import describe_dead_letter, letter_as_dict
from modelstream.streams.dead_letter_marking import mark_done
from modelstream.streams.dead_letter_reading import Letter, LetterFilter, Place, fetch_letters, is_marker, read_letters
from modelstream.streams.wording import counted

__all__ = ["command"]

# Rows of a table where no number is asked for: a screen or two.
_TABLE_ROWS = 50


@click.group(
    "dlq",
    context_settings={"max_content_width": 100},
    epilog="""\b
Examples:
  modelstream dlq list pipeline.yaml --broker localhost:9092
  modelstream dlq show pipeline.yaml 0/17
  modelstream dlq redrive pipeline.yaml --dry-run
""",
)
def command() -> None:
    """List, show, redrive and resolve the dead letters of a pipeline.

    A dead letter is an event that could not be processed, with the reason. It is named by PARTITION/OFFSET, where it
    stands in the dead-letter topic.
    """


@command.command(
    "list",
    short_help="Print those that are not redriven yet, and count them.",
    epilog="""\b
Examples:
  modelstream dlq list pipeline.yaml --broker localhost:9092
  modelstream dlq list pipeline.yaml --reason missing_field --since 2h
  modelstream dlq list pipeline.yaml --json | jq -r .detail | sort | uniq -c
""",
)
@pipeline_argument
@broker_option
@set_option
@filter_options
@click.option(
    "-n",
    "--number",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Print the first N of them  [default: {_TABLE_ROWS}; all with --json]",
)
@click.option("--all", "with_redriven", is_flag=True, help="Also letters that were redriven.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the counts go to standard error.")
def list_letters(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    wanted: LetterFilter,
    number: int | None,
    with_redriven: bool,
    as_json: bool,
) -> None:
    """Print the dead letters of PIPELINE that are not redriven yet, and count them by reason and stage.

    They come in the order in which their events stood in the source topic: as `redrive` would send them.
    """
    topics = find_topics(pipeline, broker, overrides, "sink.dead_letter", wanted=wanted)
    with counting("read") as on_progress:
        letters = read_letters(topics.settings, topics.dead, wanted, redriven=with_redriven, on_progress=on_progress)
    if not letters:
        say(nothing(topics, wanted))
        return
    shown = letters[: number or (None if as_json else _TABLE_ROWS)]
    if as_json:
        sys.stdout.buffer.writelines(
            orjson.dumps(letter_as_dict(one), option=orjson.OPT_APPEND_NEWLINE) for one in shown
        )
        sys.stdout.buffer.flush()
    else:
        click.echo("\n".join(as_table(shown, time.time(), ("DETAIL", _detail))))
    counts = [f"{counted(len(letters), 'dead letter')} in {topics.dead}", *summary(letters)]
    if len(shown) < len(letters):
        counts.append(f"the first {len(shown):,} are shown; -n for another number, --json for all")
    click.echo("\n".join(counts if as_json else ["", *counts]), err=as_json)


def _detail(letter: Letter) -> str:
    notes = [f"redrive: {letter.incomplete}"] if letter.incomplete else []
    notes += ["redriven"] if letter.redriven else []
    return printable(letter.detail or "-") + "".join(f" [{note}]" for note in notes)


@command.command(
    "show",
    short_help="Print all that some of them say.",
    epilog="""\b
Examples:
  modelstream dlq show pipeline.yaml 0/17 --broker localhost:9092
  modelstream dlq show pipeline.yaml 0/17 --raw > event.json
""",
)
@pipeline_argument
@click.argument("letters", type=PlaceType(), nargs=-1, required=True, metavar="PARTITION/OFFSET...")
@broker_option
@set_option
@click.option("--raw", is_flag=True, help="Write one letter's original value to standard output, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show_letters(
    pipeline: Path,
    letters: tuple[Place, ...],
    broker: str | None,
    overrides: tuple[str, ...],
    raw: bool,
    as_json: bool,
) -> int:
    """Print all that dead letters of PIPELINE say: why, where from, headers, key and value."""
    if raw and (as_json or len(letters) > 1):
        raise click.UsageError("--raw writes the value of one letter, and nothing else.")
    topics = find_topics(pipeline, broker, overrides, "sink.dead_letter")
    asked = list(dict.fromkeys(letters))
    there = [place for place in asked if place.partition < topics.n_partitions[topics.dead]]
    found = fetch_letters(topics.settings, topics.dead, there)
    found = {place: message for place, message in found.items() if not is_marker(message)}
    redriven = set() if raw else _find_redriven(topics, list(found.values()))
    separator = b""
    for place in asked:
        if place not in found:
            say(f"no dead letter {place} in {topics.dead}")
            continue
        message = found[place]
        said = describe_dead_letter(message) | {"redriven": place in redriven}
        if raw:
            text = message.value() or b""
        elif as_json:
            text = orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)
        else:
            described = describe_letter(said, message.value(), topics.dead, topics.of_vectors)
            text, separator = separator + f"{described}\n".encode(), b"\n"
        sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    return EXIT_FAILED if len(found) < len(asked) else 0


@command.command(
    "resolve",
    short_help="Mark some as done, without sending them.",
    epilog="""\b
Examples:
  modelstream dlq show pipeline.yaml 0/17 --raw | sed 's/"warm"/21.5/' | modelstream produce pipeline.yaml -
  modelstream dlq resolve pipeline.yaml 0/17
""",
)
@pipeline_argument
@click.argument("letters", type=PlaceType(), nargs=-1, required=True, metavar="PARTITION/OFFSET...")
@broker_option
@set_option
def resolve_letters(pipeline: Path, letters: tuple[Place, ...], broker: str | None, overrides: tuple[str, ...]) -> int:
    """Mark dead letters of PIPELINE as done: `list` and `redrive` pass them over, as if they had been redriven.

    For events that were mended and produced anew by hand, and for those that are of no more use.
    """
    topics = find_topics(pipeline, broker, overrides, "sink.dead_letter", writes=["sink.dead_letter"])
    found = {letter.place: letter for letter in read_letters(topics.settings, topics.dead, redriven=True)}
    asked = list(dict.fromkeys(letters))
    for place in asked:
        if place not in found:
            say(f"no dead letter {place} in {topics.dead}")
    marked = [found[place] for place in asked if place in found and not found[place].redriven]
    mark_done(topics.settings, topics.dead, marked)
    say(f"marked {counted(len(marked), 'dead letter')} in {topics.dead} as done")
    return EXIT_FAILED if set(asked) - set(found) else 0


def _find_redriven(topics: DeadLetterTopics, messages: list[Message]) -> set[Place]:
    # Markers may stand anywhere behind a letter, and one before it if its worker wrote it twice: all is read.
    if not messages:
        return set()
    written = [message.timestamp()[1] for message in messages]
    about = LetterFilter(since_ms=min(written), until_ms=max(written) + 1)
    letters = read_letters(topics.settings, topics.dead, about, redriven=True)
    return {letter.place for letter in letters if letter.redriven}


command.add_command(redrive_letters)
