"""The pipeline file: what it may say, and one clear message for everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from modelstream.models.errors import ConfigError
from modelstream.operators.fields import MISSING, ColumnSpec
from modelstream.streams.infer_spec import BatchSpec, CacheSpec, CircuitSpec
from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.spec import (
    DeclaredColumn,
    DeclaredColumns,
    InferSpec,
    PipelineSpec,
    PresentFields,
    SinkSpec,
    SourceSpec,
    StageSpec,
    parse_spec,
    validated,
)
from modelstream.streams.yaml_file import parse_yaml

WHOLE = """
pipeline: flights
source: {topic: flights.events, format: json, key: tailnum, event_id: id, event_time: scheduled_departure,
         max_record_bytes: 1000, max_depth: 10}
models_dir: my/models
stages:
  - {id: departed, filter: {present: [dep_delay]}}
  - {id: late, filter: "rules:late"}
  - {id: features, extract: "examples.flights.features:departure"}
  - id: more
    extract:
      columns:
        distance: float32
        carrier: string
        hour: {from: sched.hour, dtype: int32, default: 0}
        x: {dtype: float32, width: 2, default: [0, 0.5]}
  - {id: delay, infer: {models: [arrival_delay, late_arrival@1], batch: {max_size: 64}, cache: {ttl_s: 60}}}
