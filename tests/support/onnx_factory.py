"""Small ONNX models for tests, and the directories they are loaded from."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}

#: Tensor name to its type and shape; None is a dynamic axis.
Signature = Mapping[str, tuple[str, Sequence[int | str | None] | None]]


def build(
    nodes: Sequence[NodeProto],
    inputs: Signature,
    outputs: Signature,
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> ModelProto:
    """Return a model of any graph."""
    graph: GraphProto = helper.make_graph(
        nodes,
        "graph",
        _infos(inputs),
        _infos(outputs),
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    # The versions of 2022, which every supported ONNX Runtime knows.
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _infos(signature: Signature) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, (dtype, shape) in signature.items()]


def affine(weights: Sequence[float], bias: float = 0.0, tensor: str = "x", output: str = "value") -> bytes:
    """Return a model of one packed input: ``value = x @ weights + bias``."""
    return build(
        [helper.make_node("Gemm", [tensor, "w", "b"], [output])],
        {tensor: ("float32", [None, len(weights)])},
        {output: ("float32", [None, 1])},
        {"w": np.array(weights, np.float32)[:, None], "b": np.array([bias], np.float32)},
    ).SerializeToString()


def column_sum(dtypes: Mapping[str, str], rank: int = 2) -> bytes:
    """Return a model whose inputs are named columns of any number type; ``value`` is their sum."""
    shape: list[int | None] = [None, 1][:rank]
    casts = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in dtypes]
    total = helper.make_node("Sum", [f"{name}_f" for name in dtypes], ["value"])
    inputs: Signature = {name: (dtype, shape) for name, dtype in dtypes.items()}
    return build([*casts, total], inputs, {"value": ("float32", shape)}).SerializeToString()


def mlp(sizes: Sequence[int] = (20, 64, 32, 1), seed: int = 0, tensor: str = "x", output: str = "value") -> bytes:
    """Return a multi-layer perceptron with ReLU and random weights."""
    rng = np.random.default_rng(seed)
    nodes, constants, name = [], {}, tensor
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        last = layer == len(sizes) - 2
        constants[f"w{layer}"] = rng.normal(scale=fan_in**-0.5, size=(fan_in, fan_out)).astype(np.float32)
        constants[f"b{layer}"] = rng.normal(size=fan_out).astype(np.float32)
        linear = output if last else f"linear{layer}"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [linear]))
        if not last:
            nodes.append(helper.make_node("Relu", [linear], [f"relu{layer}"]))
            name = f"relu{layer}"
    shapes = [None, sizes[0]], [None, sizes[-1]]
    return build(
        nodes, {tensor: ("float32", shapes[0])}, {output: ("float32", shapes[1])}, constants
    ).SerializeToString()


def patient(batch: int | None = None) -> bytes:
    """A model that loops as many times as the largest number of the batch says, for 0.1 µs or more each."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Sin", ["v"], ["sin"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("go_on", TensorProto.BOOL, []), info("sin", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "true", "x"], ["looped"], body=body),
        helper.make_node("Identity", ["x"], ["value"]),
    ]
    shape = ("float32", [batch, 1])
    outputs = {"value": shape, "looped": ("float32", None)}
    return build(nodes, {"x": shape}, outputs, {"true": np.array(True)}).SerializeToString()


def convolution() -> bytes:
    """A convolution over 16 x 16 pixels, pooled, and a dense layer."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Reshape", ["x", "image"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["value"]),
    ]
    constants = {
        "image": np.array([-1, 1, 16, 16]),
        "kernel": rng.normal(size=(32, 1, 3, 3)).astype(np.float32),
        "dense": rng.normal(size=(32, 4)).astype(np.float32),
    }
    shapes = ("float32", [None, 256]), ("float32", [None, 4])
    return build(nodes, {"x": shapes[0]}, {"value": shapes[1]}, constants).SerializeToString()


def stumbling() -> bytes:
    """A model that answers x, and fails where the largest x of a call is not 3."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Range", ["zero", "largest", "one"], ["range"]),
        helper.make_node("Add", ["range", "three"], ["sums"]),
        helper.make_node("ReduceSum", ["sums"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["value"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "three": np.arange(3)}
    shape = ("int64", [None, 1])
    return build(nodes, {"x": shape}, {"value": shape}, constants).SerializeToString()


def write_model(models_dir: Path, name: str, onnx: bytes, toml: str = "", version: str = "1") -> Path:
    """Write a model version with a right digest, and return its directory."""
    directory = models_dir / name / version
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(onnx)
    head = f'name = "{name}"\nversion = "{version}"\nsha256 = "{hashlib.sha256(onnx).hexdigest()}"\n'
    (directory / "model.toml").write_text(head + toml, encoding="utf-8")
    return directory


def run_plain(onnx: bytes, feed: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Return what ONNX Runtime says with its default options, as the reference to compare with."""
    results: list[Any] = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(None, dict(feed))
    return results
