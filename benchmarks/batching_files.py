"""The batching benchmark's results folder: every run as CSV, the verdicts as Markdown, the latencies as a drawing."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.batching_load import LoadRun
from benchmarks.batching_report import TARGET_MS, Point, summarise, table_rows
from benchmarks.plots import Line, plot_loads
from benchmarks.report import describe_environment

__all__ = ["read_runs", "write_results"]

_COLUMNS = (
    "model", "policy", "max_size", "max_wait_ms", "best_size", "load", "p50_ms", "p99_ms", "rows", "kept_up",
    "events_per_s",
)  # fmt: skip


def write_results(folder: Path, points: Sequence[Point]) -> None:
    """Write `batching.csv`, `batching.md` and `batching.svg`; other models' runs that stand in the CSV are kept.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    points : sequence of Point
        All points of the models that were run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "batching.csv"
    known = read_runs(file) if file.exists() else []
    models = {point.model for point in points}
    by_model = {point.model: None for point in [*known, *points]}
    both = [*(point for point in known if point.model not in models), *points]
    ordered = [point for model in by_model for point in both if point.model == model]
    _write_runs(file, ordered)
    (folder / "batching.md").write_text(_markdown(ordered), encoding="utf-8")
    plot_loads(folder / "batching.svg", _lines(ordered), limit_ms=TARGET_MS)


def read_runs(file: Path) -> list[Point]:
    """Return the points of a CSV file that `write_results` wrote; why micro-batches were closed is not in it."""
    points: dict[tuple[str, str], Point] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            key = row["model"], row["policy"]
            if key not in points:
                points[key] = Point(
                    *key, int(row["max_size"]), float(row["max_wait_ms"]), is_best=row["best_size"] == "True"
                )
            if row["load"]:
                measures = float(row["p50_ms"]), float(row["p99_ms"]), float(row["rows"]), row["kept_up"] == "True"
                points[key].add(float(row["load"]), LoadRun(*measures, {}))
            else:
                points[key].saturated.append(float(row["events_per_s"]))
    return list(points.values())


def _write_runs(file: Path, points: Sequence[Point]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for point in points:
            policy = [point.model, point.policy, point.max_size, point.max_wait_ms, point.is_best]
            for load, runs in point.runs.items():
                for run in runs:
                    measures = [round(run.p50_ms, 3), round(run.p99_ms, 3), round(run.mean_rows, 1), run.kept_up]
                    rows.writerow([*policy, load, *measures, ""])
            for events_per_s in point.saturated:
                rows.writerow([*policy, "", "", "", "", "", round(events_per_s)])


def _markdown(points: Sequence[Point]) -> str:
    titles, rows = table_rows(summarise(points))
    where = describe_environment("none")
    lines = [
        "# Batching",
        "",
        f"`target_p99_ms: {TARGET_MS:g}` against static batch sizes and waits: latencies in ms under open-loop load,",
        "and events per second where there is always more; medians of runs. What was measured stands in",
        "[the benchmarks](../README.md#batching), every run in [batching.csv](batching.csv).",
        "",
        f"On {where['cpus']} CPUs ({where['cpu']}; {where['system']}), Python {where['python']}, "
        f"ONNX Runtime {where['packages']['onnxruntime']}.",
        "",
        "![p50 and p99 by load, for each model](batching.svg)",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "|".join(" --- " for _ in titles) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _lines(points: Sequence[Point]) -> dict[str, list[Line]]:
    """Return what is drawn of each model: the target as lines, p99 of all static policies as dots."""
    by_model = {}
    for model in dict.fromkeys(point.model for point in points):
        target, *grid = [point for point in points if point.model == model]
        lines = [
            Line("static size × wait, p99", "#b0b0b0", {load: point.at(load)["p99_ms"] for load in point.runs})
            for point in grid
        ]
        for measure, colour in (("p50_ms", "#7fb2e5"), ("p99_ms", "#1f5fa8")):
            latencies = {load: target.at(load)[measure] for load in target.runs}
            lines.append(Line(f"target_p99_ms: {TARGET_MS:g}, {measure[:3]}", colour, latencies, is_joined=True))
        by_model[model] = lines
    return by_model
