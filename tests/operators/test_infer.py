from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.onnx_factory import column_sum, mlp, run_plain, write_model

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import ConfigError, InferenceError
from modelstream.models.loading import load_model
from modelstream.operators.batch import Column, EventBatch
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.infer import Infer, NamedModel
from modelstream.operators.operator import run_isolated

X = FieldSpec("x", "float32")


class Scorer:
    """A model written in Python; it remembers what it was called with."""

    def __init__(
        self,
        predict: Callable[[Mapping[str, Column]], dict[str, Column]],
        fields: tuple[FieldSpec, ...] = (X,),
        name: str = "model",
    ) -> None:
        self.name = name
        self.version = "3"
        self.required_fields = fields
        self.sizes: list[int] = []
        self._predict = predict

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        self.sizes.append(n_rows)
        assert all(len(column) == n_rows for column in columns.values())
        return self._predict(columns)


def doubling(name: str = "model") -> Scorer:
    return Scorer(lambda columns: {"value": np.asarray(columns["x"]) * 2}, name=name)


def batch_of(*values: Any) -> EventBatch:
    return EventBatch.of_events([{} if value is None else {"x": value} for value in values])


def value_of(batch: EventBatch, model: str = "model", field: str = "value") -> Any:
    column = batch.outputs[model].fields[field]
    return column if isinstance(column, list) else column.tolist()


def test_fields_come_from_the_events() -> None:
    batch = Infer("score", [doubling()])(batch_of(1, 2.5))
    assert value_of(batch) == [2, 5]
    assert batch.outputs["model"].version == "3"
    assert batch.status is None


def test_columns_of_earlier_stages_come_first() -> None:
    batch = batch_of(1, "not a number")
    batch.columns["x"] = np.array([10.0, 20.0], np.float32)
    assert value_of(Infer("score", [doubling()])(batch)) == [20, 40]
    assert not batch.faults


def test_rejected_rows_do_not_reach_the_model() -> None:
    model = doubling()
    settled = run_isolated(Infer("score", [model]), batch_of(1, None, "a", 1e39, 5))
    assert model.sizes == [2]
    assert value_of(settled.kept) == [2, 10]
    assert settled.rejected is not None
    assert [fault.reason for fault in settled.rejected.faults.values()] == ["missing_field", "wrong_type", "non_finite"]


def test_outputs_of_every_kind_return_to_their_rows() -> None:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        return {"label": [f"label {n:g}" for n in x], "vector": np.column_stack([x, -x]), "score": x}

    batch = Infer("score", [Scorer(predict)])(batch_of(None, 1, None, 2))
    assert value_of(batch, field="label") == ["", "label 1", "", "label 2"]
    assert value_of(batch, field="vector") == [[0, 0], [1, -1], [0, 0], [2, -2]]
    assert value_of(batch.settle().kept, field="score") == [1, 2]


def test_no_model_is_called_for_no_rows() -> None:
    model = doubling()
    settled = run_isolated(Infer("score", [model]), batch_of(None, "a"))
    assert model.sizes == []
    assert len(settled.kept) == 0


@given(st.integers(1, 20), st.integers(1, 25), st.sets(st.integers(0, 19)))
def test_a_large_batch_is_split_and_put_together(n_rows: int, max_size: int, missing: set[int]) -> None:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        text = columns["text"]
        assert isinstance(text, list)
        return {"value": np.asarray(columns["x"]) + 1, "label": [f"<{one}>" for one in text]}

    model = Scorer(predict, (X, FieldSpec("text", "string")))
    events = [{"text": str(i)} | ({} if i in missing else {"x": i}) for i in range(n_rows)]
    settled = run_isolated(Infer("score", [model], max_size), EventBatch.of_events(events))
    kept = [i for i in range(n_rows) if i not in missing]
    assert all(size <= max_size for size in model.sizes)
    assert sum(model.sizes) == len(kept)
    if kept:
        assert value_of(settled.kept) == [i + 1 for i in kept]
        assert value_of(settled.kept, field="label") == [f"<{i}>" for i in kept]


@pytest.mark.parametrize("missing", [False, True])
def test_what_is_not_finite_is_rejected(missing: bool) -> None:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        with np.errstate(divide="ignore"):
            return {"value": 1 / x, "vector": np.column_stack([x, np.where(x == 7, np.nan, x)])}

    settled = run_isolated(Infer("score", [Scorer(predict)]), batch_of(None if missing else 1, 0, 2, 7))
    assert value_of(settled.kept) == ([0.5] if missing else [1, 0.5])
    assert settled.rejected is not None
    details = [(fault.reason, fault.detail) for fault in settled.rejected.faults.values()][-2:]
    assert details == [
        ("non_finite", "model model@3: output 'value' is not finite"),
        ("non_finite", "model model@3: output 'vector' is not finite"),
    ]


