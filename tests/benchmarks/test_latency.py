"""Latency at a rate: measured from when a record was due, on real processes, and summed up by rate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import latency
from benchmarks.checks import RunFailed
from benchmarks.latency import summarise_latency
from benchmarks.latency_run import N_FIRST, LatencyRun, _latencies

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.kafka
def test_on_kafka(kafka, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = ("--systems", "loop,modelstream", "--rates", "1000", "--seconds", "2", "--rounds", "1")
    command = [sys.executable, "benchmarks/latency.py", *options, "--broker", kafka.bootstrap, "--json", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert [(row["system"], row["rate_per_s"]) for row in rows] == [("loop", 1000), ("modelstream", 1000)]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["cpu_us_per_event"] > 0
        assert row["p50_ms_to_loop"] > 0


def test_latencies_run_from_when_a_record_was_due() -> None:
    # Ten records at 100/s, due every 10 ms from second 5 on; the first quarter is warm-up.
    numbers = N_FIRST + np.arange(10)[::-1]
    append_ms = 5000 + 10 * np.arange(10)[::-1] + 7
    found = _latencies(np.append(numbers, [0, 5]), np.append(append_ms, [1, 2]), 5.0, 100.0, 10)
    assert found.tolist() == pytest.approx([7.5] * 7)


def _run(system: str, rate: float, p50: float) -> LatencyRun:
    return LatencyRun("mlp-20", system, 1, rate, 10, p50, 2 * p50, 3 * p50, 4 * p50, 5 * p50, 2.0, 100.0, 0.1)


def test_medians_and_ratios_are_by_rate() -> None:
    runs = [_run(name, rate, p50) for rate in (10.0, 20.0) for name, p50 in [("loop", 2), ("loop", 4), ("loop", 3)]]
    rows = summarise_latency([*runs, _run("modelstream", 20.0, 6), _run("faust", 5.0, 1)])
    by_key = {(row["system"], row["rate_per_s"]): row for row in rows}
    assert by_key["loop", 10.0]["p50_ms"] == 3
    assert by_key["modelstream", 20.0]["p99_ms_to_loop"] == 2
    assert by_key["faust", 5.0]["p99_ms_to_loop"] is None


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set of systems whose runs fail; the others' are made up."""
    names: set[str] = set()

    def measure(_: object, system: str, round_: int, *, rate_per_s: float, **__: object) -> LatencyRun:
        if system in names:
            raise RunFailed("no output for 30 s\nand a log")
        return _run(system, rate_per_s, round_)

    monkeypatch.setattr(latency, "measure_latency", measure)
    return names


_HOW: dict[str, Any] = {"rounds": 2, "seconds": 1.0, "linger_ms": 1.0}


def test_a_peer_that_fails_is_named_and_the_others_go_on(failing: set[str]) -> None:
    failing.add("quix")
    runs, failed = latency.measure_rates(None, [("quix", 5.0), ("loop", 10.0)], **_HOW)  # type: ignore[arg-type]
    assert [run.system for run in runs] == ["loop", "loop"]
    assert failed == {"quix": "failed at 5/s in round 1: no output for 30 s"}


def test_what_all_are_compared_with_may_not_fail(failing: set[str]) -> None:
    failing.add("loop")
    with pytest.raises(RunFailed, match="loop at 10/s, round 1: no output"):
        latency.measure_rates(None, [("quix", 5.0), ("loop", 10.0)], **_HOW)  # type: ignore[arg-type]
