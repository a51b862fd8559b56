"""Pipelines drawn: as text, as Mermaid, as SVG."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.graph import Graph, make_graph
from modelstream.streams.graph_layout import lay_out
from modelstream.streams.graph_mermaid import to_mermaid
from modelstream.streams.graph_svg import to_svg
from modelstream.streams.graph_text import to_text
from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.spec import parse_spec
from modelstream.streams.yaml_file import parse_yaml

EXAMPLES = Path(__file__).parents[2] / "examples" / "flights"

EVERYTHING = r"""
pipeline: everything
source:
  {topic: flights.events, format: msgpack, key: tailnum, event_id: id, event_time: at, priority: {field: tier}}
stages:
  - {id: departed, filter: {present: [dep_delay, "schedule.hour"]}}
  - {id: daytime, filter: "features:daytime"}
  - id: plausible
    rules:
      fields: {distance: float64, carrier: string}
      columns: {km: "distance * 1.609344"}
      keep: "carrier in ['AA', \"UA\"] and distance < 5000 and distance > 5 and km > 8"
      reject: {"too <far> & `away`": "distance > 9000"}
  - {id: columns, extract: {columns: {hour: int32, "l\u00e4nge": float32}}}
  - {id: features, extract: "features:departure"}
  - {id: function, rules: "features:rules"}
  - id: delay
    infer:
      models:
        - arrival_delay
        - {model: late_arrival@1, as: late, inputs: {delay: arrival_delay.value, hour: hour}}
        - {model: late_arrival@7, as: quick}
        - {model: missing, as: thorough}
      ensembles:
        blend: {weighted: {late: 2, quick: 1.5}}
        top: {stack: [late, quick], model: stacker}
      cascades:
        verdict: {steps: [quick, thorough], unsure: "score > 0.2 and score < 0.8"}
      batch: {max_size: 512, target_p99_ms: 20, in_flight: 2}
      cache: {ttl_s: 60}
      timeout_ms: 500
  - {id: more, infer: {models: [{model: air_time, inputs: {score: verdict.score}}], provider: cuda}}
  - id: alert
    rules:
      outputs: {alert: {level: "where(late.score > 0.8, 'high', 'low')", sure: "late.score > 0.9"}}
