"""``modelstream capacity``: the highest rate that a pipeline sustains, and what a million events cost."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from modelstream.models.errors import ModelStreamError
from modelstream.streams.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    OutputFile,
    pipeline_argument,
    redis_option,
    set_option,
)
from modelstream.streams.cli.replay_setting import ReplaySetting, replay_broker_option
from modelstream.streams.event_files import FileFormat
from modelstream.streams.replay.arrivals import Pace
from modelstream.streams.replay.capacity import Capacity, Probe, judge, no_start, settle, unanswered
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.prepared import PreparedEvents
from modelstream.streams.replay.rate_search import find_highest, most_rates
from modelstream.streams.replay.report_text import figure
from modelstream.streams.replay.result import ReplayResult, ending
from modelstream.streams.replay.result_keys import Labels
from modelstream.streams.replay.session import observe
from modelstream.streams.replay.summing_up import sum_up
from modelstream.streams.replay.target import Target

__all__ = ["command"]

#: As for a replay: what the first events meet is not steady.
_WARM_UP = 0.25
#: The search starts below what full speed gave: at its limit a queue has no bound.
_FIRST_GUESS = 0.6
_DRAIN_S = 30.0
#: So many rates in a row for which the generator was late, each half of the one before: the machine has no time.
_LATE_IN_A_ROW = 3


@click.command(
    "capacity",
    epilog="""\b
Examples:
  modelstream capacity pipeline.yaml events.ndjson --broker localhost:9092
  modelstream capacity pipeline.yaml events.ndjson --p99-ms 20 --workers 2 --price-per-core-hour 0.04
