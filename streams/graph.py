"""A pipeline as a graph, from its file alone: what `modelstream graph` draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from modelstream.operators.answers import find_answer
from modelstream.streams.infer_spec import CascadeSpec, EnsembleSpec, InferSpec, ModelSpec
from modelstream.streams.spec import PipelineSpec
from modelstream.streams.stage_spec import DeclaredColumns, PresentFields, RulesSpec, StageSpec

__all__ = ["Edge", "Graph", "Group", "Node", "NodeKind", "cascade_lines", "ensemble_line", "make_graph", "rules_lines"]

EdgeKind = Literal["flow", "answer", "unsure", "dead"]
NodeKind = Literal["source", "stage", "cache", "model", "ensemble", "cascade", "sink", "dead_letter"]

#: Characters of one line in a box: longer ones, such as expressions, are cut.
_MAX_LINE = 60


@dataclass(frozen=True, slots=True)
class Node:
    """One box.

    Parameters
    ----------
    id : str
        Unlike all others'; letters and digits.
    kind : NodeKind
        What it is.
    title : str
        Its name.
    lines : tuple of str
        What else is to be known.
    group : str, optional
        The group that it stands in.
    """

    id: str
    kind: NodeKind
    title: str
    lines: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A stage that infers: a box around boxes."""

    id: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow.

    Parameters
    ----------
    source, target : str
        Ids of nodes; for `kind` ``dead``, the source may be a group.
    label : str
        What goes along.
    kind : {"flow", "answer", "unsure", "dead"}
        Events; one model's answer into another, or into an ensemble or a cascade; rows that a cascade hands on; dead
        letters.
    """

    source: str
    target: str
    label: str = ""
    kind: EdgeKind = "flow"


@dataclass(slots=True)
class Graph:
    """A pipeline drawn: boxes in the order in which events pass them, arrows, and boxes around boxes."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def node(self, kind: NodeKind, title: str, *lines: str, group: str | None = None) -> Node:
        """Add a box and return it."""
        made = Node(f"n{len(self.nodes)}", kind, _clean(title), tuple(_clean(line) for line in lines if line), group)
        self.nodes.append(made)
        return made

    def edge(self, source: str, target: str, label: str = "", kind: EdgeKind = "flow") -> None:
        """Add an arrow."""
        self.edges.append(Edge(source, target, _clean(label), kind))


