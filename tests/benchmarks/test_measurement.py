"""What is told of a worker: of real processes that do nothing any more, and of looks at one that never was."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import latency_run, measurement
from benchmarks.checks import Outputs
from benchmarks.latency_run import N_FIRST, measure_latency
from benchmarks.measurement import Run, Sample, Worker, append_rate, cpu_us_per_event, measure
from benchmarks.sending import Sent

#: A process and its child, both of which use user and system time for some ticks, then nothing.
_BUSY = """
import os, subprocess, sys
while min(os.times()[:2]) < 0.03:
    os.urandom(1 << 16)
    sum(range(20_000))
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1], "", ""])
print("done", flush=True)
import signal
signal.pause()
"""


def test_a_worker_is_looked_at_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    worker = Worker([sys.executable, "-S", "-c", _BUSY, _BUSY], tmp_path, log)
    try:
        while log.read_text().count("done") < 2:
            worker.watch()
        found = worker.sample(7)
        processes = [worker._psutil, *worker._psutil.children(recursive=True)]
        times = [process.cpu_times() for process in processes]
        assert len(times) == 2
        assert min(min(one.user, one.system) for one in times) >= 0.03
        assert found.cpu_s == pytest.approx(sum(one.user + one.system for one in times))
        assert found.rss_bytes == sum(process.memory_info().rss for process in processes)
        assert (found.outputs, worker.peak_bytes >= found.rss_bytes) == (7, True)
    finally:
        worker.stop()


def test_cpu_is_that_of_the_outputs_between() -> None:
    first, last = Sample(0.0, 1000, 2.0, 0), Sample(9.0, 5000, 2.5, 0)
    assert cpu_us_per_event(first, last) == 125.0
    assert cpu_us_per_event(first, first) == 0.0


def test_the_rate_is_of_the_outputs_after_the_warm_up() -> None:
    # A hundred in the first second, and then two each millisecond.
    append_ms = np.concatenate([np.arange(100) * 10, 1000 + np.arange(900) // 2])
    assert append_rate(append_ms) == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize(("committed", "append_ms"), [(100, None), (99, np.arange(100) * 5)])
def test_a_run_is_summed_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, committed: int, append_ms: np.ndarray | None
) -> None:
    looks = [
        Sample(float(t), 20 * t, 1.0 + 0.25 * t, 1_000_000 * rss) for t, rss in enumerate((50, 80, 90, 120, 110, 85))
    ]
    monkeypatch.setattr(measurement, "_watch", lambda *_: looks)
    monkeypatch.setattr(measurement, "check_outputs", lambda *_: Outputs(np.arange(100), append_ms))
    worker = SimpleNamespace(peak_bytes=321_400_000, stop=lambda: 0)
    monkeypatch.setattr(measurement, "Worker", lambda *_: worker)
    cluster: Any = SimpleNamespace(committed=lambda group, topic: committed)
    workload: Any = SimpleNamespace(name="mlp-20")
    run = measure(
        cluster, [], root=tmp_path, workdir=tmp_path, system="loop", round_=3, input_topic="in", output_topic="out",
        workload=workload, expected=np.zeros((100, 1), np.float32),
    )  # fmt: skip
    # Warm from the second look on: 80 outputs in 4 s, and 1 s of CPU.
    rate, clock = (20.0, "polling") if append_ms is None else (200.0, "log_append_time")
    assert run == Run("mlp-20", "loop", 3, 100, rate, 12_500.0, 321.4, 40.0, clock, committed == 100, 0)


def test_a_run_at_a_rate_is_summed_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    n = 1000
    due_ms = 5000 + np.arange(n)  # 1,000/s from second 5 on
    append_ms = np.append(np.zeros(N_FIRST), due_ms + np.arange(n) // 10).astype(np.int64)
    looks = iter([Sample(0.0, N_FIRST + 250, 2.0, 0), Sample(1.0, N_FIRST + 950, 2.35, 0)])
    worker = SimpleNamespace(peak_bytes=98_700_000, stop=lambda: 0, watch=None, sample=lambda _: next(looks))
    sent = Sent(start_s=5.0, late_ms=1.25, sent_per_s=1000.0)
    generator = SimpleNamespace(wait=lambda *_: sent, check=None)
    for name, stand_in in {
        "Worker": lambda *_: worker,
        "generating": lambda *_, **__: nullcontext(generator),
        "wait_for_outputs": lambda *_: None,
        "check_outputs": lambda *_: Outputs(np.arange(N_FIRST + n), append_ms),
    }.items():
        monkeypatch.setattr(latency_run, name, stand_in)
    bench: Any = SimpleNamespace(
        expected=np.zeros((N_FIRST + n, 1), np.float32), prefix="p", command=lambda *_: ([], tmp_path),
        cluster=SimpleNamespace(preload=lambda *_: None, count=lambda _: 0, address=""),
        workload=SimpleNamespace(name="mlp-20", records=lambda _: []),
    )  # fmt: skip
    run = measure_latency(bench, "loop", 1, rate_per_s=1000.0, seconds=1.0, linger_ms=1.0)
    # 25 to 99 ms, ten of each, and half a millisecond for what the broker cuts off.
    assert (run.events, run.p50_ms, run.max_ms) == (750, 62.5, 99.5)
    assert (run.p90_ms, run.p99_ms, run.p999_ms) == (92.5, 99.5, 99.5)
    assert run.cpu_us_per_event == 500.0
    assert (run.peak_rss_mb, run.generator_late_ms) == (98.7, 1.25)
