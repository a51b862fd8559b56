"""The job every system does: the model, the records, and what ONNX Runtime says of each record on its own.

Everything is a function of the record's number, so no two runs and no two systems see different data. The records
are distinct: a model that sees the same rows again looks faster than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "BLOCK",
    "N_FEATURES",
    "OUTPUT_BIAS",
    "event_id",
    "event_number",
    "expected_values",
    "features",
    "perceptron",
    "records",
    "write_model",
]

N_FEATURES = 20

#: Records are made in blocks of this many, each with a random generator of its own: a record does not depend on how
#: many are asked for.
BLOCK = 10_000

#: Any number; it stands here so that everybody measures with the same records.
_SEED = 20_130_101

#: The model's units, layer by layer.
_LAYERS = (N_FEATURES, 64, 32, 1)

#: Bias of the last layer. It keeps every value away from zero, where float32 rounding, which differs with the batch
#: size, would no longer be small *relative* to the value.
OUTPUT_BIAS = 16.0


def event_id(number: int) -> str:
    """Return the id of a record.

    Examples
    --------
    >>> event_id(42), event_number(event_id(42))
    ('event-00000042', 42)
    """
    return f"event-{number:08d}"


def event_number(identifier: str) -> int:
    """Return which record an id belongs to."""
    return int(identifier[6:])


def features(block: int) -> NDArray[np.float64]:
    """Return one block of feature rows.

    Parameters
    ----------
    block : int
        Which block, from 0.

    Returns
    -------
    ndarray of float64, shape (BLOCK, N_FEATURES)
        Standard normal values with four decimals, as the records hold them.
    """
    generator = np.random.default_rng([_SEED, block])
    return generator.standard_normal((BLOCK, N_FEATURES)).round(4)


def records(n: int) -> Iterator[bytes]:
    """Yield the first `n` records: JSON objects of about 200 bytes.

    Examples
    --------
    >>> sorted(orjson.loads(next(records(1))))
    ['features', 'id']
    """
    for first in range(0, n, BLOCK):
        rows = features(first // BLOCK)[: n - first].tolist()
        for number, row in enumerate(rows, first):
            yield orjson.dumps({"id": event_id(number), "features": row})


def write_model(path: Path) -> None:
    """Write the model, an MLP 20-64-32-1 in float32 with ReLU between the layers, always with the same weights.

    Parameters
    ----------
    path : Path
        The file. Its input is ``features`` (n, 20), its output ``value`` (n, 1).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(perceptron(*_LAYERS).SerializeToString())


def perceptron(*layers: int) -> onnx.ModelProto:
    """Return an MLP in float32 with ReLU between the layers, of so many units each, always with the same weights.

    Its input is ``features`` (n, first layer), its output ``value`` (n, last layer).
    """
    generator = np.random.default_rng(_SEED)
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
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", layers[0]])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", layers[-1]])],
        weights,
    )
    # IR 10 and opset 21: what any ONNX Runtime of the last years reads.
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.checker.check_model(model, full_check=True)
    return model


def expected_values(model: Path, n: int) -> NDArray[np.float32]:
    """Return what the model says of the first `n` records, each run on its own.

    Parameters
    ----------
    model : Path
        The file that `write_model` wrote.
    n : int
        How many records.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run
    values = np.empty(n, np.float32)
    for first in range(0, n, BLOCK):
        rows = features(first // BLOCK)[: n - first].astype(np.float32)
        for i in range(len(rows)):
            values[first + i] = run(None, {"features": rows[i : i + 1]})[0][0, 0]
    return values