def test_what_is_not_finite_may_be_kept_as_null() -> None:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        with np.errstate(divide="ignore"):
            return {"value": 1 / x, "vector": np.column_stack([x, np.where(x == 2, np.nan, x)])}

    settled = run_isolated(Infer("score", [Scorer(predict)], non_finite="null"), batch_of(0, None, 2))
    assert settled.rejected is not None and len(settled.rejected) == 1
    records = [text.partition('"predictions":')[2] for text in PredictionEncoder("p").encode(settled.kept)]
    assert records == [
        '{"model":{"version":"3","value":null,"vector":[0.0,0.0]}}}',
        '{"model":{"version":"3","value":0.5,"vector":[2.0,null]}}}',
    ]


def test_a_model_may_stand_under_another_name() -> None:
    batch = Infer("score", [doubling(), NamedModel(doubling(), "twice", {"x": "y.z"})])(
        EventBatch.of_events([{"x": 1, "y": {"z": 4}}])
    )
    assert (value_of(batch), value_of(batch, "twice")) == ([2], [8])


def test_the_recipe_tells_all_that_answers_come_from() -> None:
    plain = Infer("score", [doubling("a"), doubling("b")])
    assert plain.recipe == "a@3 b@3"
    assert Infer("score", [NamedModel(doubling("a"), "c", {"x": "y"})]).recipe == "c=a@3[('x', 'y')]"


def test_a_row_that_makes_a_model_fail_is_rejected_alone() -> None:
    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        if 13 in np.asarray(columns["x"]):
            raise InferenceError("model", "3", "unlucky")
        return {"value": np.asarray(columns["x"])}

    settled = run_isolated(Infer("score", [doubling("first"), Scorer(predict)]), batch_of(1, 13, 3, None, 5))
    assert value_of(settled.kept) == [1, 3, 5]
    assert value_of(settled.kept, "first") == [2, 6, 10]
    assert settled.rejected is not None
    assert [fault.reason for fault in settled.rejected.faults.values()] == ["model_failed", "missing_field"]


def test_a_model_that_loses_rows_is_an_error() -> None:
    model = Scorer(lambda columns: {"value": np.zeros(1)})
    with pytest.raises(InferenceError, match="output 'value' has 1 rows for 2 events"):
        Infer("score", [model])(batch_of(1, 2))


def test_fields_that_models_share_are_read_once_and_wide_enough() -> None:
    whole = Scorer(lambda columns: {"value": columns["x"]}, (FieldSpec("x", "int64"),), "whole")
    batch = Infer("score", [doubling(), whole])(batch_of(2**40 + 1))
    assert value_of(batch, "whole") == [2**40 + 1]


@pytest.mark.parametrize(
    ("models", "max_size", "problem"),
    [
        ([], None, "distinct"),
        ([doubling("a"), doubling("a")], None, "distinct"),
        ([doubling()], 0, "max_size"),
        ([doubling("a"), Scorer(dict, (FieldSpec("x", "string"),), "b")], None, "field 'x'"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(models: list[Scorer], max_size: int | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Infer("score", models, max_size)


@pytest.mark.parametrize("max_size", [None, 7])
def test_onnx_models_answer_as_onnx_runtime_does(tmp_path: Path, max_size: int | None) -> None:
    write_model(tmp_path, "mlp", mlp((4, 8, 1), tensor="features"))
    write_model(tmp_path, "sum", column_sum({"a": "float32", "n": "int64"}))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 4)).astype(np.float32)
    events: list[dict[str, Any]] = [{"features": row, "a": i / 2, "n": i} for i, row in enumerate(features.tolist())]
    del events[5]["n"], events[11]["features"][2]
    models = [load_model(tmp_path, name) for name in ("mlp", "sum")]
    settled = run_isolated(Infer("score", models, max_size), EventBatch.of_events(events))
    kept = [i for i in range(20) if i not in (5, 11)]
    assert settled.kept.lineage.record_index.tolist() == kept
    reference = run_plain(mlp((4, 8, 1), tensor="features"), {"features": features[kept]})[0][:, 0]
    np.testing.assert_allclose(value_of(settled.kept, "mlp"), reference, rtol=1e-5)
    assert value_of(settled.kept, "sum") == [1.5 * i for i in kept]
