"""The suite without a broker: what it skips, and what it keeps of earlier measurements."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from benchmarks import suite
from benchmarks.latency_run import LatencyRun
from benchmarks.matrix import Found
from benchmarks.measurement import Run
from click.testing import CliRunner


@pytest.mark.parametrize("section", ["latency", "scaling"])
def test_a_section_without_its_systems_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, section: str
) -> None:
    monkeypatch.setattr(suite, "open_cluster", lambda *_: nullcontext())
    options = ["--systems", "bare-ort", "--sections", section, "--out", str(tmp_path)]
    done = CliRunner().invoke(suite.main, options)
    assert done.exit_code == 0, done.output
    assert f"{section} is skipped: it is of loop and modelstream" in done.output


def test_systems_can_be_measured_one_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = iter((200.0, 100.0, 300.0))

    def measure(_: object, workload: object, systems: list[str], **__: object) -> Found:
        runs = [Run("mlp-20", name, 1, 10, next(rates), 1.0, 1.0, 1.0, "polling", True, 0) for name in systems]
        return Found(runs)

    monkeypatch.setattr(suite, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(suite, "run_matrix", measure)
    options = ["--sections", "throughput", "--workloads", "mlp-20", "--out", str(tmp_path), "--systems"]
    for systems in ("loop,modelstream", "modelstream"):
        done = CliRunner().invoke(suite.main, [*options, systems])
        assert done.exit_code == 0, done.output
    part = json.loads((tmp_path / "results.json").read_text())["throughput"]["mlp-20"]
    assert part["systems"]["loop"]["events_per_s"] == 200
    assert part["systems"]["modelstream"]["ratio_to_loop"] == 1.5
    assert [piece["systems"] for piece in part["pieces"]] == [["loop"], ["modelstream"]]


def test_half_load_is_half_of_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {"loop": {"events_per_s": 90_000.0}, "modelstream": {"events_per_s": 400_000.0}}
    (tmp_path / "results.json").write_text(json.dumps({"throughput": {"mlp-20": {"systems": found}}}))
    asked: list[tuple[str, float]] = []

    def measure(_: object, pairs: list[tuple[str, float]], **__: object) -> tuple[list[LatencyRun], dict[str, str]]:
        asked.extend(pairs)
        return [], {}

    monkeypatch.setattr(suite, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(suite, "prepared", lambda *_: nullcontext())
    monkeypatch.setattr(suite, "measure_rates", measure)
    monkeypatch.setattr(suite, "write_results", lambda *_: None)
    options = ["--sections", "half_load", "--systems", "loop,modelstream", "--out", str(tmp_path)]
    done = CliRunner().invoke(suite.main, options)
    assert done.exit_code == 0, done.output
    # No more than the generator can send in time.
    assert asked == [("loop", 45_000.0), ("modelstream", 120_000.0)]
