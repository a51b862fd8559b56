"""What a second worker of the same group brings: the load comes once all of them have their partitions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.bench import ROOT, Bench
from benchmarks.checks import RunFailed, check_outputs, n_due
from benchmarks.measurement import Worker, append_rate
from benchmarks.sending import generating, wait_for_outputs

__all__ = ["ScalingRun", "measure_scaling", "summarise_scaling"]

_READY_S, _SEND_S, _STALL_S, _LOOK_S = 60.0, 600.0, 60.0, 0.1

#: Of the rate sent. The two are taken over stretches that are not quite the same.
_KEEPS_UP = 0.9


@dataclass(frozen=True)
class ScalingRun:
    """What one run measured.

    Parameters
    ----------
    workload, system, round, workers : str, str, int, int
        Which job, whose run, which of its runs, and with how many processes.
    events_per_s : float
        Outputs after the first tenth over the time in which they were appended.
    cpu_us_per_event : float
        User and system time of all workers, by event.
    sent_per_s : float
        Records that the generator sent. Where the outputs keep up with them, it may be the limit.
    """

    workload: str
    system: str
    round: int
    workers: int
    events_per_s: float
    cpu_us_per_event: float
    sent_per_s: float


def measure_scaling(bench: Bench, system: str, round_: int, workers: int, n: int) -> ScalingRun:
    """Start workers on an empty topic, wait until they share it, send all records as fast as they go, and sum up.

    Raises
    ------
    RunFailed
        The workers do not come to share the topic; or an output is missing, repeated, or wrong.
    """
    name = f"{bench.prefix}.{system}.{workers}.{round_}"
    source, target = f"{name}.in", f"{name}.out"
    bench.cluster.create_topic(source)
    running: list[Worker] = []

    def watch() -> None:
        for worker in running:
            worker.watch()

    try:
        for i in range(workers):
            command, workdir = bench.command(system, source, target, name=f"worker{i}")
            running.append(Worker(command, ROOT, workdir / "worker.log"))
        _wait_for_members(bench, target, workers)
        before_s = sum(worker.sample(0).cpu_s for worker in running)
        load = {"first": 0, "n": n, "rate_per_s": 0, "linger_ms": 20}
        with generating(bench.cluster.address, source, bench.workload.name, **load) as generator:
            sent = generator.wait(watch, _SEND_S)
        wait_for_outputs(bench.cluster, target, n_due(bench.expected[:n]), _STALL_S, watch)
        cpu_s = sum(worker.sample(0).cpu_s for worker in running) - before_s
    finally:
        # All at once: one that is left would take over, and answer again what the others had not committed yet.
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.stop()
    append_ms = check_outputs(bench.cluster, target, bench.workload, bench.expected[:n]).append_ms
    if append_ms is None:
        raise RunFailed("the broker does not stamp records with its time")
    rate = round(append_rate(np.sort(append_ms)), 1)
    cpu_us = round(cpu_s / n * 1e6, 3)
    return ScalingRun(bench.workload.name, system, round_, workers, rate, cpu_us, sent.sent_per_s)


def summarise_scaling(runs: Sequence[ScalingRun]) -> list[dict[str, Any]]:
    """Return the medians with one worker and with two of each system on each workload, and the ratio of their rates.

    ``keeps_up_1`` and ``keeps_up_2`` say whether the outputs kept up with what was sent: then more may be possible.
    """
    rows = []
    for workload, system in dict.fromkeys((run.workload, run.system) for run in runs):
        row: dict[str, Any] = {"workload": workload, "system": system}
        for n in (1, 2):
            own = [run for run in runs if (run.workload, run.system, run.workers) == (workload, system, n)]
            for measure in ("events_per_s", "cpu_us_per_event", "sent_per_s"):
                row[f"{measure}_{n}"] = statistics.median(getattr(run, measure) for run in own)
            row[f"keeps_up_{n}"] = row[f"events_per_s_{n}"] >= _KEEPS_UP * row[f"sent_per_s_{n}"]
        row["ratio"] = round(row["events_per_s_2"] / row["events_per_s_1"], 3)
        rows.append(row)
    return rows


def _wait_for_members(bench: Bench, group: str, n: int) -> None:
    deadline = time.monotonic() + _READY_S
    while bench.cluster.members(group) != n:
        if time.monotonic() > deadline:
            raise RunFailed(f"{n} workers did not come to share the topic within {_READY_S:.0f} s")
        time.sleep(_LOOK_S)
