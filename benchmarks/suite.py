"""All benchmarks of the suite in one command, and their results as files. See README.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from confluent_kafka import KafkaException

if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.bench import ROOT, lingering, prepare_systems, prepared
from benchmarks.checks import RunFailed
from benchmarks.cluster import BrokerFailed, Cluster, open_cluster
from benchmarks.latency import measure_rates, n_records, summarise_latency
from benchmarks.latency_run import LatencyRun
from benchmarks.matrix import EVENTS, run_matrix
from benchmarks.measurement import Run
from benchmarks.options import Numbers, Systems, Workloads
from benchmarks.peers import SYSTEMS
from benchmarks.pieces import put
from benchmarks.report import describe_environment, print_table, summarise
from benchmarks.results import headline, put_between_marks, write_results
from benchmarks.scaling import ScalingRun, measure_scaling, summarise_scaling
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]

#: Where latency is measured: by a record of 200 bytes, and with what the hand-written loop is at its best.
_LATENCY_ON, _LINGER_MS = "mlp-20", 1.0

#: Rates of the cost curve; the loop and modelstream both keep up with all of them on two cores.
_RATES = (1_000, 5_000, 10_000, 20_000, 50_000, 80_000, 120_000)

_SCALING_ON = ("mlp-20", "gbdt-500")

#: More than the generator sends in time beside a broker and a worker on two cores.
_MOST_PER_S = 120_000


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Parameters
    ----------
    workloads, systems : sequence of str
        Of the throughput.
    rounds, peer_rounds : int
        How often our systems run (`System.is_ours`), and the others.
    rates : sequence of int
        At which latency is measured, for so many seconds in each of `rounds`.
    seconds : float
        Of one run at a rate.
    sections : sequence of str
        What is measured.
    is_quick : bool
        Whether fewer events are.
    most_events : int, optional
        Of any workload.
    """

    workloads: Sequence[str]
    systems: Sequence[str]
    rounds: int
    peer_rounds: int
    rates: Sequence[int]
    seconds: float
    sections: Sequence[str]
    is_quick: bool
    most_events: int | None = None

    def events(self, workload: str) -> int:
        """Return how many events the fast systems get."""
        n = EVENTS[workload][self.is_quick]
        return min(n, self.most_events or n)


_QUICK = Plan(
    workloads=("mlp-20", "flights", "ffnn-784-csv", "gbdt-500"),
    systems=tuple(name for name, system in SYSTEMS.items() if system.is_quick),
    rounds=3,
    peer_rounds=1,
    rates=(1_000, 20_000, 50_000, 80_000),
    seconds=5.0,
    sections=("throughput", "latency"),
    is_quick=True,
)

_FULL = Plan(
    workloads=tuple(WORKLOADS),
    systems=tuple(SYSTEMS),
    rounds=5,
    peer_rounds=5,
    rates=_RATES,
    seconds=10.0,
    sections=("throughput", "latency", "half_load", "scaling"),
    is_quick=False,
)

#: Quick rounds have no time for all peers on all workloads: on these two they differ the most.
_PEERS_QUICK = ("mlp-20", "ffnn-784-csv")


class Suite:
    """Measures sections of a plan, and keeps what was found in a file after each, so that nothing is lost.

    Parameters
    ----------
    plan : Plan
        What to measure.
    cluster : Cluster
        Where.
    found : dict
        What was found before, which is replaced system by system in each part.
    keep : callable
        Called when there is more of it.
    environment : dict
        Where it runs, as `describe_environment` says.
    """

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        found: dict[str, Any],
        keep: Callable[[], None],
        environment: dict[str, Any],
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._cluster = cluster
        self._found = found
        self._keep = keep
        self._ready, self._unavailable = prepare_systems(plan.systems)

    def _note(
        self,
        section: str,
        workload: str,
        runs: Sequence[Run | LatencyRun | ScalingRun],
        unavailable: Mapping[str, str],
        **setting: str,
    ) -> None:
        measured = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        piece = {"measured": measured, "environment": self._environment, **setting}
        parts = self._found.setdefault(section, {})
        part = put(parts.get(workload), piece, [asdict(run) for run in runs], unavailable)
        parts[workload] = {**part, **_TOLD[section](part["runs"])}
        self._keep()

    def _compared(self, section: str) -> list[str]:
        """Return those of the loop and modelstream that can run; a section of these alone is skipped without them."""
        systems = [name for name in ("loop", "modelstream") if name in self._ready]
        if not systems:
            click.echo(f"{section} is skipped: it is of loop and modelstream, and neither is measured here", err=True)
        return systems

    def throughput(self) -> None:
        """Measure events per second of each workload."""
        plan = self._plan
        for name in plan.workloads:
            systems = [one for one in self._ready if SYSTEMS[one].is_ours or not plan.is_quick or name in _PEERS_QUICK]
            more = {"events": plan.events(name), "rounds": plan.rounds, "peer_rounds": plan.peer_rounds}
            one = run_matrix(self._cluster, WORKLOADS[name], systems, **more)
            print_table(summarise(one.runs), one.runs)
            self._note("throughput", name, one.runs, {**self._unavailable, **one.unavailable})

    def latency(self) -> None:
        """Measure latency and CPU of the loop and of modelstream at the same rates."""
        plan = self._plan
        systems = self._compared("latency")
        self._at_rates("latency", [(name, float(rate)) for rate in plan.rates for name in systems], {})

    def half_load(self) -> None:
        """Measure latency of each system at half of its own throughput."""
        known = self._found.get("throughput", {}).get(_LATENCY_ON)
        if known is None:
            raise click.ClickException(f"half_load needs the throughput of {_LATENCY_ON} first")
        rates = {name: row["events_per_s"] / 2 for name, row in known["systems"].items() if name in self._ready}
        pairs = [(name, float(round(min(rate, _MOST_PER_S), -2))) for name, rate in rates.items() if name != "bare-ort"]
        # A transaction's outputs are seen when it is committed: its appends say nothing.
        pairs = [pair for pair in pairs if not SYSTEMS[pair[0]].is_transactional]
        if not pairs:
            click.echo(f"half_load is skipped: no throughput of these systems on {_LATENCY_ON} is known", err=True)
        self._at_rates("half_load", pairs, self._unavailable)

    def _at_rates(self, section: str, pairs: Sequence[tuple[str, float]], unavailable: Mapping[str, str]) -> None:
        plan = self._plan
        if not pairs:
            return
        n = n_records([rate for _, rate in pairs], plan.seconds)
        with lingering(_LINGER_MS), prepared(self._cluster, WORKLOADS[_LATENCY_ON], n, ()) as bench:
            given = {"rounds": plan.rounds, "seconds": plan.seconds, "linger_ms": _LINGER_MS}
            runs, failed = measure_rates(bench, pairs, **given)
        linger = f"linger {_LINGER_MS:g} ms, of modelstream 0.5 ms by its target of 10 ms"
        setting = f"Open loop, {plan.seconds:g} s a run, two partitions, {linger}"
        self._note(section, _LATENCY_ON, runs, {**unavailable, **failed}, setting=setting)

    def scaling(self) -> None:
        """Measure one worker and two."""
        systems = self._compared("scaling")
        for name in _SCALING_ON if systems else ():
            n = self._plan.events(name)
            runs = []
            with prepared(self._cluster, WORKLOADS[name], n, ()) as bench:
                for round_ in range(1, self._plan.rounds + 1):
                    for system in systems:
                        for workers in (1, 2):
                            run = measure_scaling(bench, system, round_, workers, n)
                            runs.append(run)
                            click.echo(f"{name}  {system}, {workers}: {run.events_per_s:,.0f} events/s", err=True)
            self._note("scaling", name, runs, {})


