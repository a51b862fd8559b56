"""Figures of matplotlib as SVG to stand in a page: its fonts, its colours, light or dark, and ids of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelstream.models.errors import ConfigError

__all__ = ["COLOURS", "Draw", "require_libraries", "to_svg"]

#: Draws into a figure's axes; the flag says that there is little room.
Draw = Callable[[Any, bool], None]

#: What a figure is drawn with, and as what it comes out: the page gives each name a colour, ``--plot-NAME``.
COLOURS = {
    "ink": "#22303c",
    "muted": "#5b6b7b",
    "grid": "#e3e8ee",
    "first": "#2563b8",
    "second": "#c4570d",
    "quiet": "#93a1b0",
}

# matplotlib names every key in its types.
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, to be found, read out, and shown in the page's font
    "font.family": ["DejaVu Sans"],  # comes with matplotlib; wider than what browsers take, so all fits
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["quiet"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 1.0,
    "lines.linewidth": 1.75,
    "lines.solid_joinstyle": "round",
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["quiet"],
    "ytick.color": COLOURS["quiet"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
}

_COLOUR = re.compile("|".join(COLOURS.values()))
_NAMES = {colour: name for name, colour in COLOURS.items()}
_FONT = re.compile(r"font: ([0-9.]+)px [^;\"]*")
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def require_libraries() -> None:
    """Check that reports can be made, before anything is measured for one.

    Raises
    ------
    ConfigError
        matplotlib or Jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("--report", f"needs {error.name}: pip install 'modelstream[report]'") from None


def to_svg(name: str, draw: Draw, width_px: int, height_px: int, *, narrow: bool = False) -> str:
    """Return a drawing as the text of an ``<svg>`` element, without an XML header.

    Parameters
    ----------
    name : str
        What its ids begin with; unique in the page.
    draw : callable
        Draws into the axes.
    width_px, height_px : int
        Its size where the page does not scale it.
    narrow : bool
        Whether there is little room.
    """
    with _quiet_style(name):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        # Points are pixels then.
        figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes: Any = figure.add_subplot()
        draw(axes, narrow)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(file.getvalue(), name, width_px, height_px)


@contextmanager
def _quiet_style(name: str) -> Iterator[None]:
    import matplotlib as mpl

    # The hash makes ids of clip paths; those of two figures must not be alike.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def _for_page(text: str, name: str, width_px: int, height_px: int) -> str:
    svg = _METADATA.sub("", text[text.index("<svg") :])
    svg = _FONT.sub(r"font-size: \1px", svg)
    svg = _COLOUR.sub(lambda found: f"var(--plot-{_NAMES[found[0]]})", svg)
    svg = _REFERENCE.sub(rf"\g<1>{name}-", svg)
    start = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width_px} {height_px}" aria-hidden="true"'
    return start + svg[svg.index(">") :].strip()
