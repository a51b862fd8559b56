"""A model whose batch axis is fixed at 1 works, row by row, and says what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper
from support.onnx_factory import affine, build, run_plain

from modelstream.models.contract import ContractBreach
from modelstream.models.errors import InferenceError
from modelstream.models.session import open_session, run_rows


def fixed(batch: int | None = 1) -> bytes:
    """The number of a row times the weight of its category; any other category than 0, 1, 2 makes the call fail."""
    nodes = [helper.make_node("Gather", ["table", "i"], ["g"]), helper.make_node("Mul", ["x", "g"], ["value"])]
    inputs = {"x": ("float32", [batch, 1]), "i": ("int64", [None, 1])}
    table = {"table": np.array([1, 2, 3], np.float32)}
    return build(nodes, inputs, {"value": ("float32", None)}, table).SerializeToString()


def test_rows_go_through_one_by_one_and_come_out_together(load):
    model = load(fixed())
    assert model.contract.row_by_row
    x, i = np.arange(100, dtype=np.float32), np.arange(100) % 3
    assert_array_equal(model.predict({"x": x, "i": i}, 100)["value"], x * (i + 1))
    assert model.predict({"x": x[:0], "i": i[:0]}, 0)["value"].shape == (0,)


def test_its_price_is_told(load):
    [note] = load(fixed()).notes
    assert note.startswith("its batch axis is fixed at 1: rows go through one by one, at ")
    assert note.endswith(
        " µs each; export the model with a dynamic batch axis, as torch's dynamic_axes={'x': {0: 'n'}}"
    )


def test_a_dynamic_axis_has_no_note(load):
    model = load(fixed(None))
    assert (model.contract.row_by_row, model.notes) == (False, ())


def test_a_row_that_fails_fails_the_call(load):
    with pytest.raises(InferenceError, match="indices element out of data bounds"):
        load(fixed()).predict({"x": [1, 1], "i": [0, 9]}, 2)


def test_every_output_of_a_classifier(load):
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["x"], ["p"]),
    ]
    inputs, outputs = {"x": ("float32", [1, 3])}, {"label": ("int64", None), "p": ("float32", None)}
    onnx = build(nodes, inputs, outputs).SerializeToString()
    X = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    predicted = load(onnx).predict({"x": X}, 20)
    assert_array_equal(predicted["label"], X.argmax(axis=1))
    assert_array_equal(predicted["score"], [run_plain(onnx, {"x": X[i : i + 1]})[1].max() for i in range(20)])


def test_a_zipmap_of_every_row_is_joined():
    node = helper.make_node("ZipMap", ["x"], ["value"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    model = build([node], {"x": ("float32", [1, 2])}, {})
    scores = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output.append(helper.make_value_info("value", helper.make_sequence_type_proto(scores)))
    session = open_session(model.SerializeToString())
    [rows] = run_rows(session, ["value"], {"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert rows == [{0: 1, 1: 2}, {0: 3, 1: 4}]


def test_outputs_that_cannot_be_joined_are_one_clear_line():
    node = helper.make_node("ReduceSum", ["x"], ["value"], keepdims=0)
    session = open_session(build([node], {"x": ("float32", [1, 2])}, {"value": ("float32", None)}).SerializeToString())
    with pytest.raises(ContractBreach, match=r"output 'value' of a single row is of shape \(\); rows cannot be joined"):
        run_rows(session, ["value"], {"x": np.ones((2, 2), np.float32)})


def test_one_input_fixed_is_enough(load):
    model = load(affine([1, 2]))
    assert not model.contract.row_by_row
