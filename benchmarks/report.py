"""What is told of the runs: medians, a table, and where they were measured."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.measurement import Run
from benchmarks.peers import SYSTEMS, onnxruntime_of
from rich.console import Console
from rich.table import Table

from modelstream.streams.replay.environment import describe_environment as replay_environment

__all__ = ["Summary", "describe_environment", "missed", "print_table", "ratio_of", "summarise"]

#: By system, by measure.
Summary = dict[str, dict[str, float | None]]


def summarise(runs: Sequence[Run]) -> Summary:
    """Return the medians of each system over its runs, and the ratio of its median rate to the loop's.

    Parameters
    ----------
    runs : sequence of Run
        The runs of all systems.

    Returns
    -------
    dict
        By system: ``events_per_s``, ``cpu_us_per_event``, ``peak_rss_mb``, None where no worker has any, and
        ``ratio_to_loop``, None without a loop.
    """
    summary: Summary = {}
    names = ("events_per_s", "cpu_us_per_event")
    for system in dict.fromkeys(run.system for run in runs):
        own = [run for run in runs if run.system == system]
        summary[system] = {name: statistics.median(getattr(run, name) for run in own) for name in names}
        memory = [run.peak_rss_mb for run in own if run.peak_rss_mb is not None]
        summary[system]["peak_rss_mb"] = statistics.median(memory) if memory else None
    for system, row in summary.items():
        ratio = ratio_of(summary, system, "loop")
        row["ratio_to_loop"] = None if ratio is None else round(ratio, 4)
    return summary


def ratio_of(summary: Summary, system: str, base: str) -> float | None:
    """Return the ratio of a system's median rate to another one's; None where one of them is not there."""
    rate, other = (summary.get(name, {}).get("events_per_s") for name in (system, base))
    return rate / other if rate and other else None


def missed(summary: Summary, at_least: float, system: str = "modelstream", base: str = "loop") -> str | None:
    """Return what is wrong with the ratio of a system to another one, in one line; None where it is high enough.

    Parameters
    ----------
    summary : dict
        As `summarise` returns it.
    at_least : float
        What the ratio must reach.
    system, base : str
        Whose rate is compared with whose.
    """
    ratio = ratio_of(summary, system, base)
    if ratio is None:
        return f"there is no ratio of {system} to {base}"
    # So put that NaN misses, too.
    return None if ratio >= at_least else f"the ratio of {system} to {base}, {ratio:.4f}, is below {at_least:g}"


def describe_environment(broker: str) -> dict[str, Any]:
    """Return what the figures depend on: machine, interpreter, packages, and which broker was asked for."""
    own = replay_environment(broker)
    return {
        "broker": broker,
        "cpu": own.cpu,
        "cpus": own.cpus,
        "memory_gb": own.memory_gb,
        "system": f"{platform.system()} {platform.machine()}",
        "python": own.python,
        "packages": own.versions,
        "onnxruntime": {system: onnxruntime_of(system) for system in SYSTEMS},
    }


def print_table(summary: Summary, runs: Sequence[Run]) -> None:
    """Print the medians, and the highest growth of resident memory, to stdout; nothing where there are no runs."""
    if not runs:
        return
    table = Table(title=f"{runs[0].workload}: one worker, 2 partitions, at-least-once; medians")
    table.add_column("system")
    for title in (
        "events",
        "runs",
        "events/s",
        "from … to",
        "CPU µs/event",
        "peak RSS MB",
        "RSS growth MB",
        "ratio to loop",
    ):
        table.add_column(title, justify="right")
    for system, row in summary.items():
        own = [run for run in runs if run.system == system]
        ratio = row["ratio_to_loop"]
        table.add_row(
            system,
            f"{own[0].events:,}",
            str(len(own)),
            f"{row['events_per_s']:,.0f}",
            f"{min(run.events_per_s for run in own):,.0f} … {max(run.events_per_s for run in own):,.0f}",
            f"{row['cpu_us_per_event']:.2f}",
            "–" if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.0f}",
            f"{max(run.rss_growth_mb for run in own):.0f}",
            "–" if ratio is None else f"{ratio:.3f}",
        )
    # Wide enough for the table where stdout is a file and has no width.
    Console(width=None if sys.stdout.isatty() else 130).print(table)
