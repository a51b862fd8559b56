"""Files made of what the suite found."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks import suite
from benchmarks.latency import summarise_latency
from benchmarks.latency_run import LatencyRun
from benchmarks.matrix import EVENTS, cannot
from benchmarks.measurement import Run
from benchmarks.peers import SYSTEMS
from benchmarks.pieces import put
from benchmarks.report import describe_environment, summarise
from benchmarks.results import MARKS, headline, put_between_marks, write_results
from benchmarks.scaling import ScalingRun, summarise_scaling
from benchmarks.workloads import WORKLOADS
from click.testing import CliRunner


def _part(runs: list[Any], unavailable: dict[str, str], cpus: int = 2) -> dict[str, Any]:
    piece = {"measured": "2026-01-01 10:00 UTC", "environment": {**describe_environment("kafka"), "cpus": cpus}}
    return put(None, piece, [asdict(run) for run in runs], unavailable)


def _throughput(workload: str, **rates: float) -> dict[str, Any]:
    runs = [Run(workload, name, 1, 10, rate, 4.0, 100.0, 1.0, "polling", True, 0) for name, rate in rates.items()]
    reasons = {"kafka-streams": "it needs Java"}
    return {**_part(runs, reasons), "systems": summarise(runs)}


@pytest.fixture
def found() -> dict[str, Any]:
    rates = [LatencyRun("mlp-20", s, 1, r, 9, 2.0, 3.0, 4.0, 5.0, 6.0, 4.4, 100.0, 0.1) for s in ("loop", "modelstream")
             for r in (1e3, 1e4)]  # fmt: skip
    latency = {"rows": summarise_latency(rates)}
    scaling = [ScalingRun("mlp-20", "loop", 1, workers, 100.0 * workers, 4.0, 205.0) for workers in (1, 2)]
    return {
        "throughput": {
            "mlp-20": _throughput("mlp-20", loop=200_000, modelstream=210_000),
            "cnn": _throughput("cnn", loop=10_000, modelstream=12_000, quix=3_000),
        },
        "latency": {"mlp-20": {**latency, **_part(rates, {})}},
        "half_load": {"mlp-20": {**latency, **_part(rates, {"quix": "it hangs"})}},
        "scaling": {"mlp-20": {"rows": summarise_scaling(scaling), **_part(scaling, {})}},
    }


def test_the_headline_has_all_systems_that_were_measured_anywhere(found: dict[str, Any]) -> None:
    assert headline(found).splitlines() == [
        "| events/s (ratio to the loop) | mlp-20 | cnn |",
        "| --- | ---: | ---: |",
        "| `loop` | 200,000 (1.00) | 10,000 (1.00) |",
        "| `modelstream` | 210,000 (1.05) | 12,000 (1.20) |",
        "| `quix` |  | 3,000 (0.30) |",
    ]


def test_a_table_is_put_in_the_place_of_what_stands_between_the_marks() -> None:
    text = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    once = put_between_marks(text, "new")
    assert once == f"before\n{MARKS[0]}\nnew\n{MARKS[1]}\nafter\n"
    assert put_between_marks(once, "new") == once
    with pytest.raises(ValueError, match="substring"):
        put_between_marks("nothing", "new")


def test_the_readme_has_the_marks() -> None:
    put_between_marks((Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8"), "")


def test_files_of_all_sections(found: dict[str, Any], tmp_path: Path) -> None:
    write_results(tmp_path, found)
    text = (tmp_path / "results.md").read_text("utf-8")
    for part in ("`modelstream` | 1 | 210,000 | 1.050", "kafka-streams` was not measured: it needs Java", "it hangs",
                 "| mlp-20 | `loop` | 100 | 205 | ≥ 200 | 205 | 2.00 |", "kafka-streams 1."):  # fmt: skip
        assert part in text
    rows = list(csv.DictReader((tmp_path / "throughput.csv").read_text("utf-8").splitlines()))
    assert [(row["workload"], row["system"]) for row in rows][-1] == ("cnn", "quix")
    for name in ("throughput.svg", "latency-mlp-20.svg", "cpu-mlp-20.svg"):
        assert name in text
        assert "modelstream" in (tmp_path / name).read_text("utf-8")
    before = (tmp_path / "throughput.svg").read_bytes()
    write_results(tmp_path, found)
    assert (tmp_path / "throughput.svg").read_bytes() == before


def test_results_are_rendered_again_without_measuring(found: dict[str, Any], tmp_path: Path) -> None:
    nothing = CliRunner().invoke(suite.main, ["--render", "--out", str(tmp_path)])
    assert (nothing.exit_code, "there is no" in nothing.output) == (1, True)
    (tmp_path / "results.json").write_text(json.dumps(found))
    done = CliRunner().invoke(suite.main, ["--render", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "results.md").is_file()


def test_an_unknown_section_is_a_usage_error() -> None:
    done = CliRunner().invoke(suite.main, ["--sections", "speed"])
    assert done.exit_code == 2
    assert "no section 'speed'" in done.output


def test_every_workload_has_a_number_of_events_and_every_system_an_answer() -> None:
    assert set(EVENTS) == set(WORKLOADS)
    assert {(system, workload) for system in SYSTEMS for workload in WORKLOADS if cannot(system, workload)} >= {
        ("kafka-streams", "flights"),
        ("loop-own", "flights"),
    }


def test_what_was_measured_again_replaces_those_systems_only() -> None:
    before = _part([_run("loop", 1), _run("quix", 2), _run("faust", 3)], {"bytewax": "no wheel"})
    after = put(
        before, {"measured": "2026-02-02", "environment": {}}, [asdict(_run("quix", 9))], {"faust": "it failed"}
    )
    assert [(run["system"], run["events_per_s"]) for run in after["runs"]] == [("loop", 1), ("quix", 9)]
    assert after["unavailable"] == {"bytewax": "no wheel", "faust": "it failed"}
    assert [(one["measured"], one["systems"]) for one in after["pieces"]] == [
        ("2026-01-01 10:00 UTC", ["loop"]),
        ("2026-02-02", ["quix"]),
    ]


def test_each_environment_is_told_with_what_was_measured_in_it(found: dict[str, Any], tmp_path: Path) -> None:
    runs = [_run("loop", 1.0)]
    found["throughput"]["cnn"] = {**_part(runs, {}, cpus=64), "systems": summarise(runs)}
    write_results(tmp_path, found)
    text = (tmp_path / "results.md").read_text("utf-8")
    assert ", 2 CPUs" in text[text.index("Environment 1:") :]
    assert ", 64 CPUs" in text[text.index("Environment 2:") :]
    assert "in environment 2" in text[text.index("### cnn") : text.index("## Latency")]


def _run(system: str, rate: float) -> Run:
    return Run("cnn", system, 1, 10, rate, 4.0, 100.0, 1.0, "polling", True, 0)
