"""Whole files that do not fit each other, or a model that cannot serve: one line each that says what, where and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from support.onnx_factory import affine, build, column_sum, write_model

Tensor = tuple[str, Sequence[int | str | None] | None]

ONE: Tensor = ("float32", [None, 1])
TWO: Tensor = ("float32", [None, 2])
ANY: Tensor = ("float32", None)
X2 = affine([1, 2])


def node(op: str, x: Tensor = ONE, value: Tensor = ONE, second: Any = None, **attributes: Any) -> bytes:
    """Return a model of one node, whose second input may be a constant."""
    constants = {} if second is None else {"c": np.asarray(second)}
    made = helper.make_node(op, ["x", *constants], ["value"], **attributes)
    return build([made], {"x": x}, {"value": value}, constants).SerializeToString()


def changed(change: Callable[[ModelProto], object]) -> bytes:
    model = ModelProto.FromString(X2)
    change(model)
    return model.SerializeToString()


def _external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


IDENTITIES = build(
    [helper.make_node("Identity", ["x"], ["value"]), helper.make_node("Identity", ["s"], ["label"])],
    {"x": ONE, "s": ("string", [None, 1])},
    {"value": ONE, "label": ("string", [None, 1])},
).SerializeToString()
TWO_VALUES = build(
    [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])], {"x": ONE}, {"a": ONE, "b": ONE}
).SerializeToString()
CONSTANT = build(
    [helper.make_node("Neg", ["c"], ["value"])], {}, {"value": ANY}, {"c": np.ones(2, np.float32)}
).SerializeToString()
OPEN: Tensor = ("float32", [None, None])
ROWS_OF_ANY_LENGTH = build(
    [helper.make_node("Add", ["x", "y"], ["value"])], {"x": OPEN, "y": OPEN}, {"value": ANY}
).SerializeToString()
SOFTMAX = node("Softmax", TWO, TWO)
CANNOT = "ONNX Runtime {ort} cannot load it: "
SCORE = "[outputs.score]\nclass = "

#: What to load, what else stands in model.toml, and what is told.
TOML = {
    "unknown key": (X2, "[inputs.x]\nfeilds = ['a']", "inputs.x.feilds: unknown key; did you mean 'fields'?"),
    "line break in a key": (X2, '[inputs."a\\nb"]', "inputs.a b: name either"),
    "unknown input": (X2, "[inputs.y]\nfields = ['a']", "inputs.y: the model has no input 'y', only 'x'"),
    "misspelt input": (
        column_sum({"dep_delay": "float32", "n": "int64"}),
        "[inputs.dep_dely]\nfields = ['a']",
        "inputs.dep_dely: the model has no input 'dep_dely', only 'dep_delay', 'n'; did you mean 'dep_delay'?",
    ),
    "unknown output": (
        X2,
        "[outputs.value]\ntensor = 'valeu'",
        "outputs.value.tensor: the model has no output 'valeu', only 'value'; did you mean 'value'?",
    ),
    "too few fields": (
        X2,
        "[inputs.x]\nfields = ['a']",
        "inputs.x.fields: names 1 field, but the input takes 2 values",
    ),
    "wrong width": (X2, "[inputs.x]\nfield = 'a'\nwidth = 3", "inputs.x.width: is 3, but the input takes 2"),
    "any width where the graph has one": (
        X2,
        '[inputs.x]\nfield = "a"\nwidth = "any"',
        'inputs.x.width: is "any", but the input takes 2',
    ),
    "two widths": (
        ROWS_OF_ANY_LENGTH,
        '[inputs.x]\nfield = "a"\nwidth = "any"\n[inputs.y]\nfield = "a"\nwidth = 2',
        "field 'a' is read as a vector of any length and as a vector of 2",
    ),
    "input not covered": (
        node("Identity", ("float32", [None, None]), ANY),
        "",
        'inputs.x: the graph leaves the width of this input open: add [inputs.x] with fields = ["…", "…"], or field',
    ),
    "text and number": (
        IDENTITIES,
        "[inputs.x]\nfield = 'a'\n[inputs.s]\nfield = 'a'",
        "field 'a' is read as float32 and as string",
    ),
    "no meaning": (
        TWO_VALUES,
        "",
        "outputs: cannot tell what the outputs 'a' (float32 of shape [N, 1]), 'b' (float32 of shape [N, 1]) mean; add",
    ),
    "no classes": (SOFTMAX, f"{SCORE}'late'", "outputs.score.classes: is needed to find the column of 'late'; list"),
    "unknown class": (
        SOFTMAX,
        f"{SCORE}'lat'\nclasses = ['late']",
        "outputs.score.class: 'lat' is not among its classes",
    ),
    "class beyond": (
        SOFTMAX,
        f"{SCORE}2",
        "outputs.score.class: that of 2 is column 2, counted from 0, but output 'value' has 2 columns",
    ),
    "unknown example": (
        column_sum({"carrier": "int64", "x": "float32"}),
        "[examples]\ncarier = [1]",
        "examples.carier: the model reads no such field; did you mean 'carrier'?",
    ),
    "wrong example": (X2, "[examples]\nx = [['a', 'b']]", "examples: column 'x' holds text, the model reads float32"),
}

GRAPHS = {
    "wrong kind": (
        X2,
        "[outputs.label]",
        "output 'value' is float32 of shape (5, 1); as label 'label' it should be int",
    ),
    "wrong type": (
        node("Identity", ("float16", [None, 1]), ("float16", [None, 1])),
        "",
        "input 'x' is tensor(float16); supported are float32, float64, int32, int64, bool, string tensors",
    ),
    "wrong rank": (
        node("Identity", ("float32", ["n", 3, None]), ANY),
        "",
        "input 'x' has shape [n, 3, ?]; supported are [N], [N, 1] and [N, values]",
    ),
    "scalar input": (
        node("Identity", ("float32", []), ANY),
        "",
        "input 'x' has shape []; supported are [N], [N, 1] and",
    ),
    "fixed batch axis": (
        node("Neg", ("float32", [4, 2]), ANY),
        "",
        "input 'x' has shape [4, 2]: its batch axis is fixed at 4; export the model with a dynamic batch axis",
    ),
    "no input": (CONSTANT, "", "has no input; there is nothing to predict from"),
    "dynamic in name only": (
        node("Reshape", TWO, ANY, [1, 2]),
        "",
        "takes 1 row but not 5, its batch axis is not really dynamic: ONNX Runtime: Non-zero status code returned",
    ),
    "rows folded into one": (
        node("Reshape", TWO, ANY, [1, -1]),
        "",
        "output 'value' is float32 of shape (1, 10); as vector 'vector' it should be one row for each of 5",
    ),
    "one number for all rows": (
        node("ReduceSum", ONE, ANY, keepdims=0),
        "[outputs.value]",
        "output 'value' is float32 of shape (); as value 'value' it should be one row for each of 5",
    ),
    "dynamic in name only, second axis": (
        node("Reshape", OPEN, ANY, [-1, 8]),
        '[inputs.x]\nfield = "x"\nwidth = "any"',
        "takes rows of 8 values but not of 13: ",
    ),
    "as long as the row is": (
        node("Neg", OPEN, OPEN),
        '[inputs.x]\nfield = "x"\nwidth = "any"',
        "output 'value' is as long as the row is; only outputs of one size can be read",
    ),
    "neighbours matter": (node("CumSum", second=0, reverse=1), "", "output 'value' of trial row 0 is 0.636"),
    "broken weights": (
        affine([1, np.nan]),
        "",
        "predicts nothing finite for any of the trial rows; its weights may be",
    ),
    "unknown operator": (node("Nope"), "", f"{CANNOT}This is an invalid model. In Node"),
    "opset of the future": (
        changed(lambda model: setattr(model.opset_import[0], "version", 99)),
        "",
        f"{CANNOT}ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions",
    ),
    "format of the future": (
        changed(lambda model: setattr(model, "ir_version", 99)),
        "",
        f"{CANNOT}Unsupported model IR version: 99, max supported IR version: ",
    ),
    "external data": (
        changed(_external),
        "",
        "keeps weights in another file; save it as one file without external data",
    ),
}


@pytest.mark.parametrize("case", TOML)
def test_a_contract_that_does_not_fit_is_one_clear_line(models_dir, assert_told, case):
    onnx, toml, message = TOML[case]
    write_model(models_dir, "m", onnx, toml)
    assert_told("model.toml", message)


@pytest.mark.parametrize("case", GRAPHS)
def test_a_model_that_cannot_serve_is_one_clear_line(models_dir, assert_told, case):
    onnx, toml, message = GRAPHS[case]
    write_model(models_dir, "m", onnx, toml)
    assert_told("model.onnx", message)
