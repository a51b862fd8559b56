"""A pipeline's graph as one SVG file: nothing else needed, light or dark as its reader likes."""

from __future__ import annotations

import unicodedata
import xml.etree.ElementTree as ET

from modelstream.streams.graph import Graph, Group, Node
from modelstream.streams.graph_layout import Box, lay_out

__all__ = ["to_svg"]

#: Pixels of a character at 12 px, wide enough for the bold of any common sans-serif font; East Asian ones take two.
_CHARACTER_PX = 7.4
_LINE_PX = 16.0
_PADDING_PX = 10.0
#: Around the boxes of a stage; above them its title.
_GROUP_PX = 12.0
_TITLE_PX = 22.0
_MARGIN_PX = 24.0
#: Between everything else and the line that dead letters take.
_RAIL_PX = 34.0

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2933; }
.title { font-weight: 600; }
.node { fill: #fff; stroke: #52606d; }
.source, .sink { fill: #e3f8ff; stroke: #2bb0ed; }
.model { fill: #e3f9e5; stroke: #3f9142; }
.ensemble, .cascade { fill: #fff3c4; stroke: #cb6e17; }
.cache { fill: #eae2f8; stroke: #7a5dc7; }
.dead_letter { fill: #ffe3e3; stroke: #cf1124; }
.group { fill: #f5f7fa; stroke: #cbd2d9; }
.arrow { fill: none; stroke: #52606d; }
.unsure { stroke-dasharray: 6 4; }
.dead { stroke: #cf1124; stroke-dasharray: 2 4; }
.label { font-size: 11px; text-anchor: middle; }
.ground { fill: #f5f7fa; }
@media (prefers-color-scheme: dark) {
  text { fill: #f5f7fa; }
  .node { fill: #323f4b; stroke: #9aa5b1; }
  .source, .sink { fill: #035388; } .model { fill: #0e5814; } .ensemble, .cascade { fill: #841003; }
  .cache { fill: #421987; } .dead_letter { fill: #780a0a; }
  .group { fill: #1f2933; stroke: #616e7c; }
  .arrow { stroke: #cbd2d9; } .dead { stroke: #f86a6a; } #tip { fill: #cbd2d9; }
  .ground { fill: #1f2933; }
}
"""


def to_svg(graph: Graph) -> str:
    """Return the text of an SVG file.

    Examples
    --------
    >>> graph = Graph("p")
    >>> source, dead = graph.node("source", "events"), graph.node("dead_letter", "dead")
    >>> graph.edge(source.id, dead.id, kind="dead")
    >>> to_svg(graph).startswith("<svg")
    True
    """
    return _Drawing(graph).text()


class _Drawing:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._dead = next((node for node in graph.nodes if node.kind == "dead_letter"), None)
        placed = [node for node in graph.nodes if node is not self._dead]
        edges = [(edge.source, edge.target) for edge in graph.edges if edge.kind != "dead"]
        self._layout = lay_out({node.id: _size(node) for node in placed}, edges)
        self._frames = {group.id: self._frame(group) for group in graph.groups}
        self._shift()
        self._svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")

    def text(self) -> str:
        ET.SubElement(self._svg, "title").text = f"Pipeline {self._graph.name}"
        ET.SubElement(self._svg, "style").text = _STYLE
        marker = ET.SubElement(
            ET.SubElement(self._svg, "defs"),
            "marker",
            {"id": "arrow", "viewBox": "0 0 8 8", "refX": "8", "refY": "4", "markerWidth": "8", "markerHeight": "8"},
            orient="auto",
        )
        ET.SubElement(marker, "path", id="tip", d="M0 0 8 4 0 8z", fill="#52606d")
        for group in self._graph.groups:
            self._rect(self._frames[group.id], "group", group.id)
        self._draw_arrows()
        for group in self._graph.groups:
            self._draw_heading(group)
        for node in self._graph.nodes:
            self._draw_node(node)
        layout = self._layout
        self._svg.set("viewBox", f"0 0 {layout.width:.0f} {layout.height:.0f}")
        self._svg.set("width", f"{layout.width:.0f}")
        self._svg.set("height", f"{layout.height:.0f}")
        ET.indent(self._svg)
        return ET.tostring(self._svg, encoding="unicode") + "\n"

    def _frame(self, group: Group) -> Box:
        """Return the box around a group's boxes; the gap between layers leaves room for its title."""
        inner = [self._layout.boxes[node.id] for node in self._graph.nodes if node.group == group.id]
        left, top = min(box.x for box in inner) - _GROUP_PX, min(box.y for box in inner) - _TITLE_PX - _GROUP_PX / 2
        right = max(box.x + box.width for box in inner) + _GROUP_PX
        bottom = max(box.y + box.height for box in inner) + _GROUP_PX
        return Box(max(right - left, _text_px(_heading(group)) + 2 * _GROUP_PX), bottom - top, left, top)

    def _shift(self) -> None:
        """Move everything into the margins, and put the dead letters to the right of all of it."""
        layout, everything = self._layout, [*self._layout.boxes.values(), *self._frames.values()]
        left, top = min(box.x for box in everything) - _MARGIN_PX, min(box.y for box in everything) - _MARGIN_PX
        for box in everything:
            box.x, box.y = box.x - left, box.y - top
        layout.routes = {edge: [(x - left, y - top) for x, y in points] for edge, points in layout.routes.items()}
        layout.width = max(box.x + box.width for box in everything) + _MARGIN_PX
        layout.height = max(box.y + box.height for box in everything) + _MARGIN_PX
        if self._dead is not None:
            width, height = _size(self._dead)
            bottom = max((box.y for box in self._layout.boxes.values()), default=0.0)
            layout.boxes[self._dead.id] = Box(width, height, layout.width - _MARGIN_PX + _RAIL_PX, bottom)
            layout.width += _RAIL_PX + width
            layout.height = max(layout.height, bottom + height + _MARGIN_PX)

    def _rect(self, box: Box, css: str, name: str = "") -> None:
        place = {"x": f"{box.x:.1f}", "y": f"{box.y:.1f}", "width": f"{box.width:.1f}", "height": f"{box.height:.1f}"}
        ET.SubElement(self._svg, "rect", {**({"id": name} if name else {}), "class": css, "rx": "6", **place})

    def _text(self, x: float, y: float, text: str, css: str = "") -> ET.Element:
        element = ET.SubElement(self._svg, "text", {"class": css} if css else {}, x=f"{x:.1f}", y=f"{y:.1f}")
        element.text = text
        return element

    def _draw_heading(self, group: Group) -> None:
        frame = self._frames[group.id]
        width = _text_px(_heading(group))
        self._rect(Box(width, _LINE_PX, frame.x + _GROUP_PX, frame.y + 4), "ground")
        text = self._text(frame.x + _GROUP_PX, frame.y + _LINE_PX, "")
        title = ET.SubElement(text, "tspan", {"class": "title"})
        title.text, title.tail = group.title, f" {', '.join(group.lines)}"

    def _draw_node(self, node: Node) -> None:
        box = self._layout.boxes[node.id]
        self._rect(box, f"node {node.kind}", node.id)
        for i, line in enumerate((node.title, *node.lines)):
            y = box.y + _PADDING_PX + _LINE_PX * (i + 0.75)
            self._text(box.x + _PADDING_PX, y, line, "" if i else "title")

    def _draw_arrows(self) -> None:
        for edge in self._graph.edges:
            if edge.kind == "dead":
                self._draw_dead(edge.source, edge.target)
            elif points := self._layout.routes.get((edge.source, edge.target)):
                attributes = {"class": f"arrow {edge.kind}", "d": _curve(points), "marker-end": "url(#arrow)"}
                ET.SubElement(self._svg, "path", attributes)
        for edge in self._graph.edges:  # above all arrows
            points = self._layout.routes.get((edge.source, edge.target))
            if edge.label and points:
                (x, y), (next_x, next_y) = points[-2:]
                x, y, width = (x + next_x) / 2, (y + next_y) / 2, _text_px(edge.label)
                self._rect(Box(width, _LINE_PX, x - width / 2, y - _LINE_PX / 2), "ground")
                self._text(x, y + 4, edge.label, "label")

    def _draw_dead(self, source: str, target: str) -> None:
        """Draw a line to the right, then down: nothing stands there."""
        box = self._frames.get(source) or self._layout.boxes[source]
        end = self._layout.boxes[target]
        x, y = end.x + end.width / 2, box.y + box.height / 2
        path = f"M{box.x + box.width:.1f} {y:.1f}H{x:.1f}V{end.y:.1f}"
        ET.SubElement(self._svg, "path", {"class": "arrow dead", "d": path, "marker-end": "url(#arrow)"})


def _heading(group: Group) -> str:
    return f"{group.title} {', '.join(group.lines)}"


def _text_px(text: str) -> float:
    return _CHARACTER_PX * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _size(node: Node) -> tuple[float, float]:
    lines = (node.title, *node.lines)
    return max(map(_text_px, lines)) + 2 * _PADDING_PX, _LINE_PX * len(lines) + 2 * _PADDING_PX


def _curve(points: list[tuple[float, float]]) -> str:
    """Return a path through points that leaves and enters them from above."""
    (x, y), *others = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in others:
        middle = (y + next_y) / 2
        parts.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return "".join(parts)