sink: {topic: flights.predictions, dead_letter: flights.dead}
delivery: at_least_once
broker: kafka-1:9092,kafka-2:9092
redis: redis://cache:6379/0
"""


def small(**changes: Any) -> dict[str, Any]:
    """Return the data of the smallest pipeline, with some keys replaced."""
    return {
        "pipeline": "p",
        "source": {"topic": "in"},
        "stages": [{"id": "ask", "infer": {"models": ["m"]}}],
        "sink": {"topic": "out"},
        **changes,
    }


def stage(**keys: Any) -> dict[str, Any]:
    return small(stages=[keys, {"id": "ask", "infer": {"models": ["m"]}}])


def problems(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_spec(raw)
    message = str(caught.value)
    assert message.startswith(caught.value.path)
    return message.splitlines()


def test_reads_every_key(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(WHOLE)
    spec = load_pipeline(tmp_path / "pipeline.yaml").spec
    assert spec.pipeline == "flights"
    assert spec.source == SourceSpec(
        topic="flights.events",
        key="tailnum",
        event_id="id",
        event_time="scheduled_departure",
        max_record_bytes=1000,
        max_depth=10,
    )
    assert spec.models_dir == "my/models"
    assert [(stage.id, stage.kind) for stage in spec.stages] == [
        ("departed", "filter"),
        ("late", "filter"),
        ("features", "extract"),
        ("more", "extract"),
        ("delay", "infer"),
    ]
    columns = spec.stages[3].extract.columns  # type: ignore[union-attr]
    assert [column.as_column(name) for name, column in columns.items()] == [
        ColumnSpec("distance", "float32"),
        ColumnSpec("carrier", "string"),
        ColumnSpec("hour", "int32", path="sched.hour", default=0),
        ColumnSpec("x", "float32", width=2, default=[0, 0.5]),
    ]
    assert columns["distance"].as_column("distance").default is MISSING
    assert spec.stages[4].infer == validated(
        InferSpec,
        {"models": ["arrival_delay", "late_arrival@1"], "batch": {"max_size": 64}, "cache": {"ttl_s": 60}},
    )
    assert (spec.broker, spec.redis) == ("kafka-1:9092,kafka-2:9092", "redis://cache:6379/0")


def test_defaults() -> None:
    spec = parse_spec(small())
    assert (spec.source.format, spec.source.max_record_bytes, spec.source.max_depth) == ("json", 1_048_576, 1024)
    assert (spec.source.key, spec.source.event_id, spec.source.event_time) == (None, None, None)
    assert (spec.models_dir, spec.delivery, spec.broker, spec.redis) == ("models", "at_least_once", None, None)
    assert spec.sink.dead_letter == "out.dead"
    assert spec.stages[0].infer is not None and spec.stages[0].infer.batch.most_rows == 1024
    assert spec.stages[0].infer.cache is None
    with_target = validated(InferSpec, {"models": ["m"], "batch": {"target_p99_ms": 20}})
    assert with_target.batch.most_rows == 4096
    assert validated(InferSpec, {"models": ["m"], "cache": {}}).cache == CacheSpec(ttl_s=300)


def test_exactly_once_has_transactions() -> None:
    assert parse_spec(small(delivery="exactly_once")).transaction_interval_ms is None
    assert parse_spec(small(delivery="exactly_once", transaction_interval_ms=250)).transaction_interval_ms == 250
    [problem] = problems(small(transaction_interval_ms=250))
    assert problem == (
        "transaction_interval_ms: only delivery: exactly_once has transactions; add that, or leave it out"
    )
    for wrong in (5, 60_001, "soon", float("nan"), True):
        assert len(problems(small(delivery="exactly_once", transaction_interval_ms=wrong))) == 1


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_spec(small()).pipeline = "q"  # type: ignore[misc]


STAGE_KEYS = "id, extract, filter, rules, infer"
NAME_RULE = "is no name; use lower-case letters, digits, '.', '_' and '-'"
TOPIC_RULE = "is no Kafka topic name; use at most 249 letters, digits, '.', '_' and '-'"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (small(snik={}), "snik: unknown key; did you mean 'sink'?"),
        (small(colour=1), f"colour: unknown key; known here: {', '.join(PipelineSpec.model_fields)}"),
        (small(**{"a b": 1}), f"['a b']: unknown key; known here: {', '.join(PipelineSpec.model_fields)}"),
        (
            stage(id="f", extract={"columns": {"x": 1}, "~keys": 1}),
            "stages[0].extract.~keys: unknown key; known here: columns\n"
            "stages[0].extract.columns.x: must be a mapping, not 1",
        ),
        (small(pipeline="Flights"), f"pipeline: 'Flights' {NAME_RULE}"),
        (small(pipeline=3), "pipeline: must be text, not 3"),
        (small(source=None), "source: must be a mapping, not nothing"),
        (small(source="in"), "source: must be a mapping, not 'in'"),
        (small(source={}), "source.topic: missing"),
        (small(source={"topic": "a b"}), f"source.topic: 'a b' {TOPIC_RULE}"),
        (small(source={"topic": ".."}), "source.topic: '..' is no Kafka topic name"),
        (small(source={"topic": "in", "event_id": ""}), "source.event_id: must not be empty"),
        (
            small(source={"topic": "in", "format": "xml"}),
            "source.format: must be json, msgpack or {f32: N, field: NAME}, not 'xml'",
        ),
        (small(source={"topic": "in", "evnt_id": "id"}), "source.evnt_id: unknown key; did you mean 'event_id'?"),
        (small(source={"topic": "in", "max_depth": 2000}), "source.max_depth: must be at most 1024, not 2000"),
        (
            small(source={"topic": "in", "max_record_bytes": "1M"}),
            "source.max_record_bytes: must be a whole number, not '1M'",
        ),
        (
            small(sink={"topic": "in"}),
            "sink.topic: 'in' is the source's topic; a pipeline must not read its own predictions",
        ),
        (
            small(sink={"topic": "out", "dead_letter": "out"}),
            "sink.dead_letter: 'out' is the topic of the predictions; dead letters need their own",
        ),
        (
            small(sink={"topic": "out", "dead_letter": "in"}),
            "sink.dead_letter: 'in' is the source's topic; a pipeline must not read its dead letters",
        ),
        (
            small(delivery="exactly_onc"),
            "delivery: must be one of at_least_once, exactly_once, not 'exactly_onc'; did you mean 'exactly_once'?",
        ),
        (small(broker="localhost"), "broker: must be HOST:PORT, or several with commas between, not 'localhost'"),
        (
            small(redis="redis://:secret@cache:6379"),
            "redis: user name and password do not belong in a pipeline file; set MODELSTREAM_REDIS to this URL",
        ),
        (
            small(redis="cache:6379"),
            "redis: must be a URL such as redis://HOST:6379/0 "
            "(also rediss://, unix://, redis+cluster://, redis+sentinel://)",
        ),
        (small(stages=[]), "stages: must not be empty"),
        (small(stages=None), "stages: must be a list, not nothing"),
        (small(stages={"ask": {}}), "stages: must be a list, not a mapping"),
        (small(stages=["ask"]), "stages[0]: must be a mapping, not 'ask'"),
        (
            small(stages=[{"id": "f", "filter": {"present": ["a"]}}]),
            "stages: no stage infers; add one with infer: {models: [NAME]}",
        ),
        (stage(id="f", extrct="m:f"), "stages[0].extrct: unknown key; did you mean 'extract'?"),
        (stage(id="f", windows=1), f"stages[0].windows: unknown key; known here: {STAGE_KEYS}"),
        (stage(id="f"), "stages[0]: needs exactly one of extract, filter, rules, infer"),
        (
            stage(id="f", extract="m:f", filter="m:g"),
            "stages[0]: needs exactly one of extract, filter, rules, infer; has extract and filter",
        ),
        (stage(id="f", extract=None), "stages[0].extract: must not be empty"),
        (stage(extract="m:f"), "stages[0].id: missing"),
        (stage(id="a b", extract="m:f"), f"stages[0].id: 'a b' {NAME_RULE}"),
        (stage(id="ask", extract="m:f"), "stages[1].id: 'ask' is the id of stages[0] already"),
        (
            stage(id="source", extract="m:f"),
            "stages[0].id: 'source' is what dead letters call an end of the pipeline; choose another",
        ),
        (stage(id="f", extract="features"), "stages[0].extract: 'features' is no function; write module:function"),
        (stage(id="f", extract=5), "stages[0].extract: must be module:function or a mapping, not 5"),
        (stage(id="f", extract={"colums": {}}), "stages[0].extract.colums: unknown key; did you mean 'columns'?"),
        (stage(id="f", extract={"columns": {}}), "stages[0].extract.columns: must not be empty"),
        (
            stage(id="f", extract={"columns": {"x": "float23"}}),
            "stages[0].extract.columns.x: must be one of float32, float64, int32, int64, bool, string, not 'float23'"
            "; did you mean 'float32'?",
        ),
        (
            stage(id="f", extract={"columns": {"x": {"dtype": "int32", "form": "y"}}}),
            "stages[0].extract.columns.x.form: unknown key; did you mean 'from'?",
        ),
        (
            stage(id="f", extract={"columns": {"x": {"dtype": "int32", "default": "zero"}}}),
            "stages[0].extract.columns.x: the default 'zero' is not an int32",
        ),
        (
            stage(id="f", extract={"columns": {"x": {"dtype": "int32", "width": 0}}}),
            "stages[0].extract.columns.x.width: must be at least 1, not 0",
        ),
        (stage(id="f", filter={"present": []}), "stages[0].filter.present: must not be empty"),
        (stage(id="f", filter={"present": "a"}), "stages[0].filter.present: must be a list, not 'a'"),
        (stage(id="f", infer="m"), "stages[0].infer: must be a mapping, not 'm'"),
        (stage(id="f", infer={"models": "m"}), "stages[0].infer.models: must be a list, not 'm'"),
        (stage(id="f", infer={"models": []}), "stages[0].infer.models: must not be empty"),
        (
            stage(id="f", infer={"models": ["../m"]}),
            "stages[0].infer.models[0]: '../m' is no model; write NAME or NAME@VERSION",
        ),
        (stage(id="f", infer={"models": ["a", 1.5]}), "stages[0].infer.models[1]: must be a mapping, not 1.5"),
        (
            stage(id="f", infer={"models": ["a"], "batch": {"max_size": 0}}),
            "stages[0].infer.batch.max_size: must be at least 1, not 0",
        ),
        (
            stage(id="f", infer={"models": ["a"], "batch": {"max_size": 100_000}}),
            "stages[0].infer.batch.max_size: must be at most 65536, not 100000",
        ),
        (
            stage(id="f", infer={"models": ["a"], "batch": {"max_size": True}}),
            "stages[0].infer.batch.max_size: must be a whole number, not true",
        ),
        (
            stage(id="f", infer={"models": ["a"], "cache": 300}),
            "stages[0].infer.cache: must be a mapping, not 300",
        ),
        (
            stage(id="f", infer={"models": ["a"], "cache": {"ttl_s": 0}}),
            "stages[0].infer.cache.ttl_s: must be at least 1, not 0",
        ),
        (
            stage(id="f", infer={"models": ["a"], "cache": {"ttl": 5}}),
            "stages[0].infer.cache.ttl: unknown key; did you mean 'ttl_s'?",
        ),
        (
            stage(id="f", infer={"models": ["a", "m@2"]}),
            "stages[1].infer.models[0]: model 'm' stands at stages[0].infer.models[1] already",
        ),
    ],
)
def test_wrong_values_are_told_with_their_path(raw: dict[str, Any], message: str) -> None:
    assert problems(raw) == message.splitlines()


def test_every_problem_is_listed_the_unknown_keys_first() -> None:
    raw = small(pipeline="P", sink={"topc": "out"}, delivery="never")
    raw["stages"].append({"id": "more", "infer": {"models": ["@"]}})
    assert problems(raw) == [
        "sink.topc: unknown key; did you mean 'topic'?",
        f"pipeline: 'P' {NAME_RULE}",
        "stages[1].infer.models[0]: '@' is no model; write NAME or NAME@VERSION",
        "delivery: must be one of at_least_once, exactly_once, not 'never'",
    ]


def test_a_typo_is_told_once_not_as_missing_too() -> None:
    raw = small()
    raw["sinkk"] = raw.pop("sink")
    assert problems(raw) == ["sinkk: unknown key; did you mean 'sink'?"]


def test_the_default_dead_letter_topic_must_be_legal_too() -> None:
    assert problems(small(sink={"topic": "x" * 249}))[0].startswith("sink.dead_letter: 'xxx")


def test_a_column_may_be_called_like_a_key() -> None:
    spec = parse_spec(stage(id="f", extract={"columns": {"from": "int32", "columns": {"dtype": "bool"}}}))
    assert spec.stages[0].extract.columns == {  # type: ignore[union-attr]
        "from": DeclaredColumn(dtype="int32"),
        "columns": DeclaredColumn(dtype="bool"),
    }


GOOD = b"pipeline: p\nsource: {topic: in}\nstages: [{id: ask, infer: {models: [m]}}]\nsink: {topic: out}\n"

#: Twenty files that are wrong as files, or in one place, with the whole of what the user reads.
BROKEN_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "FILE: is empty"),
    "comments only": (b"# nothing yet\n", "FILE: is empty"),
    "a list": (b"- pipeline: p\n", "FILE: must be a mapping of keys, not a list"),
    "text": (b"pipeline\n", "FILE: must be a mapping of keys, not 'pipeline'"),
    "latin-1": (b"pipeline: p\xe9\n", "FILE: is not UTF-8 text (byte 11)"),
    "utf-16": (GOOD.decode().encode("utf-16"), "FILE: is not UTF-8 text (byte 0)"),
    "control character": (b"pipeline: p\nsource: \x00\n", "FILE:2:9: character #x0000 is not allowed in YAML"),
    "two colons": (b"pipeline: p\nsource: topic: in\n", "FILE:2:14: mapping values are not allowed here"),
    "tab": (b"source:\n\ttopic: in\n", r"FILE:2:1: found character '\t' that cannot start any token"),
    "unclosed": (b"source: {topic: in\n", "FILE:2:1: expected ',' or '}', but got '<stream end>'"),
    "two documents": (GOOD + b"---\n" + GOOD, "FILE:5:1: but found another document"),
    "key twice": (GOOD + b"sink: {topic: other}\n", "FILE:5:1: key 'sink' stands here twice"),
    "nested key twice": (b"source: {topic: a, topic: b}\n", "FILE:1:20: key 'topic' stands here twice"),
    "key of YAML 1.1": (b"source: {no: a}\n", "FILE:1:10: key 'no' is not text; quote it"),
    "python object": (
        b"source: !!python/object:os.system {}\n",
        "FILE:1:9: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
    ),
    "bad tag": (b"source: !!int x\n", "FILE:1:9: invalid literal for int() with base 10: 'x'"),
    "unknown alias": (b"source: *other\n", "FILE:1:9: found undefined alias 'other'"),
    "too deep": (b"source: " + b"[" * 5000, "FILE: is nested too deeply"),
    "typo": (GOOD.replace(b"models", b"model"), "stages[0].infer.model: unknown key; did you mean 'models'?"),
    "missing": (b"pipeline: p\n", "source: missing\nstages: missing\nsink: missing"),
    "date as topic": (
        GOOD.replace(b"topic: in", b"topic: 2013-01-01T00:00"),
        f"source.topic: '2013-01-01T00:00' {TOPIC_RULE}",
    ),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files_give_one_clear_message(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_FILES[case]
    file = tmp_path / "pipeline.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file)
    assert str(caught.value) == message.replace("FILE", str(file))


def test_a_missing_file_hints_at_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_bytes(GOOD)
    with pytest.raises(ConfigError, match=r"pipelin\.yaml: no such file; did you mean 'pipeline\.yaml'\?$"):
        load_pipeline(tmp_path / "pipelin.yaml")


def test_no_folder_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file$"):
        load_pipeline(tmp_path / "nowhere" / "pipeline.yaml")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory; name the pipeline file in it"):
        load_pipeline(tmp_path)


def test_a_nul_is_no_name() -> None:
    with pytest.raises(ConfigError, match="is no file name"):
        load_pipeline("a\0b")


def test_byte_order_mark_merge_keys_and_json_are_welcome(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD)
    plain = load_pipeline(file)
    file.write_text('{"pipeline": "p", "source": {"topic": "in"}, "sink": {"topic": "out"},'
                    ' "stages": [{"id": "ask", "infer": {"models": ["m"]}}]}')  # fmt: skip
    assert load_pipeline(file) == plain
    file.write_bytes(GOOD.replace(b"source: {", b"source: {<<: {max_depth: 5}, max_depth: 6, "))
    assert load_pipeline(file).spec.source.max_depth == 6


REFERENCE = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text("utf-8")


def test_the_reference_has_every_key() -> None:
    def keys(model: type[BaseModel]) -> Iterator[str]:
        yield from (field.alias or name for name, field in model.model_fields.items())

    parts = (PipelineSpec, SourceSpec, StageSpec, DeclaredColumns, DeclaredColumn, PresentFields, InferSpec, BatchSpec)
    missing = {key for part in (*parts, CacheSpec, SinkSpec) for key in keys(part)} - set(
        re.findall(r"`(\w+)`", REFERENCE)
    )
    assert not missing


def test_the_reference_tells_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", REFERENCE, re.MULTILINE))
    spec = parse_spec(small())
    told = {**spec.model_dump(), **spec.source.model_dump(), **BatchSpec().model_dump(), **CacheSpec().model_dump()}
    told |= {**CircuitSpec().model_dump(), "non_finite": "reject", "provider": "cpu", **spec.sink.model_dump()}
    told = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in told.items()}
    derived = {
        "event_id": "TOPIC/PARTITION/OFFSET",
        "dead_letter": "TOPIC.dead",
        "max_size": str(BatchSpec().most_rows),
    }
    assert rows == {key: derived.get(key, told.get(key)) for key in rows}
    assert {"models_dir", "delivery", "max_record_bytes", "max_depth", "max_size", "ttl_s", "dead_letter"} <= set(rows)


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL))
def test_examples_of_the_reference(example: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(example, "utf-8")
    assert load_pipeline(tmp_path / "pipeline.yaml").spec


def test_the_example_in_python_equals_the_one_in_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.yaml").write_text(re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)[0], "utf-8")
    monkeypatch.chdir(tmp_path)
    code = next(code for code in re.findall(r"```python\n(.*?)```", REFERENCE, re.DOTALL) if "load_pipeline" in code)
    *built, comparison = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(built), names)  # our own documentation
    assert eval(comparison, names) is True


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["m:f", "float32"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(raw: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key of it, all the way down."""
    for key in list(raw) if isinstance(raw, dict) else range(len(raw)) if isinstance(raw, list) else ():
        yield raw, key
        yield from places(raw[key])


@settings(deadline=None)
@given(st.data(), VALUES)
def test_any_value_anywhere_is_read_or_told_with_its_path(data: st.DataObject, value: Any) -> None:
    raw = parse_yaml(WHOLE, "pipeline.yaml")
    container, key = data.draw(st.sampled_from(list(places(raw))))
    if isinstance(container, dict) and data.draw(st.booleans()):
        key = data.draw(st.text(max_size=5))  # a key that nobody knows
    container[key] = value
    try:
        assert parse_spec(raw).pipeline
    except ConfigError as error:
        assert str(error).startswith(f"{error.path}: ")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")) | st.text("a: -[]{}\n\t#&*!|>'\",?", max_size=30))
def test_any_text_is_read_or_told(text: str) -> None:
    try:
        parse_yaml(text, "pipeline.yaml")
    except ConfigError as error:
        assert str(error).startswith("pipeline.yaml")