def _clean(text: str) -> str:
    """Return a text as one line that any terminal, browser or XML reader takes."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "�" for c in text).split())
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 1]}…"


def make_graph(spec: PipelineSpec, resolve: Callable[[str], str | None]) -> Graph:
    """Return a pipeline as a graph.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.
    resolve : callable
        From a reference of a model to ``NAME@VERSION``, or None where there is none; it stands as it is then.

    Examples
    --------
    >>> from modelstream.streams.pipeline import Pipeline, infer
    >>> spec = Pipeline("p", "events").then("ask", infer(["m"])).to("predictions").spec
    >>> [(node.kind, node.title) for node in make_graph(spec, lambda reference: "m@3").nodes]
    [('source', 'events'), ('model', 'm@3'), ('sink', 'predictions'), ('dead_letter', 'predictions.dead')]
    """
    graph = Graph(spec.pipeline)
    source = graph.node("source", spec.source.topic, *_source_lines(spec))
    ends, rejecting = [source.id], [source.id]
    known: dict[str, str] = {}
    for stage in spec.stages:
        if stage.infer is None:
            node = graph.node("stage", stage.id, *_stage_lines(stage))
            entries, leaves, rejects = [node.id], [node.id], node.id
            if isinstance(stage.rules, RulesSpec):
                known |= dict.fromkeys(stage.rules.outputs, node.id)
        else:
            drawn = _InferDrawing(graph, stage.id, stage.infer, resolve, known)
            entries, leaves, rejects = drawn.entries, drawn.leaves, drawn.group
        for end in ends:
            for entry in entries:
                graph.edge(end, entry)
        ends = leaves
        rejecting.append(rejects)
    sink = graph.node("sink", spec.sink.topic, "with flight record" if spec.sink.flight_record else "")
    for end in ends:
        graph.edge(end, sink.id)
    dead = graph.node("dead_letter", spec.sink.dead_letter, "what cannot be processed")
    for rejects in rejecting:
        graph.edge(rejects, dead.id, kind="dead")
    return graph


def _source_lines(spec: PipelineSpec) -> Iterator[str]:
    source = spec.source
    form = source.format
    yield form if isinstance(form, str) else f"f32[{form.f32}] as {form.field}"
    fields = {"key": source.key, "event_id": source.event_id, "event_time": source.event_time}
    yield ", ".join(f"{name} {path}" for name, path in fields.items() if path)
    if source.priority is not None:
        yield f"priority by {source.priority.field or f'header {source.priority.header}'}"


def _stage_lines(stage: StageSpec) -> Iterator[str]:
    step = getattr(stage, stage.kind)
    if isinstance(step, RulesSpec):
        yield from rules_lines(step)
    elif isinstance(step, DeclaredColumns):
        yield f"extract {', '.join(step.columns)}"
    elif isinstance(step, PresentFields):
        yield f"filter: {', '.join(step.present)} present"
    else:
        yield f"{stage.kind} {step if isinstance(step, str) else getattr(step, '__qualname__', repr(step))}"


def rules_lines(rules: RulesSpec) -> Iterator[str]:
    """Yield what a rules stage does, one line for each column, rule and output.

    Examples
    --------
    >>> list(rules_lines(RulesSpec(keep="x > 0", reject={"far": "x > 9"})))
    ['keep x > 0', 'reject far: x > 9']
    """
    yield from (f"{name} = {text}" for name, text in rules.columns.items())
    if rules.keep is not None:
        yield f"keep {rules.keep}"
    yield from (f"reject {name}: {text}" for name, text in rules.reject.items())
    yield from (f"output {name}: {', '.join(fields)}" for name, fields in rules.outputs.items())


def _infer_lines(infer: InferSpec) -> Iterator[str]:
    batch = infer.batch
    limits = [f"at most {batch.most_rows} rows"]
    if batch.target_p99_ms is not None:
        limits.append(f"p99 {batch.target_p99_ms:g} ms")
    elif batch.max_wait_ms:
        limits.append(f"waits {batch.max_wait_ms:g} ms")
    if batch.in_flight > 1:
        limits.append(f"{batch.in_flight} in flight")
    if infer.timeout_ms is not None:
        limits.append(f"timeout {infer.timeout_ms} ms")
    if infer.provider != "cpu":
        limits.append(f"on {infer.provider}")
    yield ", ".join(limits)


class _InferDrawing:
    """The boxes of one stage that infers, and where events come in and go out."""

    def __init__(
        self, graph: Graph, step_id: str, infer: InferSpec, resolve: Callable[[str], str | None], known: dict[str, str]
    ) -> None:
        self._graph, self._infer, self._resolve, self._known = graph, infer, resolve, known
        self.group = f"g{len(graph.groups)}"
        graph.groups.append(Group(self.group, _clean(step_id), tuple(map(_clean, _infer_lines(infer)))))
        cache = infer.cache and graph.node("cache", "cache", f"{infer.cache.ttl_s} s", group=self.group)
        mine = self._boxes()
        known |= mine
        self._arrows(mine)
        inside = [edge for edge in graph.edges if edge.target in mine.values() and edge.source in mine.values()]
        fed, feeding = {edge.target for edge in inside}, {edge.source for edge in inside}
        roots = [box for box in mine.values() if box not in fed]
        self.leaves = [box for box in mine.values() if box not in feeding]
        if cache:
            for root in roots:
                graph.edge(cache.id, root)
        self.entries = [cache.id] if cache else roots

    def _boxes(self) -> dict[str, str]:
        mine = {}
        for model in self._infer.models:
            reference, name = self._version(model.model), model.name
            lines = (name, reference) if model.is_renamed else (reference,)
            node = self._graph.node("model", *lines, group=self.group)
            mine[name] = node.id
        for name, ensemble in self._infer.ensembles.items():
            by = f"by {self._version(ensemble.model)}" if ensemble.model else ""
            mine[name] = self._graph.node("ensemble", name, ensemble_line(ensemble), by, group=self.group).id
        for name, cascade in self._infer.cascades.items():
            mine[name] = self._graph.node("cascade", name, *cascade_lines(cascade), group=self.group).id
        return mine

    def _version(self, reference: str) -> str:
        return self._resolve(reference) or reference

    def _arrows(self, mine: dict[str, str]) -> None:
        for model in self._infer.models:
            self._reads(model, mine[model.name])
        for name, ensemble in self._infer.ensembles.items():
            weights = ensemble.weighted or {}
            for member in filter(mine.__contains__, ensemble.members):
                label = f"{weights[member]:g}" if member in weights else ""
                self._graph.edge(mine[member], mine[name], label, "answer")
        for name, cascade in self._infer.cascades.items():
            steps = [mine[step] for step in cascade.steps if step in mine]
            for before, after in pairwise(steps):
                self._graph.edge(before, after, "unsure", "unsure")
            for step in steps:
                self._graph.edge(step, mine[name], "", "answer")

    def _reads(self, model: ModelSpec, target: str) -> None:
        for name, source in model.inputs.items():
            if answer := find_answer(source, self._known):
                label = answer[1] if answer[1] == name else f"{answer[1]} as {name}"
                self._graph.edge(self._known[answer[0]], target, label, "answer")


def ensemble_line(ensemble: EnsembleSpec) -> str:
    """Return what an ensemble makes of whose answers.

    Examples
    --------
    >>> ensemble_line(EnsembleSpec(mean=["a", "b"]))
    'mean of a, b'
    """
    mode = next(mode for mode in ("mean", "weighted", "vote", "stack") if getattr(ensemble, mode) is not None)
    return f"{'weighted mean' if mode == 'weighted' else mode} of {', '.join(ensemble.members)}"


def cascade_lines(cascade: CascadeSpec) -> tuple[str, str]:
    """Return who answers after whom, and when the next one is asked.

    Examples
    --------
    >>> cascade_lines(CascadeSpec(steps=["a", "b"], unsure="score < 0.9"))
    ('cascade: a → b', 'unsure: score < 0.9')
    """
    return f"cascade: {' → '.join(cascade.steps)}", f"unsure: {cascade.unsure}"
