"""How `replay` shows what goes on, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelstream.streams.cli.progress import rounded_rate
from modelstream.streams.replay.arrivals import Pace, Schedule
from modelstream.streams.replay.findings import clamped_by, findings
from modelstream.streams.replay.live_figures import Progress
from modelstream.streams.replay.report_text import figure
from modelstream.streams.replay.result import Latency, ReplayResult, StageFigures
from modelstream.streams.wording import counted, rough_time

__all__ = ["planned_s", "print_result", "say_plan", "show_replay"]

# Seconds between two plain lines: few enough for a log.
_LINE_EVERY_S = 5.0
# Seconds without an answer that are worth a word: beyond a rebalance or a slow batch, not yet a person's patience.
_SILENT_S = 3.0


def planned_s(schedule: Schedule) -> float | None:
    """Return seconds until the last event is due; None where the events are sent as fast as they can be."""
    return None if schedule.due_us is None or not len(schedule.due_us) else float(schedule.due_us[-1]) / 1e6


def say_plan(pace: Pace, schedule: Schedule, n_events: int) -> None:
    """Say how long a replay will take, where that is known."""
    seconds = planned_s(schedule)
    if seconds is not None:
        what = counted(n_events, "event") if pace.speed is None else f"{rough_time(seconds * pace.speed)} of events"
        click.echo(f"{what} at {pace}: about {rough_time(seconds)}", err=True)


@contextmanager
def show_replay(enabled: bool = True, length_s: float | None = None) -> Iterator[Callable[[Progress], None]]:
    """Show how far a replay is while the block runs: a line that changes on a terminal, one now and then elsewhere.

    Parameters
    ----------
    enabled : bool
        False shows nothing.
    length_s : float, optional
        How long it will take, where that is known.
    """
    console = Console(stderr=True)
    if not enabled:
        yield lambda progress: None
    elif console.is_terminal:
        # Drawn when there is something new: a thread that draws would hold up who measures.
        with Live(Text("waiting for the generator …"), console=console, auto_refresh=False, transient=True) as live:
            yield lambda progress: live.update(Text(_line(progress, length_s)), refresh=True)
    else:
        yield _plain_lines(length_s)


def _plain_lines(length_s: float | None) -> Callable[[Progress], None]:
    last = time.monotonic() - _LINE_EVERY_S + 1.0  # the first line soon: it says that all is under way

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(_line(progress, length_s), err=True)

    return show


def _line(progress: Progress, length_s: float | None = None) -> str:
    rate = rounded_rate(progress.answered, progress.seconds)
    parts = [
        f"{progress.sent / max(progress.events, 1):4.0%}",
        f"sent {progress.sent:,}",
        f"answered {progress.answered:,}",
        f"lag {progress.lag:,}",
        f"{rate}/s",
    ]
    if length_s is not None and progress.sent < progress.events:
        parts.append(f"{rough_time(max(length_s - progress.seconds, 0.0))} left")
    if progress.silent_s >= _SILENT_S:
        # What latencies were before that is no news of now.
        parts.append(f"no answer for {rough_time(progress.silent_s)}")
    elif progress.p50_ms is not None and progress.p99_ms is not None:
        parts.append(f"now {_ms(progress.p50_ms)} / {_ms(progress.p99_ms)} ms (p50 / p99)")
    return "  ".join(parts)


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def print_result(result: ReplayResult) -> None:
    """Print the figures of a replay as a table."""
    table = Table(show_header=False, box=None)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for value, what in _rows(result):
        table.add_row(value, what)
    console = Console()
    console.print(table)
    if result.consumer_latency is not None:
        console.print(_latency_table(result))
    if result.first_dead_letter:
        click.echo(f"the first dead letter: {result.first_dead_letter}")
    if result.arrivals == "max" and result.latency_clock != "virtual" and result.answers_per_s is not None:
        click.echo("The steady rate is the one to compare with capacity and what-if.")
    for finding in findings(result):
        if finding.level == "warning":
            click.echo(f"{finding.title}. {finding.text}")


def _rows(result: ReplayResult) -> Iterator[tuple[str, str]]:
    if result.ended_early:
        yield "–", f"ended early, by {'a failure' if result.failure else 'Ctrl-C'}"
    yield from _sent_rows(result)
    yield f"{result.predictions:,}", "predictions out"
    for count, what in (
        (result.filtered, "filtered"),
        (result.dead_letters, "dead letters"),
        *((n_letters, f"  {reason}") for reason, n_letters in result.dead_letter_reasons.items()),
        (result.missing, "missing"),
        (result.duplicates, "duplicate"),
    ):
        yield ("?" if count is None else f"{count:,}"), what
    yield from _rates(result)
    if result.predictions or result.dead_letters:
        among = ", of those that got one" if result.unanswered else ""
        yield f"{result.max_lag:,}", f"events waiting for an answer at the most{among}"
    for stage in result.stages:
        yield from _stage_rows(stage)
    if result.cpu_us_per_event is not None and result.peak_rss_mb is not None:
        workers = "the worker" if result.workers == 1 else f"{result.workers} workers"
        yield f"{result.cpu_us_per_event:,.2f}", f"µs of CPU per event, of {workers}"
        yield f"{result.peak_rss_mb:,.0f}", f"MB of memory at the most, of {workers}"
    if result.machine_busy is not None:
        cpus = f"the {result.environment.cpus} processors" if result.environment.cpus > 1 else "the processor"
        yield f"{result.machine_busy:.0%}", f"of {cpus} here in use, by these and whatever else ran"
    yield from _input_rows(result)


def _input_rows(result: ReplayResult) -> Iterator[tuple[str, str]]:
    if result.latency_clock != "virtual":
        late = f"{_ms(result.p99_send_delay_ms)} / {_ms(result.max_send_delay_ms)}"
        yield late, "ms that the generator was behind, p99 / max"
    if result.clamped_events:
        yield f"{result.clamped_events:,}", f"events out of order by time, sent {clamped_by(result)}"
    if result.repeated_ids:
        yield f"{result.repeated_ids:,}", "events with the id of an earlier one"


def _rates(result: ReplayResult) -> Iterator[tuple[str, str]]:
    of_time = " of virtual time" if result.latency_clock == "virtual" else ""
    rates = [
        (figure(result.events_per_s), f"events per second over all {result.seconds:,.1f} s{of_time}, start included")
    ]
    if result.answers_per_s is not None:
        what = f"predictions per second, the steady rate: the first {result.warm_up:.0%} left out"
        # At full speed it is the result; at a pace, whether that was kept.
        rates.insert(0 if result.arrivals == "max" else 1, (figure(result.answers_per_s), what))
    yield from rates


def _sent_rows(result: ReplayResult) -> Iterator[tuple[str, str]]:
    if result.sent is None or result.unanswered is None:
        yield f"{result.events:,}", f"events in, {_pace(result)}"
        return
    among = ", filtered ones included" if result.filtered is None else ""
    yield f"{result.sent:,}", f"events sent, {_pace(result)}"
    yield f"{result.unanswered:,}", f"of them without an answer when it ended{among}"
    if result.failure:
        yield f"{result.events:,}", "events up to the last one answered: the figures are of these"


def _pace(result: ReplayResult) -> str:
    if result.arrivals == "max":
        return "as fast as they could be sent"
    how = {"recorded": "as recorded", "poisson": "at random", "even": "in equal steps"}[result.arrivals]
    return f"at {result.speed}, {how}"


def _latency_table(result: ReplayResult) -> Table:
    table = Table(box=None)
    share = f" (first {result.warm_up:.0%} left out)" if result.warm_up else ""
    table.add_column(f"ms from due time{share}")
    for name in ("p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    consumer = "by the virtual clock" if result.latency_clock == "virtual" else "at a consumer"
    clocks = {"on Kafka (LogAppendTime)": result.append_latency, consumer: result.consumer_latency}
    for clock, latency in clocks.items():
        if latency is not None:
            table.add_row(clock, *_percentiles(latency))
    return table


def _percentiles(latency: Latency) -> list[str]:
    return [_ms(ms) for ms in (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms)]


def _stage_rows(stage: StageFigures) -> Iterator[tuple[str, str]]:
    if stage.mean_rows is not None:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in stage.close_reasons.items())
        yield f"{stage.mean_rows:,.1f}", f"rows in a micro-batch of {stage.step_id} ({reasons})"
    cache = stage.cache
    if cache is not None:
        hits = cache.hits + cache.duplicates + cache.coalesced
        rows = hits + cache.misses + cache.bypassed
        if rows:
            yield f"{hits / rows:.1%}", f"of its rows had their answer in the cache of {stage.step_id}"
