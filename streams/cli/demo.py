"""``modelstream demo``: the main job on real data, with nothing else needed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.common import EXIT_FAILED, OutputFile
from modelstream.streams.demo import Progress as DemoProgress
from modelstream.streams.demo import Summary, run_demo
from modelstream.streams.embedded import EmbeddedBroker, EmbeddedCache
from modelstream.streams.settings import BrokerSettings, RedisSettings

__all__ = ["command"]

_PLAIN_EVERY_S = 2.0


@click.command(
    "demo",
    epilog="""\b
Examples:
  modelstream demo                        336,776 real flights on an embedded broker
  modelstream demo --events 20000         a quick look
  modelstream demo --verify               compare every prediction with ONNX Runtime, row by row
  modelstream demo --broker localhost:9092 --json summary.json
""",
)
@click.option("--events", type=click.IntRange(min=1), metavar="N", help="Only the first N flights.")
@click.option("--broker", metavar="HOST:PORT", help="A Kafka of yours instead of the embedded broker.")
@click.option("--redis", metavar="URL", help="A Redis of yours instead of the embedded cache.")
@click.option("--verify", is_flag=True, help="Compare every prediction with ONNX Runtime run on that row alone.")
@click.option("--json", "json_file", type=OutputFile(), help="Write the summary there.")
def command(events: int | None, broker: str | None, redis: str | None, verify: bool, json_file: Path | None) -> None:
    """Score real flights with three models and count every prediction.

    Events, worker and predictions are real: topics on a broker, `modelstream run` in a process of its own. Exit code
    0 if every event that is due a prediction has exactly one, in the order of its key.
    """
    example = Path(str(files("modelstream"))) / "examples" / "flights"
    records = _records(events)
    console = Console(stderr=True)
    with ExitStack() as stack:
        environ = dict(os.environ)
        if broker is None:
            console.print("starting the embedded broker …")
            broker = stack.enter_context(EmbeddedBroker()).bootstrap
            environ = _without("MODELSTREAM_KAFKA_", environ)  # how to be let in elsewhere
        settings = BrokerSettings.resolve(option=broker, in_file=None, environ=environ)
        cache = _cache_url(redis, environ, console, stack)
        environ = _without("MODELSTREAM_REDIS", environ)
        options = []
        if cache is not None:
            # Not on the worker's command line: the URL may hold a password.
            environ["MODELSTREAM_REDIS"] = cache
            options = ["--set=stages[2].infer.cache.ttl_s=300"]
        show = _shown_on(console, len(records), stack)
        summary, tally = run_demo(
            settings, example / "pipeline.yaml", records, show,
            worker_options=options, worker_environ=environ, keep_values=verify,
        )  # fmt: skip
    _print(summary)
    if json_file is not None:
        json_file.write_bytes(summary.to_json() + b"\n")
    problems = summary.problems()
    if verify:
        problems += _verify(records, tally.values)
    for problem in problems:
        click.echo(f"modelstream: error: {problem}", err=True)
    sys.exit(EXIT_FAILED if problems else 0)


def _without(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(prefix)}


def _cache_url(redis: str | None, environ: Mapping[str, str], console: Console, stack: ExitStack) -> str | None:
    """Return where the worker keeps answers; None where there is no Redis to keep them in."""
    if redis is None:
        try:
            return stack.enter_context(EmbeddedCache()).url
        except ConfigError as error:  # with a broker of one's own the extra may be missing, and a cache need not be
            console.print(f"going on without a cache: {error}")
            return None
    settings = RedisSettings.resolve(option=redis, in_file=None, environ=environ)
    assert settings is not None
    return settings.url


def _records(limit: int | None) -> list[tuple[bytes | None, bytes]]:
    from modelstream.examples.flights.data import encoded_events

    try:
        return list(encoded_events(limit))
    except ModuleNotFoundError as error:
        raise ConfigError("", str(error)) from None


def _shown_on(console: Console, n_events: int, stack: ExitStack) -> Callable[[DemoProgress], None]:
    """Return what shows progress: bars on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        bars = stack.enter_context(Progress(*columns, console=console))
        produced, done = bars.add_task("produced", total=n_events), bars.add_task("answered", total=n_events)

        def show(progress: DemoProgress) -> None:
            bars.update(produced, completed=progress.produced)
            bars.update(done, completed=progress.filtered + progress.predictions)

        return show
    last = time.monotonic()

    def print_line(progress: DemoProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY_S:
            last = time.monotonic()
            console.print(
                f"{progress.produced:,} produced, {progress.filtered:,} filtered, {progress.predictions:,} predicted"
            )

    return print_line


def _print(summary: Summary) -> None:
    table = Table(show_header=False, box=None)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for value, what in (
        (f"{summary.events:,}", "flights in"),
        (f"{summary.filtered:,}", "filtered: cancelled"),
        (f"{summary.predictions:,}", "predictions out, by three models each"),
        (f"{summary.dead_letters:,}", "dead letters"),
        (f"{summary.missing:,}", "missing"),
        (f"{summary.duplicates:,}", "duplicate"),
        (f"{summary.out_of_order:,}", "out of order within their key"),
        (f"{summary.events_per_s:,.0f}", "events per second"),
        (f"{summary.p50_ms:,.0f} / {summary.p99_ms:,.0f}", "ms from event to prediction, p50 / p99, at full speed"),
        (f"{summary.seconds:,.1f}", "seconds"),
        (f"{summary.cache_hits:,} / {summary.cache_misses:,}", "cache hits / misses"),
    ):
        table.add_row(value, what)
    Console().print(table)


def _verify(records: list[tuple[bytes | None, bytes]], predictions: dict[str, Any]) -> list[str]:
    from modelstream.examples.flights.verify import compare

    click.echo("comparing every prediction with ONNX Runtime run on its row alone …", err=True)
    n_compared, worst, differing = compare((value for _, value in records), predictions)
    click.echo(f"{n_compared:,} predictions compared, largest relative difference {worst:.1e}", err=True)
    return [f"{len(differing):,} predictions differ, the first is of event {differing[0]}"] if differing else []
