"""Where the boxes of a graph go: in layers from top to bottom, arrows downwards, no box on another.

Layers by the longest way from a source, order within a layer by the mean place of the neighbours: the method of
Sugiyama, for graphs of some dozen boxes. Written here since grandalf, the one library in plain Python, is not kept up.

References
----------
Sugiyama, Tagawa, Toda: Methods for Visual Understanding of Hierarchical System Structures. IEEE SMC 11 (1981).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Box", "Layout", "lay_out"]

#: Pixels between boxes beside each other, and between layers; the latter has to hold an arrow with its label.
_GAP_PX = 28.0
_LAYER_GAP_PX = 58.0
#: Pixels that an arrow needs where it passes a layer.
_PASSAGE_PX = 10.0
#: Times that the layers are put in order, down and up. More change nothing in graphs of this size.
_SWEEPS = 6


@dataclass(slots=True)
class Box:
    """A box: its size, and where its upper left corner goes, in pixels."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class Layout:
    """Where everything goes.

    Parameters
    ----------
    boxes : dict of str to Box
        The boxes by id.
    routes : dict of (str, str) to list of (float, float)
        For each arrow the points that it goes through, from the lower edge of one box to the upper edge of the other.
    width, height : float
        Size of it all, in pixels.
    """

    boxes: dict[str, Box]
    routes: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def lay_out(sizes: Mapping[str, tuple[float, float]], edges: Iterable[tuple[str, str]]) -> Layout:
    """Return where boxes go.

    Parameters
    ----------
    sizes : mapping of str to (float, float)
        Width and height of each box by its id, in pixels.
    edges : iterable of (str, str)
        Arrows, from id to id. An arrow that closes a circle is drawn, but does not count.

    Examples
    --------
    >>> layout = lay_out({"a": (100, 20), "b": (50, 20)}, [("a", "b")])
    >>> layout.boxes["a"].y < layout.boxes["b"].y, layout.routes["a", "b"][0]
    (True, (50.0, 20.0))
    """
    arrows = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    layer = _layers(list(sizes), arrows)
    boxes = {name: Box(*size) for name, size in sizes.items()}
    chains = [_chain(edge, layer, boxes) for edge in arrows if layer[edge[0]] < layer[edge[1]]]
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in boxes:
        rows[layer[name]].append(name)
    _order(rows, [link for chain in chains for link in pairwise(chain)])
    layout = Layout(boxes)
    _place(rows, layout)
    for chain in chains:
        layout.routes[chain[0], chain[-1]] = _route([boxes[name] for name in chain])
    for name in [name for name in boxes if name not in sizes]:
        del boxes[name]
    return layout


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return each box's layer: 0, or one below the lowest that points at it."""
    layer = dict.fromkeys(names, 0)
    # As often as there are boxes is enough without circles; with circles it has to end somewhere.
    for _ in names:
        moved = False
        for source, target in edges:
            if layer[target] <= layer[source] < len(names) - 1:
                layer[target] = layer[source] + 1
                moved = True
        if not moved:
            break
    return {
        name: rank for rank, layers in enumerate(sorted(set(layer.values()))) for name in names if layer[name] == layers
    }


def _chain(edge: tuple[str, str], layer: dict[str, int], boxes: dict[str, Box]) -> list[str]:
    """Return the boxes that an arrow goes through: with a narrow one in each layer that it passes."""
    chain = [edge[0]]
    for rank in range(layer[edge[0]] + 1, layer[edge[1]]):
        name = f"{edge[0]}>{edge[1]}@{rank}"
        boxes[name], layer[name] = Box(_PASSAGE_PX, 0), rank
        chain.append(name)
    return [*chain, edge[1]]


def _order(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> None:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for source, target in links:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    for sweep in range(_SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        place = {name: i / max(len(row) - 1, 1) if len(row) > 1 else 0.5 for row in rows for i, name in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            means = {
                name: sum(place[other] for other in neighbours[name]) / len(neighbours[name])
                if name in neighbours
                else place[name]
                for name in row
            }
            row.sort(key=means.__getitem__)
            place |= {name: i / (len(row) - 1) if len(row) > 1 else 0.5 for i, name in enumerate(row)}


def _place(rows: Sequence[Sequence[str]], layout: Layout) -> None:
    widths = [sum(layout.boxes[name].width for name in row) + _GAP_PX * (len(row) - 1) for row in rows]
    layout.width = max(widths, default=0.0)
    y = 0.0
    for row, width in zip(rows, widths, strict=True):
        height = max(layout.boxes[name].height for name in row)
        x = (layout.width - width) / 2
        for name in row:
            box = layout.boxes[name]
            box.x, box.y = x, y + (height - box.height) / 2
            x += box.width + _GAP_PX
        y += height + _LAYER_GAP_PX
    layout.height = max(y - _LAYER_GAP_PX, 0.0)


def _route(boxes: Sequence[Box]) -> list[tuple[float, float]]:
    first, *middle, last = boxes
    points = [(first.x + first.width / 2, first.y + first.height)]
    points += [(box.x + box.width / 2, box.y) for box in middle]
    return [*points, (last.x + last.width / 2, last.y)]
