"""Compare modelstream with a hand-written loop, stock Faust and Quix Streams on the same job. See README.md."""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(ROOT)

from benchmarks import peers  # noqa: E402
from benchmarks.checks import RunFailed  # noqa: E402
from benchmarks.cluster import BrokerFailed, Cluster, open_broker  # noqa: E402
from benchmarks.measurement import Run, measure  # noqa: E402
from benchmarks.report import describe_environment, missed, print_table, summarise  # noqa: E402
from benchmarks.workloads import WORKLOADS, Workload  # noqa: E402

__all__ = ["main"]

DEFAULT_EVENTS = 1_000_000

#: Long enough for memory that is not given back to show.
SOAK_EVENTS = 5_000_000

#: Fewer events than this are over before the first sample.
_LEAST_EVENTS = 1_000

#: The broker's JVM compiles nothing for less.
_WARM_UP_FROM = 100_000


@dataclass
class Bench:
    """A broker with the inputs on it, the model, and the right answers."""

    cluster: Cluster
    prefix: str
    workdir: Path
    workload: Workload
    model: Path
    expected: NDArray[np.float32]

    def input_topic(self, n: int) -> str:
        """Return the topic that holds the first `n` records."""
        return f"{self.prefix}.in.{n}"

    def run(self, system: str, round_: int, n: int) -> Run:
        """Run one system over the first `n` records, with a group and an output topic of its own."""
        topic = f"{self.prefix}.{system}.{round_}"
        workdir = self.workdir / f"{system}-{round_}"
        workdir.mkdir()
        self.cluster.create_topic(topic, transactional=system == "modelstream-eos")
        # modelstream does not start without one. An event that lands there is a lost one to the check.
        self.cluster.create_topic(f"{topic}.dead")
        command = [
            *(str(peers.python_of(system, ROOT)), "-m", peers.SYSTEMS[system].module),
            *("--broker", self.cluster.address, "--input-topic", self.input_topic(n), "--output-topic", topic),
            *(
                "--group",
                topic,
                "--workload",
                self.workload.name,
                "--model",
                str(self.model),
                "--workdir",
                str(workdir),
            ),
        ]
        return measure(
            self.cluster,
            command,
            root=ROOT,
            workdir=workdir,
            system=system,
            round_=round_,
            input_topic=self.input_topic(n),
            output_topic=topic,
            workload=self.workload,
            expected=self.expected[:n],
        )


@contextmanager
def _prepared(broker: str, workload: Workload, sizes: Sequence[int]) -> Iterator[Bench]:
    """Start the broker and put the inputs on it, one topic for each number of events."""
    with tempfile.TemporaryDirectory(prefix="modelstream-bench-") as folder, open_broker(broker) as address:
        cluster, workdir = Cluster(address), Path(folder)
        click.echo(f"preparing {max(sizes):,} records", err=True)
        model, expected = workload.write_model(workdir), workload.expected(max(sizes))
        bench = Bench(cluster, f"bench-{uuid.uuid4().hex[:8]}", workdir, workload, model, expected)
        try:
            for n in sorted(set(sizes)):
                cluster.preload(bench.input_topic(n), workload.records(n))
            yield bench
        finally:
            cluster.close()


def _prepare(systems: Sequence[str], workload: str) -> tuple[list[str], dict[str, str]]:
    """Install what the systems need; return those that can run, and why the others cannot."""
    ready, unavailable = [], {}
    for system in systems:
        try:
            peers.prepare(system, ROOT, workload)
            ready.append(system)
        except peers.Unavailable as reason:
            unavailable[system] = str(reason)
            click.echo(f"{system} cannot run here: {reason}", err=True)
    if not ready:
        raise click.ClickException("none of the systems can run here")
    return ready, unavailable


