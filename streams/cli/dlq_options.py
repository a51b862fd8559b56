"""What the commands of ``modelstream dlq`` share: which letters are meant, and where they are."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.batch import REASONS
from modelstream.streams.cli.common import broker_settings, read_pipeline
from modelstream.streams.cli.moments import TimeType
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.consuming import as_key
from modelstream.streams.dead_letter_reading import LetterFilter, Place
from modelstream.streams.required_topics import require_topics
from modelstream.streams.settings import BrokerSettings

__all__ = ["DeadLetterTopics", "PlaceType", "counting", "filter_options", "find_topics", "nothing", "say"]


class PlaceType(click.ParamType):
    """Where a letter stands in its topic: ``PARTITION/OFFSET``."""

    name = "letter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Return the place."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,18})", str(value))
        if match is None:
            self.fail(f"{value!r} is no letter; write PARTITION/OFFSET as `list` does, such as 0/17", param, ctx)
        return Place(int(match[1]), int(match[2]))


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which letters are meant; the function gets them as one `LetterFilter`, ``wanted``."""

    @functools.wraps(function)
    def with_filter(
        *args: Any,
        reasons: tuple[str, ...],
        stages: tuple[str, ...],
        since: int | None,
        until: int | None,
        key: str | None,
        **options: Any,
    ) -> Any:
        key_bytes = None if key is None else as_key(key)
        return function(*args, wanted=LetterFilter(reasons, stages, since, until, key_bytes), **options)

    decorators = [
        click.option("--reason", "reasons", multiple=True, metavar="REASON", help="Only these; may be repeated."),
        click.option("--stage", "stages", multiple=True, metavar="ID", help="Only of these stages; may be repeated."),
        click.option(
            "--since", type=TimeType(), metavar="TIME", help="Only written since: 30m, 2h, 7d ago, or ISO-8601."
        ),
        click.option("--until", type=TimeType(), metavar="TIME", help="Only written before."),
        click.option("--key", metavar="TEXT", help="Only of events with this key."),
    ]
    return functools.reduce(lambda decorated, decorate: decorate(decorated), reversed(decorators), with_filter)


@dataclass(frozen=True, slots=True)
class DeadLetterTopics:
    """A pipeline's topics of dead letters and of events.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    dead, source : str
        The topics.
    n_partitions : dict of str to int
        Partitions of those that were asked for.
    of_vectors : bool
        Whether the events are raw vectors, of format f32.
    """

    settings: BrokerSettings
    dead: str
    source: str
    n_partitions: dict[str, int]
    of_vectors: bool


def find_topics(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    *paths: str,
    wanted: LetterFilter | None = None,
    writes: Sequence[str] = (),
) -> DeadLetterTopics:
    """Return the topics of a pipeline file, once those at the given paths are known to be there.

    The dead letters must be open to be read, and the topics at the paths of `writes` to be written.

    Raises
    ------
    ConfigError
        A topic is not there, or letters of a reason or stage are wanted that there is not.
    """
    spec = read_pipeline(pipeline, overrides).spec
    if wanted is not None:
        _check_known("reason", wanted.reasons, REASONS)
        _check_known("stage", wanted.stages, ["source", *(stage.id for stage in spec.stages), "sink"])
    settings = broker_settings(broker, spec.broker)
    counts = require_topics(settings, spec, pipeline, reads=["sink.dead_letter"], writes=writes, only=paths)
    of_vectors = not isinstance(spec.source.format, str)
    return DeadLetterTopics(settings, spec.sink.dead_letter, spec.source.topic, counts, of_vectors)


def _check_known(what: str, words: Sequence[str], known: Sequence[str]) -> None:
    for word in words:
        if word not in known:
            there = f"there are {', '.join(known)}{did_you_mean(word, known)}"
            raise ConfigError(f"--{what}", f"no {what} {word!r}; {there}")


@contextmanager
def counting(verb: str, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many records a block has come to."""
    with show_progress(verb, enabled and sys.stderr.isatty()) as advance:
        yield lambda n_records: advance(n_records, None)


def nothing(topics: DeadLetterTopics, wanted: LetterFilter) -> str:
    """Return what to say where there is no letter."""
    hint = "" if wanted.key is None else "; `modelstream explain` finds an event by its id, too"
    return f"no dead letter{'' if wanted == LetterFilter() else ' that matches'} in {topics.dead}{hint}"


def say(text: str) -> None:
    """Print what is no result, on standard error."""
    click.echo(text, err=True)
