"""A pipeline's graph as text for a terminal: one branch for each stage, from the source down to the sink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.cells import cell_len, set_cell_size

from modelstream.streams.graph import Graph, Group, Node

__all__ = ["to_text"]

_Entry = tuple[Node | Group, Sequence[Node]]


def to_text(graph: Graph) -> str:
    """Return the text of a tree.

    Examples
    --------
    >>> graph = Graph("flights")
    >>> _ = graph.node("source", "events", "json"), graph.node("sink", "predictions")
    >>> print(to_text(graph), end="")
    flights
    ├─ source   events · json
    └─ sink     predictions
    """
    entries = list(_entries(graph))
    width = max(cell_len(_name(entry)) for entry, _ in entries)
    lines = [graph.name]
    for i, (entry, inner) in enumerate(entries):
        last = i == len(entries) - 1
        lines.append(f"{'└' if last else '├'}─ {set_cell_size(_name(entry), width)} {_details(entry)}".rstrip())
        lines += [f"{' ' if last else '│'}  {line}" for line in _branches(graph, inner)]
    return "\n".join([*lines, ""])


def _entries(graph: Graph) -> Iterator[_Entry]:
    """Yield what stands at the trunk: nodes on their own, and groups with their nodes."""
    groups = {group.id: group for group in graph.groups}
    for node in graph.nodes:
        if node.group is None:
            yield node, ()
        elif node.group in groups:
            yield groups.pop(node.group), [inner for inner in graph.nodes if inner.group == node.group]


def _name(entry: Node | Group) -> str:
    if isinstance(entry, Group) or entry.kind == "stage":
        return f"{entry.title} "
    return f"{entry.kind.replace('_', ' ').replace('dead letter', 'dead')}   "


def _details(entry: Node | Group) -> str:
    if isinstance(entry, Group):
        return f"infer, {', '.join(entry.lines)}"
    own = () if entry.kind == "stage" else (entry.title,)
    return " · ".join((*own, *entry.lines))


def _branches(graph: Graph, nodes: Sequence[Node]) -> Iterator[str]:
    """Yield a line for each node of a group."""
    width = max((cell_len(node.title) for node in nodes), default=0)
    for node, following in pairwise([*nodes, None]):
        assert node is not None
        branch = "├─" if following else "└─"
        words = [*node.lines, *_reads(graph, node)]
        yield f"{branch} {set_cell_size(node.title, width)}  {' · '.join(words)}".rstrip()


def _reads(graph: Graph, node: Node) -> Iterator[str]:
    titles = {one.id: one.title.partition("@")[0] for one in graph.nodes}
    for edge in graph.edges:
        if edge.target != node.id:
            continue
        if edge.kind == "unsure":
            yield f"where {titles[edge.source]} is unsure"
        elif edge.kind == "answer" and node.kind == "model":
            yield f"reads {titles[edge.source]}.{edge.label}"
