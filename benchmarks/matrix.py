"""Which system does which workload with how many events; and all of them in turn, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import click
from benchmarks.bare import BARE, measure_bare
from benchmarks.bench import Bench, prepared
from benchmarks.checks import RunFailed
from benchmarks.cluster import Cluster
from benchmarks.measurement import Run
from benchmarks.peers import SYSTEMS
from benchmarks.workloads import Workload

__all__ = ["EVENTS", "Found", "cannot", "run_matrix"]

#: Events of the fast systems, in the full measurement and in the quick one. A run shall take some seconds, and a topic
#: of 8 kB records not more than half a gigabyte.
EVENTS = {
    "mlp-20": (1_000_000, 400_000),
    "flights": (336_776, 150_000),
    "ffnn-784": (60_000, 20_000),
    "ffnn-784-csv": (60_000, 20_000),
    "gbdt-500": (200_000, 60_000),
    "cnn": (40_000, 12_000),
}

#: Fewer events than this are over before the first sample.
_LEAST_EVENTS = 1_000

#: The broker's JVM compiles nothing for less.
_WARM_UP_FROM = 10_000


@dataclass
class Found:
    """What was measured of one workload, and why the rest was not."""

    runs: list[Run] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)


def cannot(system: str, workload: str) -> str | None:
    """Return why a system does not do a workload; None where it does."""
    if workload == "flights" and system.startswith("loop-own"):
        return "modelstream decodes whole events by orjson, as the loop does: it would be the loop"
    if workload == "flights" and SYSTEMS[system].vectors_only:
        return "it is written for workloads of vectors only"
    return None


def run_matrix(
    cluster: Cluster,
    workload: Workload,
    systems: Sequence[str],
    *,
    events: int,
    rounds: int,
    peer_rounds: int | None = None,
    warm_up: bool = True,
) -> Found:
    """Run systems in turn, round by round, so that a slow minute of the machine hits all of them.

    Parameters
    ----------
    cluster : Cluster
        Where the topics are; they are gone afterwards.
    workload : Workload
        What all of them do.
    systems : sequence of str
        Which can run here.
    events : int
        Of the fast systems; slow ones get a part of it.
    rounds : int
        How often each of ours runs (`System.is_ours`).
    peer_rounds : int, optional
        How often the others do; by default as often.
    warm_up : bool
        Whether the loop runs once before, uncounted: the broker is a JVM, and whoever comes first would pay for its
        compilation.

    Raises
    ------
    RunFailed
        One of ours failed. Another system that fails is told with the reason.
    """
    found = Found(unavailable={name: why for name in systems if (why := cannot(name, workload.name))})
    able = [name for name in systems if name not in found.unavailable]
    if not able:
        return found
    events = min(events, workload.n_events_max or events)
    sizes = {name: _events_of(name, events) for name in able}
    with prepared(cluster, workload, max(sizes.values()), [n for name, n in sizes.items() if name != BARE]) as bench:
        if warm_up and set(able) != {BARE} and max(sizes.values()) >= _WARM_UP_FROM:
            click.echo("warming up the broker", err=True)
            bench.run("loop", 0, max(n for name, n in sizes.items() if name != BARE))
        for round_ in range(1, rounds + 1):
            for name in able:
                is_due = SYSTEMS[name].is_ours or peer_rounds is None or round_ <= peer_rounds
                if is_due and name not in found.unavailable:
                    _run_one(bench, name, round_, sizes[name], found)
    return found


def _run_one(bench: Bench, system: str, round_: int, n: int, found: Found) -> None:
    try:
        run = measure_bare(bench, round_, n) if system == BARE else bench.run(system, round_, n)
    except RunFailed as error:
        if SYSTEMS[system].is_ours:
            raise RunFailed(f"{system} on {bench.workload.name}, round {round_}: {error}") from None
        found.unavailable[system] = f"failed in round {round_}: {str(error).splitlines()[0]}"
        click.echo(f"{system}: {error}", err=True)
        return
    found.runs.append(run)
    memory = "" if run.peak_rss_mb is None else f"  {run.peak_rss_mb:>6.0f} MB"
    click.echo(
        f"{run.workload:<13} round {round_}  {system:<20} {run.events_per_s:>10,.0f} events/s"
        f"  {run.cpu_us_per_event:>7.2f} µs CPU{memory}",
        err=True,
    )


def _events_of(system: str, events: int) -> int:
    return max(events // SYSTEMS[system].part, min(events, _LEAST_EVENTS))