#: By section, what is told of all the runs of a part.
_TOLD: dict[str, Callable[[Sequence[dict[str, Any]]], dict[str, Any]]] = {
    "throughput": lambda runs: {"systems": summarise([Run(**run) for run in runs])},
    "latency": lambda runs: {"rows": summarise_latency([LatencyRun(**run) for run in runs])},
    "half_load": lambda runs: {"rows": summarise_latency([LatencyRun(**run) for run in runs])},
    "scaling": lambda runs: {"rows": summarise_scaling([ScalingRun(**run) for run in runs])},
}


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (BrokerFailed, RunFailed, KafkaException) as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--full", is_flag=True, help="Everything, for hours; without it a part that takes ten minutes.")
@click.option("--sections", help="throughput, latency, half_load, scaling, with commas between.")
@click.option("--workloads", type=Workloads(), help="Comma-separated, for the throughput.")
@click.option("--systems", type=Systems(), help="Comma-separated, for the throughput and half_load.")
@click.option("--rounds", type=click.IntRange(min=1), help="Of everything.")
@click.option("--events", type=click.IntRange(min=1), help="Of any workload at most.")
@click.option("--rates", type=Numbers(), help="Events per second at which latency is measured.")
@click.option("--seconds", type=click.FloatRange(min=1), help="Of one run at a rate.")
@click.option("--broker", default="kafka", show_default=True, help="HOST:PORT; or kafka: start one.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the results.  [default: benchmarks/results with --full, else build/bench]",
)
@click.option("--render", is_flag=True, help="Measure nothing; write the files again from results.json.")
@click.option("--readme", is_flag=True, help="Put the table into README.md as well.")
def main(
    full: bool,
    sections: str | None,
    workloads: list[str] | None,
    systems: list[str] | None,
    rounds: int | None,
    events: int | None,
    rates: list[float] | None,
    seconds: float | None,
    broker: str,
    out: Path | None,
    render: bool,
    readme: bool,
) -> None:
    """Measure throughput, latency, cost and scaling, and write CSV, Markdown and plots.

    What is measured replaces what the folder holds of the same part and systems: a long run can be made in pieces.
    """
    given = {
        "workloads": workloads,
        "systems": systems,
        "rounds": rounds,
        "peer_rounds": rounds,
        "rates": rates,
        "seconds": seconds,
        "most_events": events,
        "sections": _known_sections(sections) if sections else None,
    }
    plan = replace(_FULL if full else _QUICK, **{name: value for name, value in given.items() if value})
    out = out or (ROOT / "benchmarks" / "results" if full else ROOT / "build" / "bench")
    file = out / "results.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def keep() -> None:
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write_results(out, found)

    if render:
        if not found:
            raise click.ClickException(f"there is no {file}")
        keep()
    else:
        with _told(), open_cluster(broker) as cluster:
            suite = Suite(plan, cluster, found, keep, describe_environment(broker))
            for section in plan.sections:
                getattr(suite, section)()
    click.echo(f"{out / 'results.md'}")
    if readme:
        path = ROOT / "README.md"
        path.write_text(put_between_marks(path.read_text(encoding="utf-8"), headline(found)), encoding="utf-8")


def _known_sections(given: str) -> list[str]:
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in _FULL.sections:
            raise click.UsageError(f"no section {name!r}; there are {', '.join(_FULL.sections)}")
    return names


if __name__ == "__main__":
    main()
