"""A plot of a report: what it draws, says in a sentence, and has as its table; and the kinds that several are of."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelstream.streams.replay.report_text import clock, compact
from modelstream.streams.replay.result import Sample
from modelstream.streams.replay.svg_figure import COLOURS, Draw, to_svg

__all__ = ["Line", "Plot", "area", "count_axis", "lines", "make_plot", "time_axis"]

#: Sizes in pixels: over the whole page, over half of it, and on a phone.
_FULL, _HALF, _NARROW = (1040, 330), (500, 250), (330, 235)
#: Below so many points a line also shows each of them.
_FEW_POINTS = 40


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot of a report.

    Parameters
    ----------
    id : str
        Unique in the page.
    title, summary : str
        What it is, and what it shows in a sentence.
    wide, narrow : str
        The drawing as SVG, for a page of usual width and for a phone.
    columns : sequence of str
        Heads of the table of its data.
    rows : sequence of sequence of str
        The table.
    is_full : bool
        Whether it takes the whole width.
    """

    id: str
    title: str
    summary: str
    wide: str
    narrow: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_full: bool = False


def make_plot(
    name: str,
    title: str,
    summary: str,
    draw: Draw,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    is_full: bool = False,
) -> Plot:
    """Return a plot, drawn in both sizes."""
    wide = to_svg(f"{name}-w", draw, *(_FULL if is_full else _HALF))
    narrow = to_svg(f"{name}-n", draw, *_NARROW, narrow=True)
    # A number and its unit stay on one line.
    summary = re.sub(r"(?<=\d) (?=(ms|s|MB|%)\b|%)", "\N{NO-BREAK SPACE}", summary)
    return Plot(name, title, summary, wide, narrow, columns, rows, is_full)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a drawing, which others may run over where it is broad."""

    name: str
    values: Sequence[float | None]
    colour: str
    is_broad: bool = False


def lines(series: Sequence[Sample], shown: Sequence[Line], unit: str, warm_up_s: float = 0.0) -> Draw:
    """Return a drawing of lines over time, with a legend above, and the warm-up shaded."""
    times = [sample.time_s for sample in series]

    def draw(axes: Any, narrow: bool) -> None:
        for line in shown:
            # A span without a value is bridged: many lie in short replays, with single points between them.
            known = [(time, value) for time, value in zip(times, line.values, strict=True) if value is not None]
            axes.plot(
                *zip(*known, strict=True),
                color=COLOURS[line.colour],
                label=line.name,
                linewidth=4.5 if line.is_broad else 1.75,
                alpha=0.55 if line.is_broad else 1.0,
                marker="o" if len(times) < _FEW_POINTS else None,
                markersize=3,
            )
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shown), frameon=False, borderpad=0, handlelength=1.6,
            labelcolor=COLOURS["ink"], fontsize=11,
        )  # fmt: skip
        _shade(axes, warm_up_s, narrow)
        time_axis(axes, times, narrow)
        count_axis(axes, unit)

    return draw


def area(series: Sequence[Sample], values: Sequence[float | None], unit: str, warm_up_s: float = 0.0) -> Draw:
    """Return a drawing of one line over time, with what is below it tinted, and the warm-up shaded."""
    times = [sample.time_s for sample in series]

    def draw(axes: Any, narrow: bool) -> None:
        known = [math.nan if value is None else value for value in values]
        axes.fill_between(times, known, color=COLOURS["first"], alpha=0.16, linewidth=0)
        marker = "o" if len(times) < _FEW_POINTS else None
        axes.plot(times, known, color=COLOURS["first"], marker=marker, markersize=3)
        _shade(axes, warm_up_s, narrow)
        time_axis(axes, times, narrow)
        count_axis(axes, unit)

    return draw


def _shade(axes: Any, until_s: float, narrow: bool) -> None:
    if until_s:
        axes.axvspan(0, until_s, color=COLOURS["quiet"], alpha=0.16, linewidth=0, zorder=0)
        axes.annotate(
            "warm-up", (0, 1), (4, -3), xycoords="axes fraction", textcoords="offset points", va="top",
            fontsize=10 if narrow else 11, color=COLOURS["muted"],
        )  # fmt: skip


def time_axis(axes: Any, times: Sequence[float], narrow: bool) -> None:
    """Have the horizontal axis tell the time since the start."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 1.5, 3, 6, 10] if times[-1] >= 60 else [1, 2, 5, 10]  # halves and thirds of a minute
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 6, steps=steps))
    axes.xaxis.set_major_formatter(clock)
    axes.set_xlim(0, times[-1])


def count_axis(axes: Any, unit: str) -> None:
    """Have the vertical axis start at 0, with few round ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(compact)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-9))
    axes.set_ylabel(unit)
