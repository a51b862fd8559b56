"""One run of one system at one rate: what it takes from when a record was due to when its output was appended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.bench import ROOT, Bench
from benchmarks.checks import RunFailed, check_outputs, n_due
from benchmarks.measurement import Worker, cpu_us_per_event
from benchmarks.sending import generating, wait_for_outputs
from numpy.typing import NDArray

__all__ = ["LatencyRun", "measure_latency"]

#: Records that are on the topic before the worker starts: once they are answered, it has joined its group and is warm.
N_FIRST = 2_000

#: The first quarter of what is sent at the rate is warm-up.
WARM_UP = 0.25

_READY_S, _DRAIN_S = 90.0, 30.0


@dataclass(frozen=True)
class LatencyRun:
    """What one run measured.

    Parameters
    ----------
    workload, system, round : str, str, int
        Which job, whose run, and which of its runs.
    rate_per_s : float
        Records sent a second.
    events : int
        Outputs after the warm-up.
    p50_ms, p90_ms, p99_ms, p999_ms, max_ms : float
        From when a record was due to when the broker appended its output: whole milliseconds are all that it stamps.
    cpu_us_per_event : float
        User and system time of the worker after the warm-up, by event.
    peak_rss_mb : float
        The most resident memory the worker ever had.
    generator_late_ms : float
        How late the generator was at the worst. Latencies run from when a record was due all the same.
    """

    workload: str
    system: str
    round: int
    rate_per_s: float
    events: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us_per_event: float
    peak_rss_mb: float
    generator_late_ms: float


def measure_latency(
    bench: Bench, system: str, round_: int, *, rate_per_s: float, seconds: float, linger_ms: float
) -> LatencyRun:
    """Start a worker, send to it at a rate, and sum up.

    Parameters
    ----------
    bench : Bench
        The workload; its expected values must reach for ``N_FIRST + rate_per_s * seconds`` events.
    system, round_ : str, int
        Whose run, and which.
    rate_per_s, seconds : float
        What is sent, and for how long.
    linger_ms : float
        Of the generator's producer.

    Raises
    ------
    RunFailed
        The worker ended or stalled; or an output is missing, repeated, or wrong.
    """
    n = round(rate_per_s * seconds)
    expected = bench.expected[: N_FIRST + n]
    name = f"{bench.prefix}.{system}.{rate_per_s:.0f}.{round_}"
    source, target = f"{name}.in", f"{name}.out"
    bench.cluster.preload(source, bench.workload.records(N_FIRST))
    command, workdir = bench.command(system, source, target)
    worker = Worker(command, ROOT, workdir / "worker.log")
    cluster = bench.cluster
    load = {"first": N_FIRST, "n": n, "rate_per_s": rate_per_s, "linger_ms": linger_ms}
    try:
        wait_for_outputs(cluster, target, n_due(expected[:N_FIRST]), _READY_S, worker.watch)
        with generating(cluster.address, source, bench.workload.name, **load) as generator:

            def watch() -> None:
                generator.check()
                worker.watch()

            wait_for_outputs(cluster, target, n_due(expected[: N_FIRST + round(n * WARM_UP)]), _READY_S, watch)
            warm = worker.sample(cluster.count(target))
            sent = generator.wait(worker.watch, seconds + 120)
        end = worker.sample(cluster.count(target))
        wait_for_outputs(cluster, target, n_due(expected), _DRAIN_S, worker.watch)
    finally:
        worker.stop()
    outputs = check_outputs(bench.cluster, target, bench.workload, expected)
    if outputs.append_ms is None:
        raise RunFailed("the broker does not stamp records with its time, so there are no latencies")
    latencies = _latencies(outputs.numbers, outputs.append_ms, sent.start_s, rate_per_s, n)
    p50, p90, p99, p999 = np.percentile(latencies, (50, 90, 99, 99.9)).round(2).tolist()
    return LatencyRun(
        workload=bench.workload.name,
        system=system,
        round=round_,
        rate_per_s=rate_per_s,
        events=len(latencies),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=round(float(latencies.max()), 2),
        cpu_us_per_event=cpu_us_per_event(warm, end),
        peak_rss_mb=round(worker.peak_bytes / 1e6, 1),
        generator_late_ms=sent.late_ms,
    )


def _latencies(
    numbers: NDArray[np.int64], append_ms: NDArray[np.int64], start_s: float, rate_per_s: float, n: int
) -> NDArray[np.float64]:
    """Return milliseconds from when records were due to when their outputs were appended, without the warm-up."""
    sent = numbers - N_FIRST
    measured = sent >= n * WARM_UP
    due_ms = start_s * 1000 + sent[measured] / rate_per_s * 1000
    # The broker cuts its time off to a millisecond: half of one is what that takes on average.
    found: NDArray[np.float64] = append_ms[measured] + 0.5 - due_ms
    return found
