from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from support.onnx_factory import build, run_plain, write_model

from modelstream.models.contract import ANY_WIDTH, Column, FieldSpec
from modelstream.models.errors import ConfigError
from modelstream.models.loading import load_model
from modelstream.operators.batch import EventBatch
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.infer import Infer, NamedModel
from modelstream.operators.operator import run_isolated


class Summing:
    """A model of rows of any length; it notes the shapes that it gets."""

    name, version = "sum", "1"
    required_fields: tuple[FieldSpec, ...] = (FieldSpec("x", "float64", ANY_WIDTH),)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        if n_rows:
            self.shapes.append(x.shape)
        return {"value": x.sum(axis=1), "longest": np.full(n_rows, x.shape[1])}


def run(rows: list[Any], max_size: int | None = None, **options: Any) -> tuple[Summing, Infer, EventBatch]:
    model = Summing()
    infer = Infer("s", [model], max_size, **options)
    batch = EventBatch.of_events(row if isinstance(row, dict) else {"x": row} for row in rows)
    return model, infer, run_isolated(infer, batch).kept


def value(batch: EventBatch, field: str = "value") -> list[Any]:
    values: list[Any] = np.asarray(batch.outputs["sum"].fields[field]).tolist()
    return values


rows_of_any_length = st.lists(st.lists(st.integers(-5, 5), min_size=1, max_size=9), min_size=1, max_size=20)


@given(rows_of_any_length, st.lists(st.integers(1, 8), max_size=3), st.none() | st.integers(1, 5))
def test_every_row_gets_its_own_answer(rows: list[list[int]], pad_to: list[int], max_size: int | None) -> None:
    model, infer, batch = run(rows, max_size, pad_to=pad_to)
    assert value(batch) == [sum(row) for row in rows]
    padded = [min((n for n in pad_to if n >= len(row)), default=len(row)) for row in rows]
    if not pad_to:
        padded = [max(map(len, rows))] * len(rows)
    assert value(batch, "longest") == padded
    if max_size is None:
        assert len(model.shapes) == len(set(padded))
    real = sum(map(len, rows))
    assert (infer.padding.real_cells, infer.padding.padded_cells) == (real, sum(padded) - real)
    assert infer.padding.calls == len(set(padded))


def test_one_call_for_each_value_of_a_field() -> None:
    rows = [{"x": [1], "kind": "a"}, {"x": [1, 2, 3], "kind": 7}, {"x": [1, 2], "kind": "a"}, {"x": [5], "kind": "7"}]
    model, _, batch = run(rows, bucket_by="kind")
    assert value(batch) == [1, 6, 3, 5]
    assert model.shapes == [(2, 2), (2, 3)]
    model, _, batch = run(rows, bucket_by="kind", pad_to=[2, 8])
    assert value(batch) == [1, 6, 3, 5]
    assert model.shapes == [(2, 2), (2, 8)]


def test_events_without_the_field_are_rejected() -> None:
    _, _, batch = run([{"x": [1], "kind": 1}, {"x": [2]}], bucket_by="kind")
    assert value(batch) == [1]


def test_rows_are_grouped_in_a_graph_too() -> None:
    model = Summing()
    infer = Infer(
        "s", [NamedModel(model, inputs={"x": "v"})], bucket_by="n", ensembles=[Ensemble("e", "mean", ("sum",))]
    )
    batch = EventBatch.of_events([{"v": [i], "n": i % 2} for i in range(4)])
    assert value(infer(batch)) == [0, 1, 2, 3]
    assert model.shapes == [(2, 1), (2, 1)]
    assert np.asarray(batch.outputs["e"].fields["value"]).tolist() == [0, 1, 2, 3]


def test_outputs_that_are_as_long_as_their_rows_go_on_in_batches_of_their_own() -> None:
    class Echo(Summing):
        def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
            return {"vector": np.asarray(columns["x"])}

    batch = EventBatch.of_events([{"x": [1]}, {"x": [1, 2]}])
    settled = run_isolated(Infer("s", [Echo()], pad_to=[1, 2]), batch)
    assert settled.rejected is None
    vectors = [kept.outputs["sum"].fields["vector"] for kept in settled.all_kept]
    assert [np.asarray(vector).tolist() for vector in vectors] == [[[1]], [[1, 2]]]


def test_pad_to_needs_a_model_that_takes_any_length() -> None:
    class Fixed(Summing):
        required_fields = (FieldSpec("x", "float64", 2),)

    with pytest.raises(ConfigError, match="no model of the stage reads a field of width") as caught:
        Infer("s", [Fixed()], pad_to=[4])
    assert caught.value.path == "batch.pad_to"


def test_an_onnx_model_of_any_length(tmp_path: Path) -> None:
    onnx = build(
        [helper.make_node("ReduceSum", ["x", "axis"], ["value"], keepdims=1)],
        {"x": ("float32", [None, None])},
        {"value": ("float32", [None, 1])},
        {"axis": np.array([1])},
    ).SerializeToString()
    write_model(tmp_path, "sum", onnx, '[inputs.x]\nfield = "x"\nwidth = "any"\n')
    rows = [[1.5], [1, 2, 3], [4, 5], [6]]
    infer = Infer("s", [load_model(tmp_path, "sum")], pad_to=[2, 4])
    found = value(run_isolated(infer, EventBatch.of_events([{"x": row} for row in rows])).kept)
    assert found == [run_plain(onnx, {"x": np.array([row], np.float32)})[0][0, 0] for row in rows]
    assert infer.padding.waste == pytest.approx(3 / 10)


class Averaging(Summing):
    """A model to which a zero at the end is a value like any other."""

    padding_is_neutral = False

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        x = np.asarray(columns["x"])
        self.shapes.append(x.shape)
        return {"value": x.sum(axis=1) / max(1, x.shape[1])}


@pytest.mark.parametrize("bucket_by", [None, "kind"])
def test_a_model_that_takes_zeros_for_data_gets_rows_of_one_length(bucket_by: str | None) -> None:
    rows = [[4.0], [1.0, 3.0], [8.0], [2.0, 2.0, 5.0]]
    infer = Infer("s", [Averaging()], bucket_by=bucket_by)
    batch = EventBatch.of_events([{"x": row, "kind": "a"} for row in rows])
    assert infer(batch).outputs["sum"].fields["value"].tolist() == [4.0, 2.0, 8.0, 3.0]  # type: ignore[union-attr]
    assert infer.padding.padded_cells == 0
