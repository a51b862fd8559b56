from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from support.onnx_factory import affine, build, column_sum, mlp

from modelstream.models.contract import ContractBreach
from modelstream.models.external_data import refuse_external_data


def _outside(location: str = "weights.bin") -> TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _model() -> ModelProto:
    return ModelProto.FromString(affine([1]))


def _initializer(model: ModelProto) -> None:
    model.graph.initializer.append(_outside())


def _constant_node(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=_outside()))


def _tensors_of_a_node(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Custom", [], ["c"], domain="x", values=[_outside()]))


def _branch_of_a_node(model: ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], [_outside()])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def _sparse_initializer(model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(_outside())


def _function(model: ModelProto) -> None:
    function = model.functions.add(name="f", domain="x")
    function.node.append(helper.make_node("Constant", [], ["c"], value=_outside()))


def _no_data_location(model: ModelProto) -> None:
    model.graph.initializer.append(_outside())
    model.graph.initializer[-1].ClearField("data_location")


@pytest.mark.parametrize(
    "hide",
    [
        _initializer,
        _constant_node,
        _tensors_of_a_node,
        _branch_of_a_node,
        _sparse_initializer,
        _function,
        _no_data_location,
    ],
)
def test_it_is_found_wherever_it_hides(hide):
    model = _model()
    refuse_external_data(model.SerializeToString())
    hide(model)
    with pytest.raises(ContractBreach, match="keeps weights in another file"):
        refuse_external_data(model.SerializeToString())


@pytest.mark.parametrize("onnx", [mlp(), column_sum({"location": "float32", "n": "int64"})])
def test_whole_models_pass(onnx):
    refuse_external_data(onnx)


def test_the_word_alone_is_harmless():
    node = helper.make_node("Sum", ["location", "c"], ["value"], name="location")
    shape = ("float32", [None])
    model = build([node], {"location": shape}, {"value": shape}, {"c": np.ones(1, np.float32)})
    model.metadata_props.add(key="location", value="weights.bin")
    refuse_external_data(model.SerializeToString())


def test_broken_content_is_told_or_passed_and_never_anything_else():
    model = _model()
    _initializer(model)
    content = model.SerializeToString()
    rng = random.Random(0)
    for _ in range(2000):
        broken = bytearray(content[: rng.randrange(len(content) + 1)])
        for _ in range(rng.randrange(4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        with contextlib.suppress(ContractBreach):
            refuse_external_data(bytes(broken) + b"location")
