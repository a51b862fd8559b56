"""When fields are read without decoding events: where all that a pipeline reads is known, and is a long vector too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.onnx_factory import affine, mlp, write_model

from modelstream import Pipeline, Source, extract, filter_events, infer, rules
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.late_events import LateEvents

VECTOR = [0.5] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_model(folder / "models", "mlp", mlp(), '[inputs.x]\nfield = "features"\n')
    write_model(folder / "models", "other", mlp(tensor="x"), '[inputs.x]\nfield = "features"\n')
    write_model(folder / "models", "short", affine([1.0, 2.0]), '[inputs.x]\nfields = ["a", "b"]\n')
    (folder / "functions.py").write_text("def nothing(batch):\n    return {}\n")
    return folder


@pytest.fixture
def read_early(folder: Path) -> Callable[..., Any]:
    """Return a function that builds a pipeline of stages and tells whether it reads fields only."""

    def read(*stages: Any, **source: Any) -> bool:
        keys: Source = {"topic": "in", "event_id": "id", **source}  # type: ignore[typeddict-item]
        pipeline = Pipeline("p", keys, folder=folder)
        for i, stage in enumerate(stages):
            pipeline = pipeline.then(f"s{i}", stage)
        built = pipeline.to("out").build()
        return isinstance(built.codec.format, JsonFormat) and built.codec.format.fields is not None

    return read


def test_a_vector_is_read_alone(read_early):
    assert read_early(infer(["mlp"]))
    assert read_early(infer(["mlp", "other", "short"]))
    assert read_early(infer(["mlp"]), infer(["other"]))
    assert read_early(infer(["mlp"]), event_time="at")
    assert read_early(extract(columns={"features": {"dtype": "float32", "width": 20, "from": "v"}}), infer(["mlp"]))
    assert read_early(rules(fields={"n": "int64"}, keep="n > 0"), infer(["mlp"]))
    assert read_early(
        extract(columns={"features": {"dtype": "float32", "width": 20, "separator": ","}}), infer(["mlp"])
    )


def test_whole_events_are_decoded_where_anything_might_be_read(read_early):
    assert not read_early(infer(["short"]))  # no vector: orjson is as fast
    assert not read_early(extract("functions:nothing"), infer(["mlp"]))
    assert not read_early(filter_events(present=["y"]), infer(["mlp"]))
    assert not read_early(rules(fields={"n": {"dtype": "int64", "default": 0}}, keep="n > 0"), infer(["mlp"]))
    assert not read_early(extract(columns={"n": {"dtype": "int64", "from": "a.n"}}), infer(["mlp"]))
    as_text = {"dtype": "float32", "width": 20, "from": "features", "separator": ","}
    assert not read_early(extract(columns={"v": as_text}), infer(["mlp"]))  # one field, read in two ways
    assert not read_early(infer(["mlp"]), priority={"field": "tier"})
    assert not read_early(infer(["mlp"]), max_depth=20)
    assert not read_early(infer(["mlp"]), format="msgpack")


def test_both_ways_give_the_same_predictions_and_dead_letters(folder, monkeypatch):
    pipeline = Pipeline("p", {"topic": "in", "event_id": "id"}, folder=folder).then("score", infer(["mlp"])).to("out")
    events = [{"id": str(i), "features": [i / 7, *VECTOR[1:]]} for i in range(100)]
    odd = [*events, {"id": "short", "features": [1.0]}, {"id": "none"}, {"id": "x", "features": ["1", *VECTOR[1:]]}]
    seen = []
    monkeypatch.setattr(LateEvents, "__init__", _noted(LateEvents.__init__, seen))
    quick = pipeline.simulate(events)
    assert seen
    slow = pipeline.simulate(odd)
    assert slow.predictions[:100] == quick.predictions
    assert len(slow.predictions) == 100
    assert [letter["reason"] for letter in map(_as_dict, slow.dead_letters)] == [
        "wrong_type", "missing_field", "wrong_type",
    ]  # fmt: skip


def _noted(function: Callable[..., None], seen: list[Any]) -> Callable[..., None]:
    def noted(*args: Any) -> None:
        seen.append(args)
        function(*args)

    return noted


def _as_dict(letter: Any) -> dict[str, Any]:
    return letter if isinstance(letter, dict) else orjson.loads(letter)
