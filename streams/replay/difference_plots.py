"""The plots of a comparison's report: how far apart numbers are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from modelstream.streams.replay.difference import Difference, FieldDifference
from modelstream.streams.replay.plots import Plot, count_axis, make_plot
from modelstream.streams.replay.report_text import figure, percent
from modelstream.streams.replay.svg_figure import COLOURS

__all__ = ["difference_plots"]


def difference_plots(difference: Difference) -> Iterator[Plot]:
    """Yield a histogram for each field of numbers that is not the same everywhere."""
    for i, one in enumerate(difference.fields):
        if one.histogram:
            yield _distances(one, i)


def _distances(one: FieldDifference, i: int) -> Plot:
    ends, counts = [end for end, _ in one.histogram], [n for _, n in one.histogram]

    def draw(axes: Any, narrow: bool) -> None:
        axes.bar(range(len(ends)), counts, color=COLOURS["first"], width=0.82)
        step = max(1, math.ceil(len(ends) / (4 if narrow else 8)))
        axes.set_xticks(range(0, len(ends), step), [f"{end:g}" for end in ends[::step]])
        axes.set_xlim(-0.9, max(len(ends), 4) - 0.1)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("apart, up to")
        count_axis(axes, "events")

    n_apart = sum(counts)
    return make_plot(
        f"apart-{i}",
        f"{one.model}.{one.field}",
        f"{percent(n_apart / max(one.compared, 1))} of {one.compared:,} events are not exactly the same: "
        f"{figure(one.mean_abs)} apart in the mean, {figure(one.max_abs)} at most.",
        draw,
        ["Apart, up to", "Events"],
        [[f"{end:g}", f"{n:,}"] for end, n in one.histogram],
    )