sink: {topic: flights.predictions, dead_letter: flights.dead, flight_record: true}
"""

TEXT = r"""
everything
├─ source     flights.events · msgpack · key tailnum, event_id id, event_time at · priority by tier
├─ departed   filter: dep_delay, schedule.hour present
├─ daytime    filter features:daytime
├─ plausible  km = distance * 1.609344 · keep carrier in ['AA', "UA"] and distance < 5000 and distan… · reject too <far> & `away`: distance > 9000
├─ columns    extract hour, länge
├─ features   extract features:departure
├─ function   rules features:rules
├─ delay      infer, at most 512 rows, p99 20 ms, 2 in flight, timeout 500 ms
│  ├─ cache            60 s
│  ├─ arrival_delay@3
│  ├─ late             late_arrival@1 · reads arrival_delay.value as delay
│  ├─ quick            late_arrival@7
│  ├─ thorough         missing · where quick is unsure
│  ├─ blend            weighted mean of late, quick
│  ├─ top              stack of late, quick · by stacker@1
│  └─ verdict          cascade: quick → thorough · unsure: score > 0.2 and score < 0.8
├─ more       infer, at most 1024 rows, on cuda
│  └─ air_time  reads verdict.score
├─ alert      output alert: level, sure
├─ sink       flights.predictions · with flight record
└─ dead       flights.dead · what cannot be processed
"""  # noqa: E501

VERSIONS = {"arrival_delay": "arrival_delay@3", "late_arrival@1": "late_arrival@1", "stacker": "stacker@1"}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return make_graph(parse_spec(parse_yaml(EVERYTHING, "everything.yaml")), VERSIONS.get)


def titles(graph: Graph) -> dict[str, str]:
    return {node.id: node.title.partition("@")[0] for node in graph.nodes} | {one.id: one.title for one in graph.groups}


def arrows(graph: Graph, *kinds: str) -> set[tuple[str, str, str]]:
    name = titles(graph)
    return {(name[edge.source], name[edge.target], edge.label) for edge in graph.edges if edge.kind in kinds}


def test_text(graph: Graph) -> None:
    assert to_text(graph) == TEXT.lstrip()


def test_answers_go_from_model_to_model(graph: Graph) -> None:
    assert arrows(graph, "answer", "unsure") == {
        ("arrival_delay", "late", "value as delay"),
        ("late", "blend", "2"),
        ("quick", "blend", "1.5"),
        ("late", "top", ""),
        ("quick", "top", ""),
        ("quick", "thorough", "unsure"),
        ("quick", "verdict", ""),
        ("thorough", "verdict", ""),
        ("verdict", "air_time", "score"),
    }


def test_events_flow_from_the_source_to_the_sink(graph: Graph) -> None:
    flow = arrows(graph, "flow")
    trunk = ["flights.events", "departed", "daytime", "plausible", "columns", "features", "function", "cache"]
    assert {(a, b, "") for a, b in itertools.pairwise(trunk)} <= flow
    assert {target for source, target, _ in flow if source == "cache"} == {"arrival_delay", "quick"}
    assert {source for source, target, _ in flow if target == "air_time"} == {"blend", "top", "verdict"}
    assert ("air_time", "alert", "") in flow and ("alert", "flights.predictions", "") in flow


def test_every_stage_may_reject(graph: Graph) -> None:
    stages = [*("departed", "daytime", "plausible", "columns", "features", "function"), "delay", "more", "alert"]
    assert arrows(graph, "dead") == {(stage, "flights.dead", "") for stage in ["flights.events", *stages]}


_LABEL = r'"[^"`<>&*\\]*(?:<br/>[^"`<>&*\\]*)*"'
_STATEMENT = re.compile(
    rf"flowchart TB|  subgraph g\d+ \[{_LABEL}\]|  end"
    rf"| +n\d+(?:\[{_LABEL}\]|\(\[{_LABEL}\]\)|\[\({_LABEL}\)\]|\{{\{{{_LABEL}\}}\}})"
    rf"|  [gn]\d+ (?:-->|-\.->)(?:\|{_LABEL}\|)? n\d+"
)


def assert_is_mermaid(graph: Graph, text: str) -> None:
    lines = text.splitlines()
    assert [line for line in lines if not _STATEMENT.fullmatch(line)] == []
    boxes = [line.split("[")[0].split("(")[0].split("{")[0].strip() for line in lines if line.strip().startswith("n")]
    assert [box for box in boxes if " " not in box] == [node.id for node in sorted(graph.nodes, key=_number)]
    assert sum("--> " in line or "-->|" in line or "-.->" in line for line in lines) == len(graph.edges)
    assert lines.count("  end") == len(graph.groups)


def _number(node: Any) -> int:
    return int(node.id[1:])


def test_mermaid(graph: Graph) -> None:
    text = to_mermaid(graph)
    assert_is_mermaid(graph, text)
    assert "keep carrier in ['AA', #quot;UA#quot;] and distance #lt; 5000" in text
    assert "reject too #lt;far#gt; #amp; #96;away#96;: distance #gt; 9000" in text
    assert "km = distance #42; 1.609344" in text


SVG = "{http://www.w3.org/2000/svg}"


def rectangles(svg: ET.Element, css: str) -> dict[str, tuple[float, float, float, float]]:
    """Return left, top, right and bottom of boxes by id."""
    found = {}
    for rect in svg.iter(f"{SVG}rect"):
        if css in rect.attrib["class"].split():
            x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            found[rect.attrib["id"]] = (x, y, x + width, y + height)
    return found


def assert_is_svg(graph: Graph, text: str) -> None:
    svg = ET.fromstring(text)
    boxes, frames = rectangles(svg, "node"), rectangles(svg, "group")
    assert set(boxes) == {node.id for node in graph.nodes}
    assert set(frames) == {group.id for group in graph.groups}
    said = ["".join(element.itertext()) for element in svg.iter(f"{SVG}text")]
    assert {line for node in graph.nodes for line in (node.title, *node.lines)} <= set(said)
    assert {edge.label for edge in graph.edges if edge.label} <= set(said)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    inside = {node.id: node.group for node in graph.nodes}
    for one, (left, top, right, bottom) in (boxes | frames).items():
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
        for other, (x, y, end, low) in (boxes | frames).items():
            if one < other and inside.get(one) != other and inside.get(other) != one:
                assert right <= x or end <= left or bottom <= y or low <= top, (one, other)
    for node in graph.nodes:
        if node.group:
            left, top, right, bottom = frames[node.group]
            x, y, end, low = boxes[node.id]
            assert left <= x and top <= y and end <= right and low <= bottom


def test_svg(graph: Graph) -> None:
    text = to_svg(graph)
    assert_is_svg(graph, text)
    assert len(re.findall("<path class", text)) == len({(edge.source, edge.target) for edge in graph.edges}) + 1


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples(file: Path) -> None:
    graph = make_graph(load_pipeline(file).spec, lambda reference: None)
    assert to_text(graph).startswith(f"{graph.name}\n├─ source ")
    assert_is_mermaid(graph, to_mermaid(graph))
    assert_is_svg(graph, to_svg(graph))


def test_the_names_of_others_do_no_harm() -> None:
    nasty = ']]></svg>\x1b[31m"];end\n%%{init}\x00\u202e`<b>'
    stages = [
        {"id": "r", "rules": {"columns": {nasty: "1"}, "reject": {nasty: "false"}}},
        {"id": "m", "infer": {"models": [{"model": "m", "inputs": {nasty: "n.x"}}, "n"]}},
    ]
    raw = {"pipeline": "p", "source": {"topic": "in", "key": "x"}, "stages": stages, "sink": {"topic": "out"}}
    graph = make_graph(parse_spec(raw), lambda reference: None)
    assert_is_mermaid(graph, to_mermaid(graph))
    assert_is_svg(graph, to_svg(graph))
    for text in (to_text(graph), to_mermaid(graph), to_svg(graph)):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


SIZES = st.dictionaries(
    st.sampled_from("abcdefghij"), st.tuples(st.integers(1, 300), st.integers(1, 100)), min_size=1, max_size=10
)


@given(st.data(), SIZES)
def test_boxes_never_overlap_and_arrows_point_down(data: st.DataObject, sizes: dict[str, tuple[int, int]]) -> None:
    name = st.sampled_from(sorted(sizes))
    edges = data.draw(st.lists(st.tuples(name, name), max_size=20))
    layout = lay_out(sizes, edges)
    assert set(layout.boxes) == set(sizes)
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert beside or one.y + one.height <= other.y or other.y + other.height <= one.y
    for box in layout.boxes.values():
        assert 0 <= box.x <= box.x + box.width <= layout.width + 1e-6
        assert 0 <= box.y <= box.y + box.height <= layout.height + 1e-6
    for points in layout.routes.values():
        assert all(above[1] < below[1] for above, below in itertools.pairwise(points))
    downwards = [(a, b) for a, b in edges if a < b]  # without circles
    assert set(lay_out(sizes, downwards).routes) == set(downwards)
