from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper
from support.onnx_factory import affine, build, column_sum, mlp, run_plain

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import InferenceError


def gather() -> bytes:
    """An embedding of three rows: any other index makes ONNX Runtime fail."""
    node = helper.make_node("Gather", ["table", "i"], ["value"])
    table = {"table": np.array([1, 2, 3], np.float32)}
    return build([node], {"i": ("int64", [None])}, {"value": ("float32", [None])}, table).SerializeToString()


@pytest.mark.parametrize("n_rows", [1, 2, 7, 64, 1024])
def test_every_row_equals_plain_onnx_runtime(load, n_rows):
    onnx = mlp()
    model = load(onnx)
    assert model.required_fields == (FieldSpec("x", "float32", 20),)
    X = np.random.default_rng(1).normal(size=(n_rows, 20)).astype(np.float32)
    predicted = model.predict({"x": X}, n_rows)
    assert list(predicted) == ["value"]
    by_row = [run_plain(onnx, {"x": X[i : i + 1]})[0][0, 0] for i in range(n_rows)]
    assert_allclose(predicted["value"], by_row, rtol=1e-5, atol=1e-6)
    assert_array_equal(predicted["value"], run_plain(onnx, {"x": X})[0][:, 0])


def test_scalar_fields_are_packed_in_the_order_of_the_contract(load):
    model = load(affine([100, 10, 1]), '[inputs.x]\nfields = ["c", "a", "b"]')
    columns = {"a": np.array([1, 2]), "b": np.array([3.0, 4.0]), "c": [True, False], "unused": [None, None]}
    assert_array_equal(model.predict(columns, 2)["value"], [113, 24])


@pytest.mark.parametrize("rank", [1, 2])
def test_inputs_without_a_contract_are_filled_by_name_and_cast(load, rank):
    dtypes = {"f": "float32", "d": "float64", "i": "int32", "n": "int64", "b": "bool"}
    model = load(column_sum(dtypes, rank))
    assert model.required_fields == tuple(FieldSpec(name, dtype) for name, dtype in dtypes.items())
    columns = {name: np.array([1.0, 0.0, 1.0]) for name in dtypes}
    assert_array_equal(model.predict(columns, 3)["value"], [5, 0, 5])


def test_one_field_may_fill_tensors_of_two_types(load):
    model = load(column_sum({"a": "float32", "b": "int64"}), '[inputs.a]\nfield = "n"\n[inputs.b]\nfield = "n"')
    assert model.required_fields == (FieldSpec("n", "float64"),)
    assert_array_equal(model.predict({"n": np.array([2.0])}, 1)["value"], [4])


def test_text_goes_in_and_comes_out(load):
    node = helper.make_node("Identity", ["carrier"], ["copy"])
    shape = ("string", [None, 1])
    model = load(build([node], {"carrier": shape}, {"copy": shape}).SerializeToString())
    assert model.required_fields == (FieldSpec("carrier", "string"),)
    assert model.predict({"carrier": ["AA", "é\0"]}, 2) == {"label": ["AA", "é\0"]}


def test_the_width_of_a_vector_may_come_from_the_contract(load):
    node = helper.make_node("ReduceSum", ["x", "axis"], ["value"], keepdims=1)
    onnx = build([node], {"x": ("float32", [None, None])}, {"value": ("float32", None)}, {"axis": np.array([1])})
    model = load(onnx.SerializeToString(), '[inputs.x]\nfield = "readings"\nwidth = 3')
    assert model.required_fields == (FieldSpec("readings", "float32", 3),)
    assert_array_equal(model.predict({"readings": [[1, 2, 3], [4, 5, 6]]}, 2)["value"], [6, 15])


def test_a_vector_of_one_value_has_to_be_asked_for(load):
    assert load(affine([2]), '[inputs.x]\nfield = "a"\nwidth = 1').required_fields == (FieldSpec("a", "float32", 1),)


def test_a_wide_output_is_a_vector(load):
    onnx = mlp((4, 3))
    X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    predicted = load(onnx).predict({"x": X}, 5)
    assert_array_equal(predicted["vector"], run_plain(onnx, {"x": X})[0])


def test_several_outputs_come_in_the_order_of_the_contract(load):
    nodes = [helper.make_node("Neg", ["x"], ["low"]), helper.make_node("Exp", ["x"], ["high"])]
    wide = ("float32", [None, 1])
    onnx = build(nodes, {"x": wide}, {"low": wide, "high": wide}).SerializeToString()
    model = load(onnx, '[outputs.high]\nkind = "value"\n[outputs.value]\ntensor = "low"')
    predicted = model.predict({"x": np.array([0.0, 1.0])}, 2)
    assert list(predicted) == ["high", "value"]
    assert_array_equal(predicted["value"], [0, -1])


