"""``modelstream replay``: events of a file through a pipeline at the pace of their event times, and what that took."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.streams.cli.as_is import as_is_option
from modelstream.streams.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    OutputFile,
    RateType,
    pipeline_argument,
    read_pipeline,
    redis_option,
    set_option,
)
from modelstream.streams.cli.pace_options import SpeedType, check_times, make_pace
from modelstream.streams.cli.replay_capture import capture_topic
from modelstream.streams.cli.replay_diff import compare_versions
from modelstream.streams.cli.replay_offline import replay_offline
from modelstream.streams.cli.replay_options import ReplayOptions, replay_options
from modelstream.streams.cli.replay_report import report_replay
from modelstream.streams.cli.replay_setting import ReplaySetting, replay_broker_option
from modelstream.streams.cli.replay_text import planned_s, print_result, say_plan, show_replay
from modelstream.streams.event_files import FileFormat
from modelstream.streams.replay.arrivals import Arrivals, Pace
from modelstream.streams.replay.findings import findings
from modelstream.streams.replay.report import require_libraries
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.result_keys import Labels
from modelstream.streams.replay.session import observe
from modelstream.streams.replay.summing_up import sum_up
from modelstream.streams.spec import SourceSpec

__all__ = ["command"]


@click.command(
    "replay",
    epilog="""\b
Examples:
  modelstream replay pipeline.yaml events.ndjson                     as fast as it goes, on an embedded broker
  modelstream replay pipeline.yaml events.ndjson --speed 60x         an hour of events in a minute
  modelstream replay pipeline.yaml events.parquet --rate 20000/s --broker localhost:9092 --workers 2
  modelstream replay pipeline.yaml events.csv.gz --rate 500/s --arrivals recorded --json result.json
  modelstream replay pipeline.yaml events.ndjson --live --rate 100/s through the workers that run already
  modelstream replay pipeline.yaml --capture monday.parquet --since 2026-11-23 --until 2026-11-24
  modelstream replay pipeline.yaml monday.parquet --speed 600x --report monday.html
  modelstream replay pipeline.yaml monday.parquet --diff candidate.yaml
  modelstream replay pipeline.yaml monday.parquet --speed 60x --offline --save-costs costs.json