""",
)
@pipeline_argument
@click.argument("file")
@replay_broker_option
@redis_option
@set_option
@click.option(
    "--p99-ms",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="The latency that 99 of 100 predictions must keep, from the time the event was due.",
)
@click.option(
    "--probe-s",
    type=click.FloatRange(min=0.5),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one probe of a rate takes.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0.005, 0.5),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="How close to the limit the result must be.",
)
@click.option("--price-per-core-hour", type=click.FloatRange(min=0), metavar="PRICE", help="In any currency.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random arrivals.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N events.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Workers to start.")
@click.option(
    "--partitions", type=click.IntRange(min=1), metavar="N", help="Of the replay's topic  [default: as the source's]"
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(get_args(FileFormat)),
    help="What FILE holds  [default: what its suffix says]",
)
@click.option("--json", "json_file", type=OutputFile(), help="Write all of it there.")
@click.option("--no-progress", is_flag=True, help="Show only the probes and the result.")
def command(
    pipeline: Path,
    file: str,
    broker: str | None,
    redis: str | None,
    overrides: tuple[str, ...],
    p99_ms: float,
    probe_s: float,
    precision: float,
    price_per_core_hour: float | None,
    seed: int,
    limit: int | None,
    workers: int,
    partitions: int | None,
    file_format: FileFormat | None,
    json_file: Path | None,
    no_progress: bool,
) -> None:
    """Find the highest rate that PIPELINE sustains with the events of FILE.

    Each rate is tried by a short replay with random arrivals, on topics and workers made for it, which stay warm from
    one to the next. It is sustained if lag does not grow, every event is answered, and the 99th percentile of latency
    is within the bound; where only timing fails, two of three replays decide. Where FILE is shorter than a probe it
    begins anew; under a cache that makes more hits than there would be.

    Exit code 1 if no rate is sustained, if events had no answer, or a process or the broker failed; 130 after Ctrl-C.
    The result so far is shown and written all the same.
    """
    setting = ReplaySetting(
        pipeline=pipeline, file=file, broker=broker, redis=redis, overrides=overrides, file_format=file_format,
        limit=limit, partitions=partitions, workers=workers, progress=not no_progress,
    )  # fmt: skip
    click.echo(
        f"p99 within {p99_ms:g} ms, --p99-ms to change; after full speed, twice, at most {most_rates(precision)} "
        f"rates, one to three probes of {probe_s:g} s each"
    )
    with setting.open() as (target, events):
        prober = _Prober(target, events, Labels(str(pipeline), file, Pace(), _WARM_UP), p99_ms, probe_s, seed)
        ended_by = prober.search(precision)
        best = prober.best
        cpu_s = best.cpu_us_per_event if best else None
        found = Capacity(
            rate_per_s=round(best.rate_per_s, 1) if best else None,
            bound_p99_ms=p99_ms,
            full_speed_per_s=prober.full_speed_per_s,
            cpu_s_per_million=cpu_s,
            cost_per_million=None
            if cpu_s is None or price_per_core_hour is None
            else cpu_s / 3600 * price_per_core_hour,
            workers=workers,
            partitions=target.partitions,
            probes=tuple(chain.from_iterable(prober.tries.values())),
            environment=describe_environment(target.broker_name),
            **ending(ended_by),
        )
        # Before the workers are stopped and the topics deleted, which may fail.
        _print(found)
        if json_file is not None:
            json_file.write_bytes(found.to_json())
        if isinstance(ended_by, ModelStreamError):
            raise ended_by
    if found.interrupted:
        click.echo("modelstream: stopped before the end", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0 if best else EXIT_FAILED)


class _Prober:
    """Tries rates, and says what came of each."""

    def __init__(
        self, target: Target, events: PreparedEvents, labels: Labels, p99_ms: float, probe_s: float, seed: int
    ) -> None:
        self._target, self._events, self._labels = target, events, labels
        self._p99_ms, self._probe_s, self._seed = p99_ms, probe_s, seed
        #: The replays at each rate.
        self.tries: dict[float, list[Probe]] = {}
        #: One at the highest rate that is sustained.
        self.best: Probe | None = None
        self.full_speed_per_s: float | None = None

    def search(self, precision: float) -> KeyboardInterrupt | ModelStreamError | None:
        """Try rates until the highest is found; return what has ended that before its end."""
        try:
            start = self._full_speed() * _FIRST_GUESS
            find_highest(self._is_sustained, start, precision=precision, is_hopeless=self._is_hopeless)
        except (KeyboardInterrupt, ModelStreamError) as why:
            return why
        return None

    def _is_hopeless(self) -> bool:
        latest = list(self.tries.values())[-_LATE_IN_A_ROW:]
        return len(latest) == _LATE_IN_A_ROW and all(probe.generator_late for probe in chain.from_iterable(latest))

    def _full_speed(self) -> float:
        """Return events per second where all are there at once: all of the file, or a probe's worth."""
        # Twice, since the first one meets cold workers, and knows nothing of how many events are enough.
        first = self._replay(Pace(), min(len(self._events), 20_000))
        if problem := no_start(first, _DRAIN_S):
            raise ModelStreamError(problem)
        result = self._replay(Pace(), max(int(first.full_speed_per_s * self._probe_s / 2), 1000))
        self._check_answered(result)
        rate = max(result.full_speed_per_s, 1.0)
        is_whole = result.full_speed_per_s == result.events_per_s
        which = "start included" if is_whole else f"the steady rate, first {_WARM_UP:.0%} left out"
        click.echo(f"{figure(rate):>12} events/s at full speed, {which}")
        self.full_speed_per_s = round(rate, 1)
        return rate

    def _is_sustained(self, rate_per_s: float) -> bool:
        good = settle(lambda: self._try(rate_per_s))
        tries = self.tries[rate_per_s]
        if len(tries) > 1:
            verdict = "not sustained" if good is None else "sustained"
            click.echo(f"{'':12} {verdict}: {sum(probe.kept_up for probe in tries)} of {len(tries)} probes kept up")
        if good is not None and (self.best is None or rate_per_s > self.best.rate_per_s):
            self.best = good
        return good is not None

    def _try(self, rate_per_s: float) -> Probe:
        n_events = max(int(rate_per_s * self._probe_s), 100)
        tries = self.tries.setdefault(rate_per_s, [])
        # The same arrivals would bring the same bursts again.
        pace = Pace(rate_per_s=rate_per_s, arrivals="poisson", seed=self._seed + len(tries))
        result = self._replay(pace, n_events)
        probe = judge(result, rate_per_s, self._p99_ms)
        tries.append(probe)
        verdict = "kept up" if probe.kept_up else "; ".join(probe.problems)
        latency = "" if probe.p50_ms is None else f"  p50 / p99 {probe.p50_ms:,.1f} / {probe.p99_ms:,.1f} ms"
        click.echo(f"{figure(rate_per_s):>12} events/s{latency}  {verdict}")
        self._check_answered(result)
        return probe

    def _check_answered(self, result: ReplayResult) -> None:
        # The next replay has the same events, and would take late answers for its own.
        if problem := unanswered(result, _DRAIN_S, "--probe-s"):
            raise ModelStreamError(problem)

    def _replay(self, pace: Pace, n_events: int) -> ReplayResult:
        events = self._events.cycled(n_events)
        schedule = pace.schedule(n_events)
        observation = observe(self._target, events, schedule, drain_s=_DRAIN_S)
        if observation.ended_by is not None:
            raise observation.ended_by
        return sum_up(observation, self._target, self._labels)


def _print(found: Capacity) -> None:
    console = Console()
    workers = "one worker" if found.workers == 1 else f"{found.workers} workers"
    so_far = " so far" if found.ended_early else ""
    if not found.probes:
        return  # what has ended it before the first one says all there is
    if found.rate_per_s is None:
        console.print(f"no rate is sustained{so_far} with p99 within {found.bound_p99_ms:g} ms")
        if all(probe.generator_late for probe in found.probes):
            click.echo("the generator itself was late at each: the machine is too busy, or raise --p99-ms")
        return
    console.print(
        f"sustained{so_far}: {figure(found.rate_per_s)} events/s by {workers}, p99 within {found.bound_p99_ms:g} ms"
    )
    if found.cpu_s_per_million is not None:
        cost = "" if found.cost_per_million is None else f", which cost {found.cost_per_million:.4g}"
        console.print(f"a million events: {found.cpu_s_per_million:,.2f} CPU seconds of the workers{cost}")
