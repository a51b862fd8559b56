"""What `replay` and `capacity` share: which broker and cache, the events made ready, and the topics with workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from modelstream.streams.cli.common import read_pipeline, require_topics
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.embedded import EmbeddedBroker, EmbeddedCache
from modelstream.streams.event_files import EventFile, FileFormat, open_events
from modelstream.streams.replay.prepared import PreparedEvents, prepare, without_times
from modelstream.streams.replay.target import Target, live_target, own_target, partitions_of
from modelstream.streams.settings import BrokerSettings, RedisSettings
from modelstream.streams.spec import PipelineSpec

__all__ = ["ReplaySetting"]


@dataclass(frozen=True, slots=True)
class ReplaySetting:
    """What the commands' options say of the place of a replay.

    Parameters
    ----------
    pipeline, file : Path, str
        The two arguments.
    broker, redis : str or None
        Where they are; None where no option says it.
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
    """

    pipeline: Path
    file: str
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

    @contextmanager
    def open(self) -> Iterator[tuple[Target, PreparedEvents]]:
        """Make events and topics ready, and start the workers.

        Raises
        ------
        ModelStreamError
            Anything of it is wrong, or away.
        """
        spec = read_pipeline(self.pipeline, self.overrides).spec
        path = None if self.file == "-" else Path(self.file)
        # Before anything is started: most mistakes are in here.
        events_file = open_events(
            path, self.file_format, spec.source.key, as_is=self.as_is, source_format=spec.source.format
        )
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelstream-replay-")))
            settings, environ, is_embedded = self._broker(spec, stack)
            partitions = self._partitions(settings, spec)
            events = self._prepare(events_file, spec, partitions, folder)
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

    def _broker(self, spec: PipelineSpec, stack: ExitStack) -> tuple[BrokerSettings, dict[str, str], bool]:
        environ = dict(os.environ)
        named = self.broker or environ.get("MODELSTREAM_BROKER") or spec.broker
        if named is None and not self.live:
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
            return counts[spec.source.topic]
        return self.partitions or partitions_of(settings, spec.source.topic)

    def _prepare(self, file: EventFile, spec: PipelineSpec, partitions: int, folder: Path) -> PreparedEvents:
        with show_progress("read", self.progress) as advance:
            return prepare(
                without_times(file.records()), spec.source, partitions, folder, limit=self.limit,
                on_progress=lambda n_events: advance(n_events, file.share_read()),
            )  # fmt: skip

    def _with_cache(self, spec: PipelineSpec, environ: dict[str, str], stack: ExitStack) -> dict[str, str]:
        """Return the workers' environment, with a Redis in it where a stage has a cache."""
        if not any(stage.infer and stage.infer.cache for stage in spec.stages):
            return environ
        found = RedisSettings.resolve(option=self.redis, in_file=spec.redis, environ=environ)
        if found is None:
            self._say("starting the embedded cache …")
            found = RedisSettings(stack.enter_context(EmbeddedCache()).url)
        # Not on the workers' command line: the URL may hold a password.
        return {**_without("MODELSTREAM_REDIS", environ), "MODELSTREAM_REDIS": found.url}

    def _say(self, text: str) -> None:
        if self.progress:
            click.echo(text, err=True)


def _without(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(prefix)}
