"""The whole benchmark, small: real brokers and workers, every output checked; how fast it went is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

MEASURES = {"events_per_s", "cpu_us_per_event", "peak_rss_mb", "ratio_to_loop"}


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "benchmarks/throughput.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def _result_of(json_file: Path, *arguments: str) -> dict[str, Any]:
    done = _bench(*arguments, "--json", str(json_file))
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(json_file.read_text())
    assert all(name in done.stdout for name in result["systems"])
    return result


@pytest.mark.kafka
def test_on_kafka(kafka, tmp_path: Path) -> None:
    options = ("--systems", "loop,modelstream,faust", "--events", "5000", "--runs", "1", "--broker", kafka.bootstrap)
    result = _result_of(tmp_path / "result.json", *options)
    assert set(result["systems"]) == {"loop", "modelstream", "faust"}
    for measures in result["systems"].values():
        assert set(measures) == MEASURES
        assert measures["events_per_s"] > 0
        assert measures["peak_rss_mb"] > 0
    assert result["systems"]["loop"]["ratio_to_loop"] == 1
    for run in result["runs"]:
        assert (run["clock"], run["committed"], run["exit_code"]) == ("log_append_time", True, 0), run
    assert {run["system"]: run["events"] for run in result["runs"]} == {
        "loop": 5000,
        "modelstream": 5000,
        "faust": 1000,
    }


@pytest.mark.embedded
def test_on_the_embedded_broker(tmp_path: Path) -> None:
    options = ("--systems", "modelstream", "--events", "5000", "--runs", "1", "--broker", "embedded")
    result = _result_of(tmp_path / "result.json", *options)
    assert set(result["systems"]["modelstream"]) == MEASURES
    assert result["systems"]["modelstream"]["ratio_to_loop"] is None
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
