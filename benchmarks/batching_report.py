"""What is told of the batching benchmark: a verdict for each model and load, and the table of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.batching_load import LoadRun
from rich.console import Console
from rich.table import Table

__all__ = ["TARGET_MS", "Point", "missed", "print_tables", "summarise", "table_rows"]

TARGET_MS = 20.0

#: Of the best static size's events per second, what the target must reach.
_LEAST_SATURATION = 0.95


@dataclass
class Point:
    """One policy on one model, with all its runs.

    Parameters
    ----------
    model, policy : str
        Which; the policy is ``target``, or such as ``256×2ms``.
    max_size, max_wait_ms : int, float
        The static policy; 0 for the target.
    saturated : list of float
        Events per second of each run at saturation.
    runs : dict of float to list of LoadRun
        Runs by load.
    is_best : bool
        Whether it was the best static size at saturation.
    """

    model: str
    policy: str
    max_size: int
    max_wait_ms: float
    saturated: list[float] = field(default_factory=list)
    runs: dict[float, list[LoadRun]] = field(default_factory=dict)
    is_best: bool = False

    def add(self, load: float, run: LoadRun) -> None:
        """Note a run."""
        self.runs.setdefault(load, []).append(run)

    @property
    def events_per_s(self) -> float | None:
        """At saturation, the median; None where that was not measured."""
        return statistics.median(self.saturated) if self.saturated else None

    def at(self, load: float) -> dict[str, float]:
        """Return the medians at a load."""
        runs = self.runs[load]
        return {
            name: round(statistics.median(getattr(run, name) for run in runs), 3)
            for name in ("p50_ms", "p99_ms", "mean_rows")
        }


def summarise(points: Sequence[Point]) -> dict[str, Any]:
    """Return verdicts and medians.

    Returns
    -------
    dict
        ``verdict``: whether the target held wherever a static policy did, and its saturation was near enough to the
        best one's. ``models``: for each, ``saturation`` and ``cells``, one for each load. ``points``: all medians.
    """
    models = {model: _model([point for point in points if point.model == model]) for model in _models(points)}
    verdict = {
        "p99_holds": all(cell["ok"] for model in models.values() for cell in model["cells"]),
        "saturation_holds": all(model["saturation"]["ok"] for model in models.values()),
    }
    return {"verdict": verdict, "models": models, "points": [_plain(point) for point in points]}


def missed(summary: Mapping[str, Any]) -> str | None:
    """Return what the target did not reach, in one line; None where it holds wherever a static policy does.

    Parameters
    ----------
    summary : mapping
        As `summarise` returns it.
    """
    parts = []
    for name, model in summary["models"].items():
        parts += [
            f"{name} at {cell['load']:.0%}: p99 {cell['target']['p99_ms']:.2f} ms is above {TARGET_MS:g} ms, "
            f"but {cell['best_static']['policy']} has {cell['best_static']['p99_ms']:.2f} ms"
            for cell in model["cells"]
            if not cell["ok"]
        ]
        saturation = model["saturation"]
        if not saturation["ok"]:
            ratio, best = saturation["ratio"], saturation["best_static"]
            parts.append(f"{name} at saturation: {ratio:.4f} of {best} is below {_LEAST_SATURATION}")
    return "; ".join(parts) or None


def _models(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.model for point in points))


def _model(points: Sequence[Point]) -> dict[str, Any]:
    target, *grid = points
    best = next(point for point in grid if point.is_best)
    ratio = (target.events_per_s or 0) / (best.events_per_s or 1)
    saturation = {
        "best_static": best.policy,
        "best_static_events_per_s": round(best.events_per_s or 0),
        "target_events_per_s": round(target.events_per_s or 0),
        "ratio": round(ratio, 4),
        "ok": ratio >= _LEAST_SATURATION,
    }
    return {"saturation": saturation, "cells": [_cell(target, grid, load) for load in target.runs]}


def _cell(target: Point, grid: Sequence[Point], load: float) -> dict[str, Any]:
    found, best = target.at(load), min(grid, key=lambda point: point.at(load)["p99_ms"])
    n_holding = sum(point.at(load)["p99_ms"] <= TARGET_MS for point in grid)
    holds = found["p99_ms"] <= TARGET_MS
    return {
        "load": load,
        "target": found,
        "best_static": {"policy": best.policy, **best.at(load)},
        "static_that_hold": n_holding,
        "static": len(grid),
        "holds": holds,
        "ok": holds or not n_holding,
    }


def _plain(point: Point) -> dict[str, Any]:
    return {
        "model": point.model,
        "policy": point.policy,
        "max_size": point.max_size,
        "max_wait_ms": point.max_wait_ms,
        "events_per_s": point.events_per_s and round(point.events_per_s),
        "loads": {str(load): {**point.at(load), "kept_up": _kept_up(runs)} for load, runs in point.runs.items()},
        "p99_ms_of_runs": {str(load): [round(run.p99_ms, 3) for run in runs] for load, runs in point.runs.items()},
    }


def _kept_up(runs: Sequence[LoadRun]) -> bool:
    return 2 * sum(run.kept_up for run in runs) > len(runs)


def table_rows(summary: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the titles and rows of a table of verdicts, a row for each model and load."""
    titles = ("model", "load", "p50", "p99", "rows", "best static", "p50", "p99", "static that hold", "verdict")
    rows = []
    for name, model in summary["models"].items():
        for cell in model["cells"]:
            found, best = cell["target"], cell["best_static"]
            rows.append((
                name,
                f"{cell['load']:.0%}",
                f"{found['p50_ms']:.2f}",
                f"{found['p99_ms']:.2f}",
                f"{found['mean_rows']:.0f}",
                best["policy"],
                f"{best['p50_ms']:.2f}",
                f"{best['p99_ms']:.2f}",
                f"{cell['static_that_hold']} of {cell['static']}",
                "holds" if cell["holds"] else "late" if cell["static_that_hold"] else "late, as all are",
            ))  # fmt: skip
        saturation = model["saturation"]
        rows.append((
            name, "all it can", "", f"{saturation['target_events_per_s']:,}/s", "", saturation["best_static"], "",
            f"{saturation['best_static_events_per_s']:,}/s", f"ratio {saturation['ratio']:.3f}",
            "holds" if saturation["ok"] else f"below {_LEAST_SATURATION}",
        ))  # fmt: skip
    return titles, rows


def print_tables(summary: Mapping[str, Any]) -> None:
    """Print the table of verdicts to stdout."""
    titles, rows = table_rows(summary)
    table = Table(title=f"target_p99_ms: {TARGET_MS:g} against static sizes × waits; latency in ms, medians of runs")
    for title in titles:
        table.add_column(title, justify="left" if title in ("model", "best static", "verdict") else "right")
    for row in rows:
        table.add_row(*row, end_section=row[1] == "all it can")
    # Wide enough for the table where stdout is a file and has no width.
    Console(width=None if sys.stdout.isatty() else 130).print(table)
