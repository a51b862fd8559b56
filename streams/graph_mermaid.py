"""A pipeline's graph as a Mermaid flowchart, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from collections.abc import Iterator

from modelstream.streams.graph import Edge, Graph, Node

__all__ = ["to_mermaid"]

#: Before and after a label: the shapes of boxes.
_SHAPES = {
    "source": ("([", "])"),
    "stage": ("[", "]"),
    "cache": ("[(", ")]"),
    "model": ("[", "]"),
    "ensemble": ("{{", "}}"),
    "cascade": ("{{", "}}"),
    "sink": ("([", "])"),
    "dead_letter": ("([", "])"),
}


def to_mermaid(graph: Graph) -> str:
    """Return the text of a Mermaid flowchart.

    Examples
    --------
    >>> graph = Graph("p")
    >>> source, sink = graph.node("source", "events"), graph.node("sink", 'the "sink"')
    >>> graph.edge(source.id, sink.id)
    >>> print(to_mermaid(graph), end="")
    flowchart TB
      n0(["events"])
      n1(["the #quot;sink#quot;"])
      n0 --> n1
    """
    return "\n".join(["flowchart TB", *(f"  {line}" for line in _lines(graph)), ""])


def _lines(graph: Graph) -> Iterator[str]:
    drawn: set[str] = set()
    for node in graph.nodes:
        if node.group is None:
            yield _box(node)
        elif node.group not in drawn:
            drawn.add(node.group)
            group = next(group for group in graph.groups if group.id == node.group)
            yield f"subgraph {group.id} [{_label(group.title, *group.lines)}]"
            yield from (f"  {_box(inner)}" for inner in graph.nodes if inner.group == node.group)
            yield "end"
    yield from map(_arrow, graph.edges)


def _box(node: Node) -> str:
    before, after = _SHAPES[node.kind]
    return f"{node.id}{before}{_label(node.title, *node.lines)}{after}"


def _arrow(edge: Edge) -> str:
    line = "-->" if edge.kind in ("flow", "answer") else "-.->"
    return f"{edge.source} {line}{f'|{_label(edge.label)}|' if edge.label else ''} {edge.target}"


def _label(*lines: str) -> str:
    # In quotes nothing is syntax but quotes, the entities themselves, markup, and the backquote of Markdown.
    return f'"{"<br/>".join("".join(_ENTITIES.get(c, c) for c in line) for line in lines)}"'


_ENTITIES = {"#": "#35;", '"': "#quot;", "&": "#amp;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\\": "#92;", "*": "#42;"}
