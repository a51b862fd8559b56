"""A report as a browser shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from support.browser import Browser

__all__ = ["PLOTS", "ShownPlot", "look_at_plots", "see_report"]

#: Names of the plots of a replay with one stage that infers.
PLOTS = ("percentiles", "latency", "throughput", "lag", "cpu", "memory", "sizes-0", "reasons-0")

#: The colour of first lines, light and dark.
_FIRST = {"light": (0x25, 0x63, 0xB8), "dark": (0x6E, 0xA4, 0xF2)}

_LOOK = """
[...document.querySelectorAll("figure")].map(figure => {
  const svg = [...figure.querySelectorAll("svg")].find(one => one.getBoundingClientRect().width > 0);
  const box = svg.getBoundingClientRect();
  return [figure.id, svg.querySelectorAll("text").length,
          box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY];
})
"""


class ShownPlot(NamedTuple):
    """A plot, and its part of the picture of the page: shape (height, width, 3)."""

    id: str
    n_texts: int
    pixels: NDArray[np.int16]

    def n_first_line(self, scheme: str = "light") -> int:
        """Return how many pixels have the colour of the first line."""
        return int((np.abs(self.pixels - np.array(_FIRST[scheme], np.int16)).max(axis=2) < 24).sum())


async def look_at_plots(page: Any) -> Sequence[ShownPlot]:
    """Return the plots that a page shows."""
    boxes, picture = await page.evaluate(_LOOK), np.asarray(await page.screenshot(), np.int16)
    return [
        ShownPlot(name, n_texts, picture[int(top) : int(bottom), int(left) : int(right)])
        for name, n_texts, left, top, right, bottom in boxes
    ]


def see_report(browser: Browser, report: Path) -> str:
    """Return what is written in a replay's report, after its plots were looked for in the picture of the page."""

    async def look(page: Any) -> Any:
        await page.open(report)
        return await look_at_plots(page), await page.evaluate("document.body.innerText"), page.complaints

    plots, text, complaints = browser.run(look)
    assert complaints == []
    assert [plot.id for plot in plots] == [f"plot-{name}" for name in PLOTS]
    for plot in plots:
        assert plot.n_first_line() > 100, plot.id
    return str(text)
