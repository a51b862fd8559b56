"""What `replay` and `capacity` share: which broker and cache, the events made ready, and the topics with workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from modelstream.models.errors import ConfigError
from modelstream.streams.caching import what_is_wrong
from modelstream.streams.cli.common import read_pipeline
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.cluster import Cluster
from modelstream.streams.embedded import EmbeddedBroker, EmbeddedCache
from modelstream.streams.event_files import FileFormat
from modelstream.streams.replay.prepared import PreparedEvents, TimedRecord, prepare
from modelstream.streams.replay.sources import ReplaySource, TopicSource, open_source
from modelstream.streams.replay.target import Target, live_target, own_target, partitions_of
from modelstream.streams.required_topics import require_topics
from modelstream.streams.settings import BrokerSettings, RedisSettings
from modelstream.streams.spec import PipelineSpec
from modelstream.streams.wording import counted

__all__ = ["EMBEDDED", "ReplaySetting", "replay_broker_option"]

F = TypeVar("F", bound=Callable[..., Any])

#: What ``--broker`` says for the embedded broker, whatever else is named.
EMBEDDED = "embedded"


def replay_broker_option(function: F) -> F:
    """Add the option ``--broker``, which may be left out altogether."""
    return click.option(
        "--broker",
        metavar="HOST:PORT",
        help="Kafka bootstrap address, or `embedded`  [default: $MODELSTREAM_BROKER, the file, the embedded one]",
    )(function)


@dataclass(frozen=True, slots=True)
class ReplaySetting:
    """What the commands' options say of the place of a replay.

    Parameters
    ----------
    pipeline : Path
        The argument.
    file : str or None
        The file of events; None where they are a topic's.
    broker, redis : str or None
        Where they are, ``embedded`` for a broker of the replay's own; None where no option says it.
    overrides : tuple of str
        Values of the pipeline file to set.
    file_format : str or None
        What the file holds.
    as_is : bool
        Whether broken lines of NDJSON are sent too.
    limit : int or None
        Take so many events.
    partitions : int or None
        Of the replay's own topics.
    workers : int
        How many to start.
    live : bool
        Use the pipeline's own topics and workers.
    progress : bool
        Whether to show what goes on.
    topic : str or None
        Where the events are, instead of a file.
    since_ms, until_ms : int or None
        Which of the topic's.
    needs_times : bool
        Whether the pace goes by the events' times.
    """

    pipeline: Path
    file: str | None
    broker: str | None
    redis: str | None
    overrides: tuple[str, ...]
    file_format: FileFormat | None
    limit: int | None
    partitions: int | None
    workers: int
    as_is: bool = False
    live: bool = False
    progress: bool = True
    topic: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    needs_times: bool = False

    @property
    def name(self) -> str:
        """What the events are of."""
        return f"topic {self.topic}" if self.file is None else self.file

    @contextmanager
    def open(self) -> Iterator[tuple[Target, PreparedEvents]]:
        """Make events and topics ready, and start the workers.

        Raises
        ------
        ModelStreamError
            Anything of it is wrong, or away.
        """
        described = read_pipeline(self.pipeline, self.overrides)
        spec = described.spec
        # Before anything is started: most mistakes are in here.
        if not self.live:  # workers that run already may have their models elsewhere
            described.check_models_exist()
        broker = self._which_broker(spec)
        source = self.open_file(spec)
        records = source.some_records() if source else None
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelstream-replay-")))
            settings, environ, is_embedded = self._broker(broker, spec, stack)
            partitions = self._partitions(settings, spec)
            self._note_idle_workers(partitions)
            source = source or self.open_topic(settings)
            events = self._prepare(source, records or source.some_records(), spec, partitions, folder)
            if self.live:
                yield live_target(settings, spec, partitions, environ), events
                return
            environ = self._with_cache(spec, environ, stack)
            self._say(f"starting {'a worker' if self.workers == 1 else f'{self.workers} workers'} …")
            target = stack.enter_context(
                own_target(
                    settings, self.pipeline, self.overrides, partitions=partitions, workers=self.workers,
                    environ=environ, broker_name="embedded" if is_embedded else None,
                )
            )  # fmt: skip
            yield target, events

    def open_file(self, spec: PipelineSpec) -> ReplaySource | None:
        """Return the file's events; None where they are a topic's."""
        if self.file is None:
            return None
        path = None if self.file == "-" else Path(self.file)
        return open_source(path, self.file_format, spec.source, as_is=self.as_is)

    def open_topic(self, settings: BrokerSettings) -> TopicSource:
        """Return the topic's events."""
        assert self.topic is not None
        return TopicSource(settings, self.topic, self.since_ms, self.until_ms)

    def _which_broker(self, spec: PipelineSpec) -> str:
        named = self.broker or os.environ.get("MODELSTREAM_BROKER") or spec.broker or EMBEDDED
        if named == EMBEDDED and self.live:
            raise ConfigError("--live", "needs a broker; name it with --broker HOST:PORT")
        if named == EMBEDDED and self.topic is not None:
            raise ConfigError(
                "--from-topic", "an embedded broker is empty; name the one that has the topic by --broker HOST:PORT"
            )
        return named

    def _broker(self, named: str, spec: PipelineSpec, stack: ExitStack) -> tuple[BrokerSettings, dict[str, str], bool]:
        environ = dict(os.environ)
        if named == EMBEDDED:
            self._say("starting the embedded broker …")
            bootstrap = stack.enter_context(EmbeddedBroker()).bootstrap
            environ = _without("MODELSTREAM_KAFKA_", environ)  # how to be let in elsewhere
            return BrokerSettings.resolve(option=bootstrap, in_file=None, environ=environ), environ, True
        return BrokerSettings.resolve(option=self.broker, in_file=spec.broker, environ=environ), environ, False

    def _partitions(self, settings: BrokerSettings, spec: PipelineSpec) -> int:
        if self.live:
            counts = require_topics(
                settings, spec, self.pipeline, writes=["source.topic"], reads=["sink.topic", "sink.dead_letter"]
            )
            if Cluster(settings).member_count(spec.pipeline) == 0:
                raise ConfigError(
                    "--live",
                    f"no worker is in the consumer group {spec.pipeline!r} on {settings.bootstrap}, so nobody would "
                    f"answer; start one with `modelstream run {self.pipeline}`, or leave --live out",
                )
            return counts[spec.source.topic]
        return self.partitions or partitions_of(settings, spec.source.topic)

    def _note_idle_workers(self, partitions: int) -> None:
        n_idle = self.workers - partitions
        if n_idle > 0:
            click.echo(
                f"note: {self.workers} workers share {counted(partitions, 'partition')}, so "
                f"{'one of them has' if n_idle == 1 else f'{n_idle} of them have'} nothing to read; "
                f"--partitions {self.workers} gives each of them one",
                err=True,
            )

    def _prepare(
        self, source: ReplaySource, records: Iterator[TimedRecord], spec: PipelineSpec, partitions: int, folder: Path
    ) -> PreparedEvents:
        with show_progress("read", self.progress) as advance:
            return prepare(
                records, spec.source, partitions, folder, limit=self.limit, needs_times=self.needs_times,
                on_progress=lambda n_events: advance(n_events, source.share_read()),
            )  # fmt: skip

    def _with_cache(self, spec: PipelineSpec, environ: dict[str, str], stack: ExitStack) -> dict[str, str]:
        """Return the workers' environment, with a Redis in it where a stage has a cache."""
        if not any(stage.infer and stage.infer.cache for stage in spec.stages):
            return environ
        found = RedisSettings.resolve(option=self.redis, in_file=spec.redis, environ=environ)
        if found is None:
            self._say("starting the embedded cache …")
            found = RedisSettings(stack.enter_context(EmbeddedCache()).url)
        elif (problem := what_is_wrong(found)) is not None:
            click.echo(f"note: Redis does not answer: {problem}; this measures a cache without it", err=True)
        # Not on the workers' command line: the URL may hold a password.
        return {**_without("MODELSTREAM_REDIS", environ), "MODELSTREAM_REDIS": found.url}

    def _say(self, text: str) -> None:
        if self.progress:
            click.echo(text, err=True)


def _without(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(prefix)}