def test_one_tensor_may_give_several_scores(load):
    node = helper.make_node("Softmax", ["x"], ["p"])
    wide = ("float32", [None, 3])
    onnx = build([node], {"x": wide}, {"p": wide}).SerializeToString()
    toml = """
    [outputs.score]
    tensor = "p"
    [outputs.late]
    tensor = "p"
    kind = "score"
    class = "late"
    classes = ["early", "on time", "late"]
    [outputs.early]
    tensor = "p"
    kind = "score"
    class = 0
    """
    x = np.array([[0, 1, 2], [5, 0, 0]], np.float32)
    p = run_plain(onnx, {"x": x})[0]
    predicted = load(onnx, toml).predict({"x": x}, 2)
    assert_array_equal(predicted["score"], p.max(axis=1))
    assert_array_equal(predicted["late"], p[:, 2])
    assert_array_equal(predicted["early"], p[:, 0])


def test_no_rows_give_no_rows_of_the_right_types(load):
    model = load(mlp((4, 3)))
    [(field, column)] = model.predict({}, 0).items()
    assert (field, column.shape, column.dtype) == ("vector", (0, 3), np.float32)


def test_what_is_not_finite_is_returned_as_it_is(load):
    node = helper.make_node("Log", ["x"], ["value"])
    model = load(build([node], {"x": ("float32", [None])}, {"value": ("float32", [None])}).SerializeToString())
    assert_array_equal(model.predict({"x": np.array([1.0, 0.0, -1.0])}, 3)["value"], [0, -np.inf, np.nan])


def test_a_failing_row_is_an_inference_error_of_one_line_and_stderr_stays_clean(load, capfd):
    model = load(gather())
    with pytest.raises(InferenceError) as caught:
        model.predict({"i": np.array([0, 7])}, 2)
    assert str(caught.value) == (
        "model m@1: ONNX Runtime: Non-zero status code returned while running Gather node. Name:'' Status Message: "
        "indices element out of data bounds, idx=7 must be within the inclusive range [-3,2]"
    )
    assert_array_equal(model.predict({"i": np.array([0, 2])}, 2)["value"], [1, 3])
    assert capfd.readouterr() == ("", "")


def test_text_that_is_no_unicode_is_an_inference_error(load):
    node = helper.make_node("Identity", ["s"], ["label"])
    shape = ("string", [None, 1])
    model = load(build([node], {"s": shape}, {"label": shape}).SerializeToString())
    with pytest.raises(InferenceError, match="surrogates not allowed"):
        model.predict({"s": ["\ud800"]}, 1)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({}, "column 'x' is missing"),
        ({"x": np.zeros((3, 2))}, "column 'x' has 3 rows, the batch has 2"),
        ({"x": np.zeros((2, 3))}, "column 'x' has shape (2, 3), expected (2, 2)"),
        ({"x": [["a", "b"], ["c", "d"]]}, "column 'x' holds text, the model reads float32"),
    ],
)
def test_columns_that_do_not_fit_are_an_inference_error(load, columns, problem):
    with pytest.raises(InferenceError) as caught:
        load(affine([1, 2])).predict(columns, 2)
    assert str(caught.value) == f"model m@1: {problem}"


def test_a_result_that_breaks_the_contract_later_is_an_inference_error(load):
    # Drops rows of zeros: the trial rows have none.
    nodes = [
        helper.make_node("Not", ["zero"], ["some"]),
        helper.make_node("Equal", ["x", "nothing"], ["zero"]),
        helper.make_node("Compress", ["x", "some"], ["value"], axis=0),
    ]
    signature = {"x": ("float32", [None])}, {"value": ("float32", [None])}
    model = load(build(nodes[1::-1] + nodes[2:], *signature, {"nothing": np.float32(0)}).SerializeToString())
    with pytest.raises(
        InferenceError, match=r"output 'value' is float32 of shape \(1,\); as value 'value' it should be"
    ):
        model.predict({"x": np.array([0.0, 1.0])}, 2)


def test_threads_may_share_a_model(load):
    onnx = mlp()
    model = load(onnx)
    X = np.random.default_rng(2).normal(size=(64, 20)).astype(np.float32)
    expected = run_plain(onnx, {"x": X})[0][:, 0]
    barrier = threading.Barrier(4)

    def work(_: int) -> bool:
        barrier.wait()
        return all(np.array_equal(model.predict({"x": X}, 64)["value"], expected) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_columns_are_left_as_they_were(load):
    model = load(affine([1, 2]), '[inputs.x]\nfields = ["a", "b"]')
    columns = {"a": np.array([1.0, 2.0]), "b": [3, 4]}
    model.predict(columns, 2)
    assert columns["a"].tolist() == [1.0, 2.0]
    assert columns["b"] == [3, 4]