def _events_of(system: str, events: int) -> int:
    return max(events // peers.SYSTEMS[system].part, min(events, _LEAST_EVENTS))


def _measure_all(bench: Bench, systems: Sequence[str], events: int, runs: int, warm_up: bool) -> list[Run]:
    """Run the systems in turn, round by round, so that a slow minute of the machine hits all of them."""
    found = []
    if warm_up:
        # The broker is a JVM: whoever comes first would pay for its compilation. This run is not counted.
        click.echo("warming up the broker", err=True)
        bench.run("loop", 0, max(_events_of(system, events) for system in systems))
    for round_ in range(1, runs + 1):
        for system in systems:
            try:
                run = bench.run(system, round_, _events_of(system, events))
            except RunFailed as error:
                raise RunFailed(f"{system}, round {round_}: {error}") from None
            found.append(run)
            click.echo(
                f"round {round_}/{runs}  {system:<15} {run.events_per_s:>10,.0f} events/s"
                f"  {run.cpu_us_per_event:>7.2f} µs CPU  {run.peak_rss_mb:>6.0f} MB",
                err=True,
            )
    return found


class _Systems(click.ParamType):
    name = "systems"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = value if isinstance(value, list) else [name.strip() for name in value.split(",")]
        for name in names:
            if name not in peers.SYSTEMS:
                self.fail(f"no system {name!r}; there are {', '.join(peers.SYSTEMS)}", param, ctx)
        return list(dict.fromkeys(names))


@click.command()
@click.option("--systems", type=_Systems(), help="Comma-separated.  [default: loop,modelstream,faust,quix]")
@click.option("--workload", "name", type=click.Choice(list(WORKLOADS)), default="mlp-20", show_default=True)
@click.option("--events", type=click.IntRange(min=1), help=f"Events of the fast systems.  [default: {DEFAULT_EVENTS}]")
@click.option("--runs", type=click.IntRange(min=1), help="Rounds; medians are reported.  [default: 3]")
@click.option("--broker", default="kafka", show_default=True, help="HOST:PORT; or kafka, embedded: start one.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--soak", is_flag=True, help=f"One run of modelstream with {SOAK_EVENTS} events, for its memory.")
@click.option(
    "--at-least",
    type=click.FloatRange(min=0),
    metavar="RATIO",
    help="Exit with 1 where modelstream's ratio to the loop is below.",
)
def main(
    systems: list[str] | None,
    name: str,
    events: int | None,
    runs: int | None,
    broker: str,
    json_file: Path | None,
    soak: bool,
    at_least: float | None,
) -> None:
    """Measure throughput, CPU and memory of several systems on the same job, one worker each, in turn.

    Every output of every run is compared with what ONNX Runtime says of that row alone.
    """
    systems = systems or (["modelstream"] if soak else ["loop", "modelstream", "faust", "quix"])
    if at_least is not None and not {"loop", "modelstream"} <= set(systems):
        raise click.UsageError("--at-least compares modelstream with the loop, and --systems or --soak leaves one out")
    events = events or (SOAK_EVENTS if soak else DEFAULT_EVENTS)
    events = min(events, WORKLOADS[name].n_events_max or events)
    runs = runs or (1 if soak else 3)
    systems, unavailable = _prepare(systems, name)
    try:
        with _prepared(broker, WORKLOADS[name], [_events_of(system, events) for system in systems]) as bench:
            found = _measure_all(bench, systems, events, runs, warm_up=not soak and events >= _WARM_UP_FROM)
    except (BrokerFailed, RunFailed) as error:
        raise click.ClickException(str(error)) from None
    summary = summarise(found)
    print_table(summary, found)
    for system, reason in unavailable.items():
        click.echo(f"not measured: {system}: {reason}")
    if json_file:
        result = {
            "systems": summary,
            "runs": [asdict(run) for run in found],
            "unavailable": unavailable,
            "environment": describe_environment(broker),
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if at_least is not None and (what := missed(summary, at_least)):
        raise click.ClickException(what)


if __name__ == "__main__":
    main()
