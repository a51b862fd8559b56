"""Rows of any length: one call has one length, and whether padding changes the answers is found out at loading."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import helper
from support.onnx_factory import build

from modelstream.models.contract import ANY_WIDTH, FieldSpec, merge_fields
from modelstream.models.errors import InferenceError

ANY = '[inputs.x]\nfield = "readings"\nwidth = "any"\n'


def reduced(op: str, dtype: str = "float32", batch: int | None = None) -> bytes:
    """Sum, or mean, of a row of any length."""
    onnx = build(
        [helper.make_node(op, ["x"], ["value"], axes=[1], keepdims=1)]
        if op != "ReduceSum"
        else [helper.make_node(op, ["x", "axes"], ["value"], keepdims=1)],
        {"x": (dtype, [batch, None])},
        {"value": (dtype, None)},
        {"axes": np.array([1])} if op == "ReduceSum" else {},
    )
    return onnx.SerializeToString()


@pytest.mark.parametrize("batch", [None, 1])
def test_every_call_may_have_another_length(load, batch):
    model = load(reduced("ReduceSum", batch=batch), ANY)
    assert model.required_fields == (FieldSpec("readings", "float32", ANY_WIDTH),)
    for length in (1, 3, 100):
        X = np.random.default_rng(0).random((4, length))
        assert_allclose(model.predict({"readings": X}, 4)["value"], X.sum(axis=1), rtol=1e-5)


def test_padding_that_changes_nothing_is_known(load):
    model = load(reduced("ReduceSum"), ANY)
    assert (model.padding_is_neutral, model.notes) == (True, ())


def test_padding_that_changes_answers_is_told(load):
    model = load(reduced("ReduceMean"), ANY)
    assert not model.padding_is_neutral
    assert model.notes == (
        "zeros at the end of a row change its answer: only rows of one length can share a call; "
        "mask the padding in the model",
    )


def test_examples_are_rows_of_any_length(load):
    tokens = "[examples]\nreadings = [[1, 2, 3], [4, 5]]"
    assert load(reduced("ReduceSum"), ANY + tokens).predict({"readings": [[1.5, 2]]}, 1)["value"].tolist() == [3.5]


def test_text_of_any_length(load):
    coding = {"keys_strings": ["a", "b"], "values_floats": [1.0, 10.0], "default_float": 0.0}
    node = helper.make_node("LabelEncoder", ["x"], ["codes"], domain="ai.onnx.ml", **coding)
    total = helper.make_node("ReduceSum", ["codes", "axes"], ["value"], keepdims=1)
    onnx = build([node, total], {"x": ("string", [None, None])}, {"value": ("float32", None)}, {"axes": np.array([1])})
    model = load(onnx.SerializeToString(), ANY)
    words = np.array([["a", "a", "b"]], object)
    assert model.predict({"readings": words}, 1)["value"].tolist() == [12]
    assert model.padding_is_neutral


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (np.zeros(3, np.float32), r"column 'readings' has shape \(3,\), expected \(3, any\)"),
        (np.zeros((3, 2, 2), np.float32), r"column 'readings' has shape \(3, 2, 2\), expected \(3, any\)"),
        ([[1], [1, 2], [1]], "column 'readings': its rows differ in shape"),
    ],
)
def test_columns_that_are_no_rows_of_one_length(load, column, problem):
    with pytest.raises(InferenceError, match=problem):
        load(reduced("ReduceSum"), ANY).predict({"readings": column}, 3)


def test_a_field_has_one_kind_of_width():
    fields = [FieldSpec("x", "float32", ANY_WIDTH), FieldSpec("x", "int64", ANY_WIDTH)]
    assert merge_fields(fields) == (FieldSpec("x", "float64", ANY_WIDTH),)
