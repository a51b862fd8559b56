"""Compare the latency of systems at the same rates, open loop, on the same broker. See README.md."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.bench import Bench, lingering, prepare_systems, prepared
from benchmarks.checks import RunFailed
from benchmarks.cluster import BrokerFailed, open_cluster
from benchmarks.latency_run import N_FIRST, LatencyRun, measure_latency
from benchmarks.options import Numbers, Systems
from benchmarks.peers import SYSTEMS
from benchmarks.report import describe_environment
from benchmarks.workloads import WORKLOADS

__all__ = ["main", "measure_rates", "n_records", "summarise_latency"]

#: How long the broker gets the highest rate before anything counts: its JVM compiles meanwhile, and whoever came first
#: would pay for that.
_WARM_UP_S = 10.0

#: What is told as the median of the rounds.
_MEASURES = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "cpu_us_per_event", "peak_rss_mb", "generator_late_ms")


def summarise_latency(runs: Sequence[LatencyRun]) -> list[dict[str, Any]]:
    """Return the medians of each system at each rate, and p50, p99 and CPU as ratios to the loop's at that rate."""
    rows = []
    for rate, system in dict.fromkeys((run.rate_per_s, run.system) for run in runs):
        own = [run for run in runs if (run.rate_per_s, run.system) == (rate, system)]
        medians = {name: round(statistics.median(getattr(run, name) for run in own), 3) for name in _MEASURES}
        rows.append({"rate_per_s": rate, "system": system, "runs": len(own), **medians})
    loops = {row["rate_per_s"]: row for row in rows if row["system"] == "loop"}
    for row in rows:
        loop = loops.get(row["rate_per_s"])
        for name in ("p50_ms", "p99_ms", "cpu_us_per_event"):
            row[f"{name}_to_loop"] = round(row[name] / loop[name], 3) if loop and loop[name] else None
    return rows


def n_records(rates: Iterable[float], seconds: float) -> int:
    """Return how many records `measure_rates` may need of a workload."""
    return N_FIRST + round(max(rates) * max(seconds, _WARM_UP_S))


def measure_rates(
    bench: Bench, rates: Sequence[tuple[str, float]], *, rounds: int, seconds: float, linger_ms: float
) -> tuple[list[LatencyRun], dict[str, str]]:
    """Run systems at rates, all in turn in each round, so that a slow minute of the machine hits all of them.

    Returns
    -------
    runs : list of LatencyRun
        What was measured.
    failed : dict of str to str
        Which systems that are not ours failed, and why. They do not run again.

    Raises
    ------
    RunFailed
        One of ours failed.
    """
    system, rate = max(rates, key=lambda pair: pair[1])
    click.echo("warming up the broker", err=True)
    with suppress(RunFailed):
        measure_latency(bench, system, 0, rate_per_s=rate, seconds=_WARM_UP_S, linger_ms=linger_ms)
    runs: list[LatencyRun] = []
    failed: dict[str, str] = {}
    for round_ in range(1, rounds + 1):
        for system, rate in rates:
            if system in failed:
                continue
            try:
                run = measure_latency(bench, system, round_, rate_per_s=rate, seconds=seconds, linger_ms=linger_ms)
            except RunFailed as error:
                if SYSTEMS[system].is_ours:
                    raise RunFailed(f"{system} at {rate:.0f}/s, round {round_}: {error}") from None
                failed[system] = f"failed at {rate:.0f}/s in round {round_}: {str(error).splitlines()[0]}"
                click.echo(f"{system}: {error}", err=True)
                continue
            runs.append(run)
            click.echo(
                f"round {round_}/{rounds}  {rate:>8,.0f}/s  {system:<15}"
                f"  p50 {run.p50_ms:>7.2f}  p99 {run.p99_ms:>7.2f} ms"
                f"  {run.cpu_us_per_event:>7.2f} µs CPU  generator late {run.generator_late_ms:.1f} ms",
                err=True,
            )
    return runs, failed


def print_latency(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print the medians to stdout."""
    table = Table(title=title)
    for name in ("rate/s", "system", "runs", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/event", "RSS MB"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for name in ("p50 to loop", "p99 to loop", "CPU to loop"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = [f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms", "cpu_us_per_event")]
        ratios = [row[f"{name}_to_loop"] for name in ("p50_ms", "p99_ms", "cpu_us_per_event")]
        shown = ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        head = [f"{row['rate_per_s']:,.0f}", row["system"], str(row["runs"])]
        table.add_row(*head, *numbers, f"{row['peak_rss_mb']:.0f}", *shown)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@click.command()
@click.option("--systems", type=Systems(), default="loop,modelstream", show_default=True, help="Comma-separated.")
@click.option("--rates", type=Numbers(), default="20000,50000,80000", show_default=True, help="Events per second.")
@click.option("--workload", "name", type=click.Choice(list(WORKLOADS)), default="mlp-20", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="Of one run.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Medians are told.")
@click.option("--linger-ms", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Of all producers.")
@click.option("--broker", default="kafka", show_default=True, help="HOST:PORT; or kafka: start one.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
def main(
    systems: list[str],
    rates: list[float],
    name: str,
    seconds: float,
    rounds: int,
    linger_ms: float,
    broker: str,
    json_file: Path | None,
) -> None:
    """Measure latency, CPU and memory of systems at rates, from when a record is due to when its output is appended.

    Every output of every run is compared with what ONNX Runtime says of that row alone.
    """
    systems, unavailable = prepare_systems(systems)
    n = n_records(rates, seconds)
    try:
        with lingering(linger_ms), open_cluster(broker) as cluster, prepared(cluster, WORKLOADS[name], n, ()) as bench:
            pairs = [(system, rate) for rate in rates for system in systems]
            runs, failed = measure_rates(bench, pairs, rounds=rounds, seconds=seconds, linger_ms=linger_ms)
    except (BrokerFailed, RunFailed) as error:
        raise click.ClickException(str(error)) from None
    rows = summarise_latency(runs)
    print_latency(rows, f"{name}: due → appended, {seconds:g} s a run, linger {linger_ms:g} ms; medians")
    unavailable |= failed
    for system, reason in unavailable.items():
        click.echo(f"not measured: {system}: {reason}")
    if json_file:
        result = {
            "workload": name,
            "rows": rows,
            "runs": [asdict(run) for run in runs],
            "unavailable": unavailable,
            "environment": describe_environment(broker),
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
