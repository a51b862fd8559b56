"""The whole benchmark, small: real brokers and workers, every output checked; how fast it went is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from benchmarks import throughput
from benchmarks.matrix import Found
from benchmarks.measurement import Run
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]

MEASURES = {"events_per_s", "cpu_us_per_event", "peak_rss_mb", "ratio_to_loop"}


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "benchmarks/throughput.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def _result_of(json_file: Path, *arguments: str) -> dict[str, Any]:
    done = _bench(*arguments, "--json", str(json_file))
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(json_file.read_text())
    assert all(name in done.stdout for one in result["workloads"].values() for name in one["systems"])
    return result


@pytest.mark.kafka
def test_on_kafka(kafka, tmp_path: Path) -> None:
    systems = {"loop", "loop-own", "loop-own-out", "bare-ort", "modelstream", "faust"}
    options = ("--systems", ",".join(systems), "--workloads", "ffnn-784-csv,flights", "--events", "2000")
    result = _result_of(tmp_path / "result.json", *options, "--runs", "1", "--broker", kafka.bootstrap)
    csv, flights = (result["workloads"][name] for name in ("ffnn-784-csv", "flights"))
    assert (set(csv["systems"]), csv["unavailable"]) == (systems, {})
    assert set(flights["systems"]) == systems - {"loop-own", "loop-own-out"}
    assert "the loop" in flights["unavailable"]["loop-own"]
    for one in (csv, flights):
        assert one["systems"]["loop"]["ratio_to_loop"] == 1
        for name, measures in one["systems"].items():
            assert set(measures) == MEASURES
            assert measures["events_per_s"] > 0
            assert (measures["peak_rss_mb"] or 0) > 0 or name == "bare-ort"
    for run in result["runs"]:
        clock = "no broker" if run["system"] == "bare-ort" else "log_append_time"
        assert (run["clock"], run["committed"], run["exit_code"]) == (clock, True, 0), run
        assert run["events"] == (1000 if run["system"] == "faust" else 2000)


@pytest.mark.embedded
def test_on_the_embedded_broker(tmp_path: Path) -> None:
    options = ("--systems", "modelstream", "--events", "5000", "--runs", "1", "--broker", "embedded")
    result = _result_of(tmp_path / "result.json", *options)
    measures = result["workloads"]["mlp-20"]["systems"]["modelstream"]
    assert set(measures) == MEASURES
    assert measures["ratio_to_loop"] is None
    assert result["runs"][0]["clock"] == "polling"
    assert result["runs"][0]["committed"]


def test_an_unknown_system_is_a_usage_error() -> None:
    done = _bench("--systems", "loop,flink")
    assert done.returncode == 2
    assert "no system 'flink'" in done.stderr


def test_a_broker_that_is_not_there_is_one_clear_message() -> None:
    done = _bench("--systems", "loop", "--events", "10", "--broker", "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [("--systems", "loop,faust"), ("--systems", "modelstream"), ("--soak",)])
def test_a_least_ratio_needs_both_systems(options: tuple[str, ...]) -> None:
    done = _bench("--at-least", "0.8", *options)
    assert done.returncode == 2
    assert "--at-least compares modelstream with loop" in done.stderr


@pytest.mark.parametrize(("at_least", "exit_code"), [("0.8", 0), ("0.9", 1)])
def test_a_ratio_below_the_least_fails(monkeypatch: pytest.MonkeyPatch, at_least: str, exit_code: int) -> None:
    rates = {"loop": 100, "modelstream": 80}
    runs = [Run("mlp-20", system, 1, 10, rate, 1.0, 1.0, 1.0, "polling", True, 0) for system, rate in rates.items()]
    monkeypatch.setattr(throughput, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(throughput, "run_matrix", lambda *_, **__: Found(runs))
    result = CliRunner().invoke(throughput.main, ["--systems", "loop,modelstream", "--at-least", at_least])
    assert result.exit_code == exit_code, result.output
    assert ("ratio of modelstream to loop, 0.8000, is below 0.9" in result.output) == bool(exit_code)


@pytest.mark.parametrize(("at_least", "exit_code"), [("0.85", 0), ("0.95", 1)])
def test_exactly_once_below_its_least_ratio_fails(
    monkeypatch: pytest.MonkeyPatch, at_least: str, exit_code: int
) -> None:
    rates = {"modelstream": 100, "modelstream-eos": 90}
    runs = [Run("mlp-20", system, 1, 10, rate, 1.0, 1.0, 1.0, "polling", True, 0) for system, rate in rates.items()]
    monkeypatch.setattr(throughput, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(throughput, "run_matrix", lambda *_, **__: Found(runs))
    command = ["--systems", "modelstream,modelstream-eos", "--eos-at-least", at_least]
    result = CliRunner().invoke(throughput.main, command)
    assert result.exit_code == exit_code, result.output
    assert "exactly-once to at-least-once: 0.900" in result.output
    assert ("ratio of modelstream-eos to modelstream, 0.9000, is below 0.95" in result.output) == bool(exit_code)
