"""A small drawing of series over shares from 0 to 1, on a logarithmic axis, in SVG and without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Panel", "Series", "draw"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 300, 260, 56, 28, 64, 16


@dataclass(frozen=True)
class Series:
    """Points of one name and colour; those of one name are alike, and stand in the legend once."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    line: bool = False


@dataclass(frozen=True)
class Panel:
    """One drawing beside others, on the same axes."""

    title: str
    series: Sequence[Series]


def draw(panels: Sequence[Panel], *, x_label: str, y_label: str, limit: float) -> str:
    """Return an SVG document.

    Parameters
    ----------
    panels : sequence of Panel
        From left to right; x from 0 to 1, y above 0.
    x_label, y_label : str
        What the axes are.
    limit : float
        A value of y that gets a line of its own.
    """
    values = [y for panel in panels for series in panel.series for _, y in series.points]
    low = math.floor(math.log10(max(min(values, default=1), 1e-3)))
    high = max(math.ceil(math.log10(max(values, default=10))), low + 1)
    legend, legend_width = _legend(panels, _TOP + _HEIGHT + 54)
    width = max(_LEFT + len(panels) * (_WIDTH + _GAP), legend_width)
    height = _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + i * (_WIDTH + _GAP), low, high, limit, is_first=i == 0)
    middle = _TOP + _HEIGHT / 2
    parts.append(_text(14, middle, y_label, anchor="middle", turned=True))
    parts.append(_text(_LEFT + (width - _LEFT) / 2, _TOP + _HEIGHT + 34, x_label, anchor="middle"))
    parts += legend
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, left: float, low: int, high: int, limit: float, *, is_first: bool) -> Iterator[str]:
    def y_of(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return _TOP + _HEIGHT * (1 - share)

    yield _text(left + _WIDTH / 2, _TOP - 10, panel.title, anchor="middle", bold=True)
    yield f'<rect x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#888"/>'
    for exponent in range(low, high + 1):
        y = y_of(10.0**exponent)
        yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
        if is_first:
            yield _text(left - 6, y + 4, f"{10.0**exponent:g}", anchor="end")
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        yield _text(left + _WIDTH * share, _TOP + _HEIGHT + 16, f"{share:.0%}", anchor="middle")
    y = y_of(limit)
    yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#c33" stroke-dasharray="5 3"/>'
    for series in panel.series:
        places = [(left + _WIDTH * x, y_of(value)) for x, value in series.points]
        if series.line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="2"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if series.line else 2.5}" fill="{series.colour}"/>'


def _legend(panels: Sequence[Panel], y: float) -> tuple[list[str], float]:
    """Return the legend, and where it ends."""
    x, parts = float(_LEFT), []
    colours = {series.name: series.colour for panel in panels for series in panel.series}
    for name, colour in colours.items():
        parts += [f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>', _text(x + 9, y, name)]
        x += 30 + 6 * len(name)
    return parts, x


def _text(x: float, y: float, text: str, *, anchor: str = "start", turned: bool = False, bold: bool = False) -> str:
    turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}{weight}>{escape(text)}</text>'
