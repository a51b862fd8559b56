"""The ceiling: what is counted of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import bare
from benchmarks.report import print_table, summarise
from benchmarks.workloads.workload import Tolerance


def test_an_event_without_an_output_does_not_count(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    rows = np.arange(3, dtype=np.float32).reshape(3, 1)
    workload = SimpleNamespace(name="toy", features=lambda _: rows, tolerance=Tolerance(1e-5, 0.0))
    expected = np.array([[0], [np.nan], [1], [2], [np.nan]], np.float32)
    seconds = iter([0.0, 2.0])
    monkeypatch.setattr(bare, "_model", lambda _: lambda rows: rows)
    clock = SimpleNamespace(perf_counter=lambda: next(seconds), process_time=iter([0.0, 1.5]).__next__)
    monkeypatch.setattr(bare, "time", clock)
    bench: Any = SimpleNamespace(workload=workload, expected=expected)
    run = bare.measure_bare(bench, 1, 5)
    assert (run.events, run.events_per_s, run.cpu_us_per_event) == (5, 1.5, 500_000)
    assert run.peak_rss_mb is None
    print_table(summarise([run]), [run])
    assert "500000.00 │           – │" in capsys.readouterr().out
