"""`simulate` on every format: events written in it, bytes as they are, keys and dead letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import ormsgpack
import pytest
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError
from modelstream.streams.pipeline import Pipeline, infer

WEIGHTS = [1.0, 2.0, 4.0]
TOML = '[inputs.x]\nfield = "x"\n'


@pytest.fixture
def make_pipeline(tmp_path: Path) -> Any:
    write_model(tmp_path / "models", "weigh", affine(WEIGHTS), TOML)

    def make(**source: Any) -> Pipeline:
        return Pipeline("p", {"topic": "in", **source}, folder=tmp_path).then("weigh", infer(["weigh"])).to("out")

    return make


def values(simulation: Any) -> list[float]:
    return [record["predictions"]["weigh"]["value"] for record in simulation.predictions]


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_events_are_written_in_the_format(make_pipeline: Any, form: str) -> None:
    write = orjson.dumps if form == "json" else ormsgpack.packb
    pipeline = make_pipeline(format=form, event_id="meta.ids[0]", key="meta.key", event_time="at")
    events = [
        {"meta": {"ids": ["a"], "key": "k"}, "at": "2013-01-01T10:15:00", "x": [1, 1, 1]},
        {"meta": {"ids": [7], "key": 1.5}, "at": 0, "x": np.array([1, 0, 2], np.float32)},
    ]
    simulation = pipeline.simulate([*events, write({"meta": {"ids": ["c"]}, "at": 0, "x": [0, 0, 1]}), b"\xff", None])
    assert values(simulation) == [7, 9, 4]
    assert [record["event_id"] for record in simulation.predictions] == ["a", "7", "c"]
    assert [record["key"] for record in simulation.predictions] == ["k", "1.5", None]
    assert simulation.predictions[0]["event_time"] == "2013-01-01T10:15:00Z"
    assert [(letter["offset"], letter["reason"], letter["value"]) for letter in simulation.dead_letters] == [
        (3, "undecodable", b"\xff"),
        (4, "undecodable", None),
    ]


def test_a_vector_may_come_as_bytes_in_msgpack(make_pipeline: Any) -> None:
    simulation = make_pipeline(format="msgpack").simulate([{"x": vector(1, 2, 3)}, {"x": [1, 2, 3]}, {"x": vector(1)}])
    assert values(simulation) == [17, 17]
    [letter] = simulation.dead_letters
    assert (letter["offset"], letter["stage"], letter["reason"]) == (2, "weigh", "wrong_type")


def test_raw_vectors(make_pipeline: Any) -> None:
    pipeline = make_pipeline(format={"f32": 3, "field": "x"})
    bad = [vector(1, 2), vector(1, np.nan, 3)]
    simulation = pipeline.simulate([{"x": [1, 2, 3]}, vector(1, 0, 0), bad[0], {"a": 1, "b": 1, "c": 1}, bad[1]])
    assert values(simulation) == [17, 1, 7]
    assert [record["event_id"] for record in simulation.predictions] == ["in/0/0", "in/0/1", "in/0/3"]
    assert {record["key"] for record in simulation.predictions} == {None}
    assert [(letter["offset"], letter["reason"], letter["value"]) for letter in simulation.dead_letters] == [
        (2, "undecodable", bad[0]),
        (4, "non_finite", bad[1]),
    ]


@pytest.mark.parametrize(
    ("form", "event", "problem"),
    [
        ("json", {"x": {1, 2}}, "events[1]: cannot be written as JSON: "),
        ("msgpack", {"x": {1, 2}}, "events[1]: cannot be written as MessagePack: "),
        (
            {"f32": 3, "field": "x"},
            {"x": [1]},
            "events[1]: cannot be written as a vector of 3 float32: field 'x' has 1",
        ),
        ("json", 5, "events[1]: must be a mapping or bytes, not int"),
    ],
)
def test_what_the_format_cannot_say_is_told(make_pipeline: Any, form: Any, event: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_pipeline(format=form).simulate([{"x": [1, 2, 3]}, event])
    assert str(caught.value).startswith(problem)


def test_a_model_that_reads_something_else_than_the_vector_is_told_at_the_start(make_pipeline: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make_pipeline(format={"f32": 3}).build()
    assert str(caught.value) == (
        "stages[0].infer.models[0]: model weigh@1 reads field 'x'; a record of format f32 has no fields, only the "
        "column 'features': write source.format.field: x, or inputs: {x: features}"
    )
    with pytest.raises(ConfigError) as caught:
        make_pipeline(format={"f32": 4, "field": "x"}).build()
    assert str(caught.value) == (
        "stages[0].infer.models[0]: model weigh@1 reads field 'x' as float32[3], but source.format is float32[4]"
    )


def test_a_vector_may_have_another_name_than_the_model_s_input(tmp_path: Path, make_pipeline: Any) -> None:
    source = {"topic": "in", "format": {"f32": 3}}
    pipeline = (
        Pipeline("p", source, folder=tmp_path)
        .then("weigh", infer([{"model": "weigh", "inputs": {"x": "features"}}]))
        .to("out")
    )
    assert values(pipeline.simulate([vector(1, 2, 3)])) == [17]
