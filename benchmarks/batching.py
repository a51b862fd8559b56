"""Compare `target_p99_ms: 20` with a grid of static batch sizes and waits, under open-loop load. See README.md."""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(ROOT)

from benchmarks.batching_files import write_results  # noqa: E402
from benchmarks.batching_jobs import JOBS, Job, WrongOutput, make_job  # noqa: E402
from benchmarks.batching_load import LoadRun, poisson_arrivals, run_load, saturate  # noqa: E402
from benchmarks.batching_report import (  # noqa: E402
    TARGET_MS,
    Point,
    missed,
    print_tables,
    summarise,
)
from benchmarks.report import describe_environment  # noqa: E402

from modelstream.operators.microbatch import BatchPolicy  # noqa: E402
from modelstream.streams.infer_spec import BatchSpec  # noqa: E402

__all__ = ["main"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Parameters
    ----------
    sizes, waits_ms : tuple
        The static grid.
    loads : tuple of float
        Shares of the capacity.
    rounds : int
        Every policy runs once a round, and each round has its own arrivals; medians are reported.
    duration_s, saturation_s : float
        Of a run.
    targets : int
        Runs of the target in a round: so many that luck does not decide between one policy and a whole grid.
    duels : int
        Runs at saturation of the target and of the best static size, in turn.
    """

    sizes: tuple[int, ...]
    waits_ms: tuple[float, ...]
    loads: tuple[float, ...]
    rounds: int
    duration_s: float
    saturation_s: float
    targets: int
    duels: int


FULL = Plan((8, 32, 128, 512, 1024, 4096), (0, 2, 10), (0.2, 0.5, 0.8, 0.95), 3, 0.7, 0.4, 3, 9)
QUICK = Plan((32, 256, 1024), (0, 5), (0.2, 0.5, 0.8, 0.95), 1, 0.4, 0.2, 2, 5)


def _measure(job: Job, plan: Plan, say: Say) -> list[Point]:
    """Return a job's points: each policy at saturation and at each load."""
    target = Point(job.name, "target", 0, 0.0)
    grid = [Point(job.name, f"{size}×{wait:g}ms", size, wait) for size in plan.sizes for wait in plan.waits_ms]
    capacity = _saturate_all(job, plan, target, [point for point in grid if point.max_wait_ms == 0])
    say(f"{job.name}: {capacity:,.0f} events/s at saturation")
    every = max(len(grid) // plan.targets, 1)
    for round_ in range(plan.rounds):
        for load in plan.loads:
            arrivals = poisson_arrivals(load * capacity, plan.duration_s, seed=round_)
            for i, point in enumerate(grid):
                if i % every == 0 and i // every < plan.targets:
                    target.add(load, _run(job, target, arrivals))
                point.add(load, _run(job, point, arrivals))
            say(f"{job.name}: round {round_ + 1}/{plan.rounds}, load {load:.0%}")
    return [target, *grid]


def _saturate_all(job: Job, plan: Plan, target: Point, sizes: Iterable[Point]) -> float:
    """Measure what each size gives at saturation; then the best of them, and the target, again and again in turn."""
    sizes = list(sizes)
    for _ in range(max(plan.rounds, 2)):
        for point in sizes:
            gc.collect()
            point.saturated.append(saturate(job, _policy(point), plan.saturation_s))
    best = max(sizes, key=lambda point: point.events_per_s or 0)
    # What made it the best may have been luck, so only the duel counts.
    best.saturated.clear()
    for _ in range(plan.duels):
        for point in (best, target):
            gc.collect()
            point.saturated.append(saturate(job, _policy(point), plan.saturation_s))
    best.is_best = True
    return best.events_per_s or 0.0


def _run(job: Job, point: Point, arrivals: Any) -> LoadRun:
    gc.collect()
    return run_load(job, _policy(point), arrivals)


def _policy(point: Point) -> BatchPolicy:
    if point.policy == "target":
        return BatchPolicy(max_size=BatchSpec(target_p99_ms=TARGET_MS).most_rows, target_p99_s=TARGET_MS / 1000)
    return BatchPolicy(max_size=point.max_size, max_wait_s=point.max_wait_ms / 1000)


class _Names(click.ParamType):
    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in JOBS:
                self.fail(f"no model {name!r}; there are {', '.join(JOBS)}", param, ctx)
        return list(dict.fromkeys(names))


@click.command()
@click.option("--models", type=_Names(), help=f"Comma-separated.  [default: {','.join(JOBS)}]")
@click.option("--quick", is_flag=True, help="A small grid and one round: a minute instead of ten.")
@click.option("--rounds", type=click.IntRange(min=1), help="Runs of each point; medians are reported.")
@click.option("--duration", type=click.FloatRange(min=0.01), help="Seconds of a run.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write batching.csv, .md and .svg into this folder; models that are not run keep what stands there.",
)
@click.option("--check", is_flag=True, help="Exit with 1, and say what was missed, where a verdict is not: holds.")
def main(
    models: list[str] | None,
    quick: bool,
    rounds: int | None,
    duration: float | None,
    json_file: Path | None,
    results: Path | None,
    check: bool,
) -> None:
    """Say whether `target_p99_ms: 20` holds wherever a static size and wait can, and what it costs at saturation.

    Every output of every run is compared with what one call of ONNX Runtime gives its row.
    """
    settings = asdict(QUICK if quick else FULL)
    if rounds:
        settings["rounds"] = rounds
    if duration:
        settings["duration_s"], settings["saturation_s"] = duration, min(duration, settings["saturation_s"])
    plan = Plan(**settings)
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="modelstream-bench-") as folder:
        jobs = [make_job(name, Path(folder)) for name in models or JOBS]
        gc.collect()
        gc.freeze()  # as a worker does: the models and rows are no garbage, and looking through them takes a while
        try:
            for job in jobs:
                points += _measure(job, plan, lambda text: click.echo(text, err=True))
        except WrongOutput as error:
            raise click.ClickException(str(error)) from None
    summary = summarise(points)
    print_tables(summary)
    if json_file:
        result = {**summary, "plan": asdict(plan), "environment": describe_environment("none")}
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if results:
        write_results(results, points)
    if check and (what := missed(summary)):
        raise click.ClickException(what)


if __name__ == "__main__":
    main()