""",
)
@pipeline_argument
@click.argument("file", required=False)
@replay_broker_option
@redis_option
@set_option
@click.option(
    "--speed", type=SpeedType(), metavar="1x|60x|max", help="Times faster than the event times say  [default: max]"
)
@click.option("--rate", type=RateType(), metavar="N/s", help="Events per second in the mean, instead of a speed.")
@click.option(
    "--arrivals",
    type=click.Choice(get_args(Arrivals)),
    help="How events come at a rate: at random, as recorded, or in equal steps  [default: poisson]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random arrivals.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N events.")
@click.option(
    "--warm-up",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="Share of the events, the first ones, that latencies leave out.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Workers to start.")
@click.option(
    "--partitions", type=click.IntRange(min=1), metavar="N", help="Of the replay's topic  [default: as the source's]"
)
@click.option("--live", is_flag=True, help="Use the pipeline's own topics, and the workers that read them already.")
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="After the last event, give up when nothing has moved for so long  [default: 30, with --live 10]",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(get_args(FileFormat)),
    help="What FILE holds  [default: what its suffix says]",
)
@as_is_option
@click.option("--json", "json_file", type=OutputFile(), help="Write the result there.")
@replay_options
@click.option("--no-progress", is_flag=True, help="Show only the result.")
def command(
    pipeline: Path,
    file: str | None,
    broker: str | None,
    redis: str | None,
    overrides: tuple[str, ...],
    speed: float | None,
    rate: float | None,
    arrivals: Arrivals | None,
    seed: int,
    limit: int | None,
    warm_up: float,
    workers: int,
    partitions: int | None,
    live: bool,
    drain_s: float | None,
    file_format: FileFormat | None,
    as_is: bool,
    json_file: Path | None,
    no_progress: bool,
    more: ReplayOptions,
) -> None:
    """Send the events of FILE through PIPELINE at their pace, and measure what comes out.

    FILE is as for `modelstream produce`, or what --capture has written. The replay makes topics and a consumer group of
    its own, starts workers on them, and removes all of it at the end: production is not touched. Without a broker named
    anywhere it uses the embedded one. Events are sent when they are due, never when the pipeline is ready for them;
    latencies count from then. docs/replay.md says what each figure means.

    Exit code 0 if every event was answered once, filtered, or became a dead letter; 1 if some are missing or came
    twice, if there are dead letters and no prediction, or if a process or the broker failed; 130 after Ctrl-C. After
    the last two the result so far is shown and written all the same; after Ctrl-C with --offline or --diff there is
    none.
    """
    more.check(file)
    if more.capture is not None:
        capture_topic(pipeline, broker, overrides, more, limit, not no_progress)
        return
    if more.report is not None:
        require_libraries()
    pace = make_pace(speed, rate, arrivals, seed)
    _check(pace, read_pipeline(pipeline, overrides).spec.source, more.has_times(file), live, workers, partitions)
    setting = ReplaySetting(
        pipeline=pipeline, file=file, broker=broker, redis=redis, overrides=overrides, file_format=file_format,
        as_is=as_is, limit=limit, partitions=partitions, workers=workers, live=live, progress=not no_progress,
        topic=more.topic, since_ms=more.since_ms, until_ms=more.until_ms, needs_times=pace.needs_times,
    )  # fmt: skip
    if more.diff is not None:
        compare_versions(setting, more, json_file)
        return
    if more.offline:
        if live or workers != 1 or partitions not in (None, 1):
            raise click.UsageError("--offline is one worker and one partition; leave the options of others out")
        result = replay_offline(setting, more, pace, warm_up)
        _deliver(result, setting, more, json_file)
        sys.exit(_exit_code(result))
    with setting.open() as (target, events):
        schedule = pace.schedule(len(events), events.times_ms)
        if not no_progress:
            say_plan(pace, schedule, len(events))
        with show_replay(not no_progress, planned_s(schedule)) as show:
            drain_s = drain_s or (10.0 if live else 30.0)
            observation = observe(target, events, schedule, drain_s=drain_s, on_progress=show)
        labels = Labels(str(pipeline), setting.name, pace, warm_up, schedule)
        result = sum_up(observation, target, labels)
        # Before the workers are stopped and the topics deleted, which may fail.
        _deliver(result, setting, more, json_file)
        if isinstance(observation.ended_by, ModelStreamError):
            raise observation.ended_by
    sys.exit(_exit_code(result))


def _check(pace: Pace, source: SourceSpec, has_times: bool, live: bool, workers: int, partitions: int | None) -> None:
    check_times(pace, source, has_times, instead="--speed max, or --rate N/s")
    if live and source.event_id is None:
        raise ConfigError("--live", "needs source.event_id: others write to the topic too, and ids tell whose is whose")
    if live and (workers != 1 or partitions is not None):
        raise click.UsageError("--live uses topics and workers that are there; leave --workers and --partitions out")


def _deliver(result: ReplayResult, setting: ReplaySetting, more: ReplayOptions, json_file: Path | None) -> None:
    print_result(result)
    if json_file is not None:
        json_file.write_bytes(result.to_json())
    if more.report is not None:
        report_replay(more.report, result, setting.pipeline, setting.overrides)


def _exit_code(result: ReplayResult) -> int:
    if result.interrupted:
        click.echo("modelstream: stopped before the end", err=True)
        return EXIT_INTERRUPTED
    errors = [finding for finding in findings(result) if finding.level == "error"]
    for error in errors:
        click.echo(f"modelstream: error: {error.title}. {error.text}", err=True)
    return EXIT_FAILED if errors else 0
