"""The batching benchmark, small: every output checked, every file written; how fast it went is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import batching
from benchmarks.batching_files import read_runs, write_results
from benchmarks.batching_jobs import POOL_ROWS, Job, WrongOutput, make_job
from benchmarks.batching_load import LoadRun, poisson_arrivals, run_load, saturate
from benchmarks.batching_report import Point, missed, print_tables, summarise
from click.testing import CliRunner

from modelstream.operators.microbatch import BatchPolicy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    return make_job("mlp", tmp_path_factory.mktemp("models"))


def served(job: Job, *ranges: tuple[int, int]) -> list:
    return [
        job.serve(events)
        for first, last in ranges
        for events in job.events(first, last, np.zeros(last - first, np.int64))
    ]  # fmt: skip


def test_right_outputs_pass_however_they_were_batched(job: Job) -> None:
    assert job.check(served(job, (0, 1), (1, 500), (500, POOL_ROWS + 10))) == POOL_ROWS + 10


@pytest.mark.parametrize("ranges", [[(1, 9)], [(0, 5), (4, 9)], [(0, 5), (6, 9)], [(5, 9), (0, 5)]])
def test_lost_repeated_and_misplaced_outputs_are_found(job: Job, ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(WrongOutput, match="lost, repeated or out of order"):
        job.check(served(job, *ranges))


@pytest.mark.parametrize("wrong", [1.0001, float("nan")])
def test_a_wrong_output_is_found(job: Job, wrong: float) -> None:
    ((rows, values),) = served(job, (0, 9))
    values = values.copy()
    values[3] *= wrong
    with pytest.raises(WrongOutput, match="1 of 9 outputs are wrong"):
        job.check([(rows, values)])


@pytest.mark.parametrize("policy", [BatchPolicy(max_size=7, max_wait_s=0.001), BatchPolicy(target_p99_s=0.02)])
def test_a_run_answers_every_event(job: Job, policy: BatchPolicy) -> None:
    run = run_load(job, policy, poisson_arrivals(500, 1.0, seed=0))
    assert run.kept_up
    assert 0 < run.p50_ms <= run.p99_ms
    assert sum(run.reasons.values()) * run.mean_rows == pytest.approx(500)
    assert saturate(job, policy, 0.02) > 0


def test_what_a_policy_cannot_answer_counts_as_late(job: Job) -> None:
    # A second's events within a hundredth of it, one by one.
    run = run_load(job, BatchPolicy(max_size=1), poisson_arrivals(2_000_000, 0.01, seed=0))
    assert not run.kept_up
    assert run.p99_ms > 10


def _point(policy: str, p99_ms: float, events_per_s: float, is_best: bool = False) -> Point:
    point = Point("mlp", policy, 0, 0.0, [events_per_s], is_best=is_best)
    for p99 in (p99_ms, p99_ms, 1000.0):
        point.add(0.5, LoadRun(1.0, p99, 10.0, True, {}))
    return point


@pytest.mark.parametrize(
    ("target_ms", "static_ms", "ok", "words"),
    [(19, 5, True, "holds"), (21, 19, False, "late"), (21, 22, True, "late, as all are")],
)
def test_the_target_must_hold_where_a_static_policy_does(
    capsys, target_ms: float, static_ms: float, ok: bool, words: str
) -> None:
    summary = summarise([_point("target", target_ms, 96), _point("8×0ms", static_ms, 100, is_best=True)])
    assert summary["verdict"] == {"p99_holds": ok, "saturation_holds": True}
    assert summary["models"]["mlp"]["saturation"]["ratio"] == 0.96
    print_tables(summary)
    assert words in capsys.readouterr().out


def test_the_saturation_must_be_near_the_best() -> None:
    summary = summarise([_point("target", 1, 94), _point("8×0ms", 1, 100, is_best=True)])
    assert summary["verdict"]["saturation_holds"] is False
    assert missed(summary) == "mlp at saturation: 0.9400 of 8×0ms is below 0.95"


@pytest.mark.parametrize(
    ("target_ms", "static_ms", "events_per_s", "what"),
    [
        (20, 5, 95, None),
        (21, 22, 95, None),
        (21, 19, 95, "mlp at 50%: p99 21.00 ms is above 20 ms, but 8×0ms has 19.00 ms"),
        (float("nan"), 20, 95, "mlp at 50%: p99 nan ms is above 20 ms, but 8×0ms has 20.00 ms"),
        (1, 1, 94.9, "mlp at saturation: 0.9490 of 8×0ms is below 0.95"),
    ],
)
def test_the_check_names_what_was_missed(
    target_ms: float, static_ms: float, events_per_s: float, what: str | None
) -> None:
    points = [_point("target", target_ms, events_per_s), _point("8×0ms", static_ms, 100, is_best=True)]
    assert missed(summarise(points)) == what


def test_the_check_names_all_that_was_missed_in_one_line() -> None:
    summary = summarise([_point("target", 21, 50), _point("8×0ms", 19, 100, is_best=True)])
    what = missed(summary)
    assert what is not None
    assert (what.count("; "), what.count("\n")) == (1, 0)


@pytest.mark.parametrize(("options", "exit_code"), [([], 0), (["--check"], 1)])
def test_only_with_the_check_does_a_miss_fail(
    monkeypatch: pytest.MonkeyPatch, options: list[str], exit_code: int
) -> None:
    points = [_point("target", 21, 96), _point("8×0ms", 19, 100, is_best=True)]
    monkeypatch.setattr(batching, "_measure", lambda *_: points)
    result = CliRunner().invoke(batching.main, ["--models", "mlp", *options])
    assert result.exit_code == exit_code
    assert ("Error: mlp at 50%" in result.output) == bool(exit_code)


def test_the_whole_benchmark(tmp_path: Path) -> None:
    options = ["--json", str(tmp_path / "result.json"), "--results", str(tmp_path / "results")]
    command = [sys.executable, "benchmarks/batching.py", "--quick", "--duration", "0.02", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict" in done.stdout

    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["models"]) == {"mlp", "ffnn", "gbdt"}
    for model in result["models"].values():
        assert [cell["load"] for cell in model["cells"]] == [0.2, 0.5, 0.8, 0.95]
        assert model["saturation"]["ratio"] > 0
    file = tmp_path / "results" / "batching.csv"
    points = read_runs(file)
    again = summarise(points)
    assert {name: model["saturation"]["best_static"] for name, model in again["models"].items()} == {
        name: model["saturation"]["best_static"] for name, model in result["models"].items()
    }
    assert sum(len(runs) for point in points for runs in point.runs.values()) == 3 * 4 * (6 + 2)
    assert (tmp_path / "results" / "batching.md").read_text().count("\n| mlp |") == 5
    drawing = (tmp_path / "results" / "batching.svg").read_text()
    assert all(f">{text}</text>" in drawing for text in ("mlp", "ffnn", "gbdt", "target_p99_ms: 20, p99"))


def test_a_run_of_one_model_leaves_the_results_of_the_others(tmp_path: Path) -> None:
    def points(model: str, events_per_s: float) -> list[Point]:
        found = [_point("target", 19, events_per_s), _point("8×0ms", 5, 100, is_best=True)]
        for point in found:
            point.model = model
        return found

    write_results(tmp_path, [*points("mlp", 96), *points("gbdt", 97)])
    write_results(tmp_path, points("mlp", 98))
    models = summarise(read_runs(tmp_path / "batching.csv"))["models"]
    assert [(name, model["saturation"]["ratio"]) for name, model in models.items()] == [("mlp", 0.98), ("gbdt", 0.97)]
    assert "| gbdt | all it can |  | 97/s |  | 8×0ms |  | 100/s | ratio 0.970 | holds |" in (
        tmp_path / "batching.md"
    ).read_text(encoding="utf-8")


def test_an_unknown_model_is_refused() -> None:
    command = [sys.executable, "benchmarks/batching.py", "--models", "mlp,resnet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no model 'resnet'; there are mlp, ffnn, gbdt" in done.stderr
