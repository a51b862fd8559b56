"""``source``, and paths wherever they stand: formats, priorities, and what a format has no room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelstream.models.contract import ANY_WIDTH
from modelstream.models.errors import ConfigError
from modelstream.operators.fields import ColumnSpec
from modelstream.streams.pipeline import Pipeline, extract, infer, load_pipeline
from modelstream.streams.spec import DeclaredColumns, PipelineSpec, parse_spec

INFER = {"id": "ask", "infer": {"models": ["m"]}}
NO_PATH = "write a.b[0].c, and ['a.b'] for a name with dots or brackets"


def spec(source: dict[str, Any] | None = None, *stages: dict[str, Any]) -> PipelineSpec:
    return parse_spec(
        {
            "pipeline": "p",
            "source": {"topic": "in", **(source or {})},
            "stages": [*stages, INFER],
            "sink": {"topic": "out"},
        }
    )


def problems(source: dict[str, Any] | None = None, *stages: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        spec(source, *stages)
    return str(caught.value).splitlines()


def test_formats() -> None:
    assert spec().source.format == "json"
    assert spec({"format": "msgpack"}).source.format == "msgpack"
    vectors = spec({"format": {"f32": 784}}).source.format
    assert not isinstance(vectors, str)
    assert (vectors.f32, vectors.field) == (784, "features")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("xml", "source.format: must be json, msgpack or {f32: N, field: NAME}, not 'xml'"),
        ("f32", "source.format: must be json, msgpack or {f32: N, field: NAME}, not 'f32'"),
        ({"f32": 0}, "source.format.f32: must be at least 1, not 0"),
        ({"f32": "784"}, "source.format.f32: must be a whole number, not '784'"),
        ({"f32": 4, "feild": "x"}, "source.format.feild: unknown key; did you mean 'field'?"),
        ({"field": "x"}, "source.format.f32: missing"),
    ],
)
def test_wrong_formats(form: Any, message: str) -> None:
    assert problems({"format": form}) == [message]


def test_a_vector_has_no_fields() -> None:
    source = {
        "format": {"f32": 300_000, "field": "x"},
        "key": "k",
        "event_id": "id",
        "event_time": "at",
        "priority": {"field": "tier"},
    }
    no_fields = "a record of format f32 has no fields;"
    assert problems(source) == [
        f"source.key: {no_fields} records keep the keys that they are produced with; leave it out",
        f"source.event_id: {no_fields} leave it out: TOPIC/PARTITION/OFFSET is the id",
        f"source.event_time: {no_fields} leave it out: the record's timestamp is the time",
        f"source.priority.field: {no_fields} use priority: {{header: NAME}}",
        "source.max_record_bytes: must be at least 1200000, which 300000 numbers take",
    ]
    stages = [
        {"id": "a", "extract": {"columns": {"y": "float32"}}},
        {"id": "b", "filter": {"present": ["y"]}},
        {"id": "c", "rules": {"fields": {"y": "float32"}, "keep": "y > 0"}},
        {"id": "d", "rules": {"keep": "y > 0"}},
        {"id": "e", "extract": "m:f"},
    ]
    assert problems({"format": {"f32": 4}}, *stages) == [
        f"stages[{i}].{key}: {no_fields} its column is 'features'"
        for i, key in enumerate(["extract.columns", "filter.present", "rules.fields"])
    ]
    assert spec({"format": {"f32": 4}, "priority": {"header": "tier"}})


@pytest.mark.parametrize("path", ["a", "a.b[0].c", "readings[2]", "['a.b']", "a b"])
def test_paths(path: str) -> None:
    source = {"key": path, "event_id": path, "event_time": path, "priority": {"field": path}}
    columns = {"x": {"dtype": "float32", "from": path}}
    whole = spec(source, {"id": "f", "extract": {"columns": columns}}, {"id": "p", "filter": {"present": [path]}})
    assert whole.source.key == path


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a..b", "a name is missing at character 2"),
        ("a[-1]", "after '[' at character 2 must come an index from 0 or a name in quotes, and ']'"),
        ("[0]", "an event is an object, so it begins with a name"),
    ],
)
def test_wrong_paths_are_told_wherever_they_stand(path: str, problem: str) -> None:
    source = {"key": path, "event_id": path, "event_time": path, "priority": {"field": path}}
    column = {"x": {"dtype": "float32", "from": path}}
    found = problems(
        source,
        {"id": "f", "extract": {"columns": column}},
        {"id": "p", "filter": {"present": ["ok", path]}},
        {"id": "r", "rules": {"fields": column, "keep": "x > 0"}},
    )
    places = [
        *(f"source.{key}" for key in ("key", "event_id", "event_time", "priority.field")),
        "stages[0].extract.columns.x.from",
        "stages[1].filter.present[1]",
        "stages[2].rules.fields.x.from",
    ]
    assert found == [f"{place}: {path!r} is no path: {problem}; {NO_PATH}" for place in places]


def test_a_priority_has_one_place() -> None:
    assert problems({"priority": {}}) == ["source.priority: needs exactly one of field, header"]
    assert problems({"priority": {"field": "a", "header": "b"}}) == [
        "source.priority: needs exactly one of field, header"
    ]


def test_a_column_may_be_as_wide_as_each_event_says(tmp_path: Path) -> None:
    columns = {"x": {"dtype": "float32", "width": "any"}}
    pipeline = Pipeline("p", "in").then("f", extract(columns=columns)).then("ask", infer(["m"])).to("out")
    declared = pipeline.spec.stages[0].extract
    assert isinstance(declared, DeclaredColumns)
    assert declared.columns["x"].as_column("x") == ColumnSpec("x", "float32", ANY_WIDTH)
    (tmp_path / "p.yaml").write_text(pipeline.to_yaml())
    assert load_pipeline(tmp_path / "p.yaml").spec == pipeline.spec


def test_a_format_comes_through_the_file(tmp_path: Path) -> None:
    source = {"topic": "in", "format": {"f32": 4, "field": "x"}, "priority": {"header": "tier"}}
    pipeline = Pipeline("p", source).then("ask", infer(["m"])).to("out")
    (tmp_path / "p.yaml").write_text(pipeline.to_yaml())
    assert load_pipeline(tmp_path / "p.yaml").spec == pipeline.spec


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ("some", "must be a whole number or any, not 'some'"),
        (-1, "must be at least 1, not -1"),
        (True, "must be a whole number or any, not true"),
        (1.5, "must be a whole number or any, not 1.5"),
    ],
)
def test_wrong_widths(width: Any, message: str) -> None:
    stage = {"id": "f", "extract": {"columns": {"x": {"dtype": "float32", "width": width}}}}
    assert problems(None, stage) == [f"stages[0].extract.columns.x.width: {message}"]
