"""The ceiling: the model alone, over rows that are decoded already, in one thread. No Kafka, no JSON."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from benchmarks.bench import Bench
from benchmarks.checks import RunFailed
from benchmarks.measurement import Run
from benchmarks.systems.common import open_session
from numpy.typing import NDArray

__all__ = ["BARE", "measure_bare"]

#: What the table calls it.
BARE = "bare-ort"

#: Rows of a call, as of the loop's and modelstream's.
_ROWS = 1024


Ask = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def measure_bare(bench: Bench, round_: int, n: int) -> Run:
    """Ask a workload's model, or models, about the first `n` events, and check what it says.

    Raises
    ------
    RunFailed
        It says something else than about each row alone.
    """
    workload, rows = bench.workload, bench.workload.features(n)
    expected = bench.expected[:n]
    expected = expected[~np.isnan(expected[:, 0])]
    ask = _flights(bench) if workload.name == "flights" else _model(bench)
    ask(rows[:_ROWS])
    started_s, cpu_s = time.perf_counter(), time.process_time()
    answers = [ask(rows[first : first + _ROWS]) for first in range(0, len(rows), _ROWS)]
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    found = np.concatenate(answers)
    if not np.allclose(found, expected, workload.tolerance.relative, workload.tolerance.absolute):
        raise RunFailed("the model says something else of rows together than of each alone")
    return Run(
        workload=workload.name,
        system=BARE,
        round=round_,
        events=n,
        events_per_s=round(len(rows) / wall_s, 1),
        cpu_us_per_event=round(cpu_s / len(rows) * 1e6, 3),
        # It runs in the benchmark's own process, whose memory says nothing about the model.
        peak_rss_mb=None,
        rss_growth_mb=0.0,
        clock="no broker",
        committed=True,
        exit_code=0,
    )


def _model(bench: Bench) -> Ask:
    run = open_session(bench.model).run

    def ask(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return run(None, {"features": rows})[0]

    return ask


def _flights(bench: Bench) -> Ask:
    delay, late, air = (
        open_session(bench.model / name / "1" / "model.onnx").run
        for name in ("arrival_delay", "late_arrival", "air_time")
    )

    def ask(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        given = {"features": rows}
        label, probabilities = late(["label", "probabilities"], given)
        columns = (delay(["value"], given)[0][:, 0], label, probabilities[:, 1], air(["value"], given)[0][:, 0])
        return np.column_stack(columns)

    return ask
