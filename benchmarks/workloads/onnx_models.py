"""Models made with the `onnx` helper, always with the same weights: an MLP, boosted trees, and a small image CNN."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from benchmarks.workloads.workload import SEED
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["OUTPUT_BIAS", "convolutions", "perceptron", "trees"]

#: Bias of the last layer. It keeps every value away from zero, where float32 rounding, which differs with the batch
#: size, would no longer be small *relative* to the value.
OUTPUT_BIAS = 16.0

_N_TREES, _DEPTH, _TREE_FEATURES = 500, 6, 20

#: Of an image's side, in pixels; of the two convolutions, in channels; of the last layer, in classes.
_SIDE, _CHANNELS, _CLASSES = 28, (8, 16), 10


def perceptron(*layers: int) -> ModelProto:
    """Return an MLP in float32 with ReLU between the layers, of so many units each.

    Its input is ``features`` (n, first layer), its output ``value`` (n, last layer).
    """
    generator = np.random.default_rng(SEED)
    nodes, weights, last = [], [], "features"
    for i, (n_in, n_out) in enumerate(pairwise(layers)):
        is_output = i == len(layers) - 2
        kernel = (generator.standard_normal((n_in, n_out)) * np.sqrt(1 / n_in)).astype(np.float32)
        bias = np.full(n_out, OUTPUT_BIAS if is_output else 0.1, np.float32)
        weights += [numpy_helper.from_array(kernel, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        after = "value" if is_output else f"dense{i}"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [after]))
        if not is_output:
            nodes.append(helper.make_node("Relu", [after], [f"relu{i}"]))
        last = f"relu{i}"
    return _model("mlp", nodes, weights, layers[0], layers[-1])


def convolutions() -> ModelProto:
    """Return a CNN for grey images of 28 x 28 pixels from 0 to 255: twice 3 x 3, ReLU and pooling, then a dense layer.

    Its input is ``features`` (n, 784), row by row, its output ``value`` (n, 10).
    """
    generator = np.random.default_rng(SEED)
    weights, nodes = [], []

    def constant(name: str, values: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    def kernel(name: str, *shape: int) -> str:
        scale = np.sqrt(1 / np.prod(shape[1:]))
        return constant(name, (generator.standard_normal(shape) * scale).astype(np.float32))

    nodes.append(helper.make_node("Mul", ["features", constant("scale", np.array(1 / 255, np.float32))], ["scaled"]))
    shape = constant("image", np.array([-1, 1, _SIDE, _SIDE], np.int64))
    nodes.append(helper.make_node("Reshape", ["scaled", shape], ["pooled0"]))
    for i, (n_in, n_out) in enumerate(pairwise((1, *_CHANNELS)), 1):
        bias = constant(f"bias{i}", np.full(n_out, 0.1, np.float32))
        inputs = [f"pooled{i - 1}", kernel(f"kernel{i}", n_out, n_in, 3, 3), bias]
        nodes.append(helper.make_node("Conv", inputs, [f"conv{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]))
        nodes.append(helper.make_node("MaxPool", [f"relu{i}"], [f"pooled{i}"], kernel_shape=[2, 2], strides=[2, 2]))
    n_flat = _CHANNELS[-1] * (_SIDE // 4) ** 2
    nodes.append(helper.make_node("Flatten", [f"pooled{len(_CHANNELS)}"], ["flat"]))
    dense = [kernel("dense", _CLASSES, n_flat), constant("bias", np.full(_CLASSES, OUTPUT_BIAS, np.float32))]
    nodes.append(helper.make_node("Gemm", ["flat", *dense], ["value"], transB=1))
    return _model("cnn", nodes, weights, _SIDE * _SIDE, _CLASSES)


def trees() -> ModelProto:
    """Return 500 boosted trees, all branches full: features and thresholds are random, so that no path is a habit."""
    generator = np.random.default_rng(SEED)
    n_inner, n_leaves = 2**_DEPTH - 1, 2**_DEPTH
    n_nodes = n_inner + n_leaves
    node_ids = np.tile(np.arange(n_nodes), _N_TREES)
    inner = node_ids < n_inner
    tree_ids = np.repeat(np.arange(_N_TREES), n_nodes)
    features = np.where(inner, generator.integers(0, _TREE_FEATURES, len(node_ids)), 0)
    thresholds = np.where(inner, generator.normal(0, 0.5, len(node_ids)), 0.0)
    attributes: dict[str, Any] = {
        "nodes_treeids": tree_ids,
        "nodes_nodeids": node_ids,
        "nodes_featureids": features,
        "nodes_values": thresholds,
        "nodes_modes": ["BRANCH_LEQ" if is_inner else "LEAF" for is_inner in inner],
        "nodes_truenodeids": np.where(inner, 2 * node_ids + 1, 0),
        "nodes_falsenodeids": np.where(inner, 2 * node_ids + 2, 0),
        "target_treeids": tree_ids[~inner],
        "target_nodeids": node_ids[~inner],
        "target_ids": np.zeros(_N_TREES * n_leaves, np.int64),
        "target_weights": generator.normal(0, 0.05, _N_TREES * n_leaves),
        "base_values": [OUTPUT_BIAS],
    }
    plain = {name: list(getattr(value, "tolist", lambda value=value: value)()) for name, value in attributes.items()}
    node = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["value"], domain="ai.onnx.ml", n_targets=1, **plain
    )  # fmt: skip
    return _model("trees", [node], [], _TREE_FEATURES, 1)


def _model(
    name: str, nodes: Sequence[NodeProto], weights: Sequence[TensorProto], width: int, n_outputs: int
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", n_outputs])],
        weights,
    )
    # IR 10 and opset 21: what any ONNX Runtime of the last years reads.
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opsets)
    onnx.checker.check_model(model, full_check=not any(node.domain for node in nodes))
    return model
