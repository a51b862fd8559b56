"""Compare modelstream with what people would pick instead, on the same jobs. See README.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click

if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.bench import prepare_systems
from benchmarks.checks import RunFailed
from benchmarks.cluster import BrokerFailed, open_cluster
from benchmarks.matrix import EVENTS, Found, run_matrix
from benchmarks.options import Systems, Workloads
from benchmarks.report import Summary, describe_environment, missed, print_table, ratio_of, summarise
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]

#: Long enough for memory that is not given back to show.
SOAK_EVENTS = 5_000_000

_EOS = "modelstream-eos"


class _Least(NamedTuple):
    """What the ratio of one system's rate to another's must reach, if anything."""

    option: str
    ratio: float | None
    system: str
    base: str

    def check(self, systems: Sequence[str]) -> None:
        if self.ratio is not None and not {self.system, self.base} <= set(systems):
            what = f"{self.option} compares {self.system} with {self.base}, and --systems or --soak leaves one out"
            raise click.UsageError(what)

    def require(self, workload: str, summary: Summary) -> None:
        if self.ratio is not None and (what := missed(summary, self.ratio, self.system, self.base)):
            raise click.ClickException(f"{workload}: {what}")


@click.command()
@click.option("--systems", type=Systems(), help="Comma-separated.  [default: loop,modelstream,faust,quix]")
@click.option("--workloads", type=Workloads(), default="mlp-20", show_default=True, help="Comma-separated.")
@click.option("--events", type=click.IntRange(min=1), help="Events of the fast systems.  [default: by workload]")
@click.option("--runs", type=click.IntRange(min=1), help="Rounds; medians are reported.  [default: 3]")
@click.option("--broker", default="kafka", show_default=True, help="HOST:PORT; or kafka, embedded: start one.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--soak", is_flag=True, help=f"One run of modelstream with {SOAK_EVENTS} events, for its memory.")
@click.option(
    "--at-least",
    type=click.FloatRange(min=0),
    metavar="RATIO",
    help="Exit with 1 where modelstream's ratio to the loop is below, on any of the workloads.",
)
@click.option(
    "--eos-at-least",
    type=click.FloatRange(min=0),
    metavar="RATIO",
    help="The same for the ratio of modelstream-eos to modelstream.",
)
def main(
    systems: list[str] | None,
    workloads: list[str],
    events: int | None,
    runs: int | None,
    broker: str,
    json_file: Path | None,
    soak: bool,
    at_least: float | None,
    eos_at_least: float | None,
) -> None:
    """Measure throughput, CPU and memory of several systems on the same jobs, one worker each, in turn.

    Every output of every run is compared with what ONNX Runtime says of that row alone.
    """
    systems = systems or (["modelstream"] if soak else ["loop", "modelstream", "faust", "quix"])
    leasts = [
        _Least("--at-least", at_least, "modelstream", "loop"),
        _Least("--eos-at-least", eos_at_least, _EOS, "modelstream"),
    ]
    for least in leasts:
        least.check(systems)
    systems, unavailable = prepare_systems(systems)
    runs = runs or (1 if soak else 3)
    found: dict[str, Found] = {}
    try:
        with open_cluster(broker) as cluster:
            for name in workloads:
                n = events or (SOAK_EVENTS if soak else EVENTS[name][0])
                found[name] = run_matrix(cluster, WORKLOADS[name], systems, events=n, rounds=runs, warm_up=not soak)
                found[name].unavailable.update(unavailable)
    except (BrokerFailed, RunFailed) as error:
        raise click.ClickException(str(error)) from None
    told = {name: summarise(one.runs) for name, one in found.items()}
    for name, one in found.items():
        print_table(told[name], one.runs)
        if (ratio := ratio_of(told[name], _EOS, "modelstream")) is not None:
            click.echo(f"exactly-once to at-least-once: {ratio:.3f}")
        for system, reason in one.unavailable.items():
            click.echo(f"not measured: {system}: {reason}")
    if json_file:
        result = {
            "workloads": {name: {"systems": told[name], "unavailable": one.unavailable} for name, one in found.items()},
            "runs": [asdict(run) for one in found.values() for run in one.runs],
            "environment": describe_environment(broker),
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    for name in workloads:
        for least in leasts:
            least.require(name, told[name])


if __name__ == "__main__":
    main()
