"""A workload on a broker: its model, its right answers, its inputs, and the command that starts a system on it."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from benchmarks import peers
from benchmarks.cluster import Cluster
from benchmarks.measurement import Run, measure
from benchmarks.workloads import Workload
from numpy.typing import NDArray

__all__ = ["ROOT", "Bench", "lingering", "prepare_systems", "prepared"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Bench:
    """One workload, ready to be run by any system.

    Parameters
    ----------
    cluster : Cluster
        Where the topics are.
    prefix : str
        How the names of its topics and groups begin.
    workdir : Path
        Folder for models and workers.
    workload : Workload
        What the events are.
    model : Path
        What all systems are given as ``--model``.
    expected : ndarray of float32, shape (n_events, n_outputs)
        The right answers.
    """

    cluster: Cluster
    prefix: str
    workdir: Path
    workload: Workload
    model: Path
    expected: NDArray[np.float32]

    def input_topic(self, n: int) -> str:
        """Return the topic that holds the first `n` records."""
        return f"{self.prefix}.in.{n}"

    def command(self, system: str, source: str, target: str, *, name: str = "worker") -> tuple[list[str], Path]:
        """Create a target topic, also the group's name, and return what starts a worker, and its folder."""
        workdir = self.workdir / target / name
        workdir.mkdir(parents=True)
        if not self.cluster.has(target):
            self.cluster.create_topic(target, transactional=peers.SYSTEMS[system].is_transactional)
            # modelstream does not start without one. An event that lands there is a lost one to the check.
            self.cluster.create_topic(f"{target}.dead")
        given = {
            "broker": self.cluster.address,
            "input-topic": source,
            "output-topic": target,
            "group": target,
            "workload": self.workload.name,
            "model": str(self.model),
            "workdir": str(workdir),
        }
        arguments = [part for key, value in given.items() for part in (f"--{key}", value)]
        return [str(peers.python_of(system, ROOT)), "-m", peers.SYSTEMS[system].module, *arguments], workdir

    def run(self, system: str, round_: int, n: int) -> Run:
        """Run one system over the first `n` records, with a group and an output topic of its own."""
        source, target = self.input_topic(n), f"{self.prefix}.{system}.{round_}"
        command, workdir = self.command(system, source, target)
        return measure(
            self.cluster,
            command,
            root=ROOT,
            workdir=workdir,
            system=system,
            round_=round_,
            input_topic=source,
            output_topic=target,
            workload=self.workload,
            expected=self.expected[:n],
        )


@contextmanager
def lingering(ms: float) -> Iterator[None]:
    """Let the producers of all workers that are started meanwhile linger for so many milliseconds."""
    before = os.environ.get("BENCHMARK_LINGER_MS")
    os.environ["BENCHMARK_LINGER_MS"] = f"{ms:g}"
    try:
        yield
    finally:
        del os.environ["BENCHMARK_LINGER_MS"]
        if before is not None:
            os.environ["BENCHMARK_LINGER_MS"] = before


@contextmanager
def prepared(cluster: Cluster, workload: Workload, n: int, sizes: Sequence[int]) -> Iterator[Bench]:
    """Yield a workload of `n` events with its inputs on the broker, one topic for each of some numbers of events."""
    with tempfile.TemporaryDirectory(prefix="modelstream-bench-") as folder:
        click.echo(f"preparing {n:,} records of {workload.name}", err=True)
        model, expected = workload.write_model(Path(folder)), workload.expected(n)
        bench = Bench(cluster, f"bench-{uuid.uuid4().hex[:8]}", Path(folder), workload, model, expected)
        try:
            for size in sorted(set(sizes)):
                cluster.preload(bench.input_topic(size), workload.records(size))
            yield bench
        finally:
            cluster.delete_topics()


def prepare_systems(systems: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Install what the systems need; return those that can run, and why the others cannot."""
    ready, unavailable = [], {}
    for system in systems:
        try:
            peers.prepare(system, ROOT)
            ready.append(system)
        except peers.Unavailable as reason:
            unavailable[system] = str(reason)
            click.echo(f"{system} cannot run here: {reason}", err=True)
    if not ready:
        raise click.ClickException("none of the systems can run here")
    return ready, unavailable
