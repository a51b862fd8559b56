"""Trained models into model versions: the ONNX graph, written node by node, and the `model.toml` beside it.

The graphs are small enough to write by hand. skl2onnx 1.20 would do it too, were it not for protobuf 7, which refuses
the flags in the attributes of its tree ensembles.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from modelstream.examples.flights.features import FEATURES

__all__ = [
    "IR_VERSION",
    "ML_OPSET",
    "OPSET",
    "classifier_graph",
    "network_graph",
    "regressor_graph",
    "run_onnx",
    "write_model",
]

#: Old enough for every ONNX Runtime that modelstream supports.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8


def regressor_graph(trees: Any, name: str) -> bytes:
    """Return boosted trees as ONNX: output `value`, what the trees say plus the first feature of the row.

    Parameters
    ----------
    trees : HistGradientBoostingRegressor
        Trained on the difference between the target and the first feature.
    name : str
        Name of the graph.
    """
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            ["features"],
            ["change"],
            domain="ai.onnx.ml",
            n_targets=1,
            **_ensemble(trees, "target"),
        ),
        helper.make_node("Gather", ["features", "first"], ["first_feature"], axis=1),
        helper.make_node("Add", ["change", "first_feature"], ["value"]),
    ]
    return _model(name, nodes, [_tensor("value", TensorProto.FLOAT, 1)], first=np.array([0]))


def classifier_graph(trees: Any, name: str) -> bytes:
    """Return boosted trees as ONNX: outputs `label`, 0 or 1, and `probabilities`, of both classes.

    Parameters
    ----------
    trees : HistGradientBoostingClassifier
        Of two classes.
    name : str
        Name of the graph.
    """
    ensemble = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        **_ensemble(trees, "class"),
    )
    outputs = [_tensor("label", TensorProto.INT64), _tensor("probabilities", TensorProto.FLOAT, 2)]
    return _model(name, [ensemble], outputs)


def network_graph(scaler: Any, network: Any, columns: Sequence[int], name: str, mean: float, spread: float) -> bytes:
    """Return a network as ONNX: output `value`.

    Parameters
    ----------
    scaler : StandardScaler
        For the features that the network sees.
    network : MLPRegressor
        With rectified linear units between its layers.
    columns : sequence of int
        Which features it sees.
    name : str
        Name of the graph.
    mean, spread : float
        The network was trained on targets less `mean`, divided by `spread`.
    """
    weights, biases = [*network.coefs_], [*network.intercepts_]
    # The last layer is linear: it can give the target in its own unit.
    weights[-1], biases[-1] = weights[-1] * spread, biases[-1] * spread + mean
    arrays = {"columns": np.array(columns), "mean": scaler.mean_, "scale": scaler.scale_}
    nodes = [
        helper.make_node("Gather", ["features", "columns"], ["seen"], axis=1),
        helper.make_node("Sub", ["seen", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["layer0"]),
    ]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        arrays[f"weight{i}"], arrays[f"bias{i}"] = weight, bias
        last = i == len(weights) - 1
        nodes.append(
            helper.make_node("Gemm", [f"layer{i}", f"weight{i}", f"bias{i}"], ["value" if last else f"sum{i}"])
        )
        if not last:
            nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"layer{i + 1}"]))
    return _model(name, nodes, [_tensor("value", TensorProto.FLOAT, 1)], **arrays)


def _ensemble(trees: Any, target: str) -> dict[str, Any]:
    """Return the attributes that ONNX's two tree ensembles share but for the prefix of the leaves', `target`."""
    each = [tree.nodes for [tree] in trees._predictors]
    nodes = np.concatenate(each)
    tree_ids = np.repeat(np.arange(len(each)), [len(one) for one in each])
    node_ids = np.concatenate([np.arange(len(one)) for one in each])
    leaf = nodes["is_leaf"].astype(bool)
    base, weights = np.ravel(trees._baseline_prediction), np.where(leaf, nodes["value"], 0)
    largest = np.abs(base).max() + np.maximum.reduceat(np.abs(weights), np.flatnonzero(node_ids == 0)).sum()
    base, weights = _snap(base, largest), _snap(weights, largest)
    attributes = {
        "nodes_treeids": tree_ids,
        "nodes_nodeids": node_ids,
        "nodes_featureids": nodes["feature_idx"],
        "nodes_values": np.where(leaf, 0, _round_down(nodes["num_threshold"])),
        "nodes_truenodeids": nodes["left"],
        "nodes_falsenodeids": nodes["right"],
        "nodes_missing_value_tracks_true": nodes["missing_go_to_left"].astype(np.int64),
        f"{target}_treeids": tree_ids[leaf],
        f"{target}_nodeids": node_ids[leaf],
        f"{target}_ids": np.zeros(leaf.sum(), np.int64),
        f"{target}_weights": weights[leaf],
        "base_values": base,
    }
    modes = {"nodes_modes": ["LEAF" if one else "BRANCH_LEQ" for one in leaf]}
    return {name: array.tolist() for name, array in attributes.items()} | modes


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 not above each threshold: float32 features then go the same way at every node."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _snap(values: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Return the values as multiples of a step so large that no sum of them, up to `largest`, is rounded in float32.

    ONNX Runtime adds up the trees of a row in an order that depends on the number of rows. With exact sums the answer
    for a row does not: a redelivered event gets the same bytes in whichever batch it comes.
    """
    step = 2.0 ** (math.ceil(math.log2(largest)) - 24)  # float32 holds integers up to 2**24
    snapped: NDArray[np.float64] = np.round(values / step) * step
    return snapped


def _tensor(name: str, dtype: int, *width: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["N", *width])


def _model(name: str, nodes: list[NodeProto], outputs: list[ValueInfoProto], **arrays: NDArray[Any]) -> bytes:
    constants = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, key)
        for key, array in arrays.items()
    ]
    graph = helper.make_graph(nodes, name, [_tensor("features", TensorProto.FLOAT, len(FEATURES))], outputs, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="modelstream example")
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run_onnx(model: bytes, tensor: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one number of each row from ONNX Runtime: the tensor's last column, which of two classes is class 1."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [result] = session.run([tensor], {"features": features})
    last: NDArray[np.float32] = result.reshape(len(features), -1)[:, -1]
    return last


def write_model(
    folder: Path,
    model: bytes,
    outputs: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write `model.onnx` and `model.toml` into ``NAME/VERSION/``; without `inputs` it reads the features."""
    inputs = inputs or {"features": {"field": "features", "width": len(FEATURES)}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    tables: dict[str, Mapping[str, Any]] = {
        "": {"name": folder.parent.name, "version": folder.name, "sha256": hashlib.sha256(model).hexdigest()},
        **{f"inputs.{tensor}": one for tensor, one in inputs.items()},
        **{f"outputs.{field}": output for field, output in outputs.items()},
        "metrics": metrics,
        "training": training,
    }
    text = "\n".join(_table(name, table) for name, table in tables.items())
    (folder / "model.toml").write_text(text, encoding="utf-8")


def _table(name: str, table: Mapping[str, Any]) -> str:
    heading = f"[{name}]\n" if name else ""
    return heading + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    """Return a TOML value. JSON's texts, numbers, flags and lists are TOML's as well."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    return json.dumps(round(value, 6) if isinstance(value, float) else value)
