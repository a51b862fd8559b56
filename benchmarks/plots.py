"""The plots of the results, by matplotlib as SVG: events per second, latency and CPU over the rate or the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["Line", "plot_loads", "plot_rates", "plot_throughput"]

_OWN, _OTHER = "#2563b8", "#93a1b0"

_COLOURS = {"modelstream": "#2563b8", "loop": "#c4570d"}

#: The same drawing gives the same file.
_STYLE: Any = {
    "svg.hashsalt": "modelstream",
    "svg.fonttype": "none",
    "font.size": 9,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Line:
    """Points of one name and colour; those of one name are alike, and stand in the legend once."""

    name: str
    colour: str
    points: Mapping[float, float]
    is_joined: bool = False


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def plot_throughput(file: Path, by_workload: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Draw bars of events per second, a panel for each workload, the fastest system on top.

    Parameters
    ----------
    file : Path
        Gets the SVG.
    by_workload : mapping
        By workload and system: medians, of which ``events_per_s`` is drawn.
    """
    with mpl.rc_context(_STYLE):
        n_rows = -(-len(by_workload) // 2)
        figure = Figure(figsize=(10, 0.6 + 2.6 * n_rows))
        axes = figure.subplots(n_rows, 2, squeeze=False).flat
        for ax in axes:
            ax.set_visible(False)
        for ax, (workload, systems) in zip(figure.axes, by_workload.items(), strict=False):
            ax.set_visible(True)
            ordered = sorted(systems.items(), key=lambda item: item[1]["events_per_s"])
            names = [name for name, _ in ordered]
            rates = [row["events_per_s"] for _, row in ordered]
            bars = ax.barh(names, rates, color=[_OWN if name.startswith("modelstream") else _OTHER for name in names])
            ax.bar_label(bars, [f" {rate:,.0f}" for rate in rates])
            ax.set_title(workload, loc="left", fontweight="bold")
            ax.set_xlim(0, max(rates) * 1.2)
            ax.spines[["top", "right"]].set_visible(False)
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        figure.supxlabel("events per second, one worker, median")
        _save(figure, file)


def plot_rates(
    file: Path, rows: Sequence[Mapping[str, Any]], measures: Mapping[str, str], label: str, *, is_log: bool = False
) -> None:
    """Draw measures over the rate, a line for each system and measure.

    Parameters
    ----------
    file : Path
        Gets the SVG.
    rows : sequence of mapping
        Medians of a system at a rate.
    measures : mapping of str to str
        The keys to draw, and how their lines look, such as ``-``.
    label : str
        Of the y axis.
    is_log : bool
        Whether that is logarithmic.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 4))
        ax = figure.subplots()
        for system in dict.fromkeys(row["system"] for row in rows):
            own = sorted((row for row in rows if row["system"] == system), key=lambda row: row["rate_per_s"])
            for measure, line in measures.items():
                name = system if len(measures) == 1 else f"{system}, {measure.removesuffix('_ms')}"
                points = [row["rate_per_s"] for row in own], [row[measure] for row in own]
                ax.plot(*points, line, marker="o", markersize=3.5, color=_COLOURS.get(system), label=name)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if is_log:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            ax.set_ylim(bottom=0)
        ax.grid(color="#e3e8ee")
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlabel("events per second")
        ax.set_ylabel(label)
        ax.legend(frameon=False)
        _save(figure, file)


def plot_loads(file: Path, by_model: Mapping[str, Sequence[Line]], *, limit_ms: float) -> None:
    """Draw latencies over the load as a share of the capacity, a panel for each model.

    Parameters
    ----------
    file : Path
        Gets the SVG.
    by_model : mapping of str to sequence of Line
        In ms by load.
    limit_ms : float
        A latency that gets a line of its own.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.8 + 3.2 * len(by_model), 3.8))
        axes = figure.subplots(1, len(by_model), sharey=True, squeeze=False).flat
        for ax, (model, lines) in zip(axes, by_model.items(), strict=True):
            ax.axhline(limit_ms, color="#c33333", linestyle="--", linewidth=1)
            for line in lines:
                how = {"linestyle": "-", "markersize": 4} if line.is_joined else {"linestyle": "", "markersize": 3}
                points = list(line.points), list(line.points.values())
                ax.plot(*points, marker="o", color=line.colour, label=line.name, **how)
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.set_xlim(0, 1)
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            ax.set_title(model, fontweight="bold")
            ax.grid(color="#e3e8ee")
        figure.supxlabel("load, share of capacity")
        figure.supylabel("latency, ms")
        handles, names = figure.axes[0].get_legend_handles_labels()
        legend = dict(zip(names, handles, strict=True))
        figure.legend(legend.values(), legend, loc="outside upper left", ncols=len(by_model), frameon=False)
        _save(figure, file)
