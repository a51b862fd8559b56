"""Train three small models that work together with those of `train.py`: see `ensemble.yaml`.

``python -m modelstream.examples.flights.train_late`` writes `models/NAME/1/` for `late_quick`, `late_by_delay` and
`late_stacked`. All three say how likely a flight is more than 15 minutes late; their graphs calculate row by row, one
number after the other, so that a flight gets the same bits in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from modelstream.examples.flights.export import IR_VERSION, ML_OPSET, OPSET, write_model
from modelstream.examples.flights.features import FEATURES
from modelstream.examples.flights.metrics import score_classifier
from modelstream.examples.flights.train import LATE_MIN, Split, lineage, load_splits

__all__ = ["logistic_graph", "main"]

#: Flights of July to December that arrived.
_TESTED = 166_668
_MODELS = Path(__file__).with_name("models")

Floats = NDArray[np.float32]


def logistic_graph(name: str, tensor: str, width: int, columns: Sequence[int], fitted: LogisticRegression) -> bytes:
    """Return a logistic regression as ONNX: outputs `score`, the probability of class 1, and `label`, 0 or 1.

    Parameters
    ----------
    name : str
        Name of the graph.
    tensor : str
        Its input, of shape (n_rows, width).
    width : int
        Numbers in a row of it.
    columns : sequence of int
        Which of them it was trained on.
    fitted : LogisticRegression
        Of two classes.
    """
    arrays = {"bias": fitted.intercept_.astype(np.float32), "half": np.array([0.5], np.float32)}
    nodes: list[NodeProto] = []
    total = "bias"
    for i, (column, weight) in enumerate(zip(columns, fitted.coef_[0], strict=True)):
        arrays |= {f"column{i}": np.array([column]), f"weight{i}": np.array([weight], np.float32)}
        nodes += [
            helper.make_node("Gather", [tensor, f"column{i}"], [f"x{i}"], axis=1),
            helper.make_node("Mul", [f"x{i}", f"weight{i}"], [f"part{i}"]),
            helper.make_node("Add", [total, f"part{i}"], [f"sum{i}"]),
        ]
        total = f"sum{i}"
    nodes += [
        helper.make_node("Sigmoid", [total], ["score"]),
        helper.make_node("Greater", ["score", "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["label"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N", 1]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1]),
        ],
        [numpy_helper.from_array(array, key) for key, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="modelstream example")
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _say(model: bytes | Path, output: str, tensor: str, rows: Floats) -> Floats:
    """Return one number a row from ONNX Runtime; of two classes that of class 1."""
    content = model if isinstance(model, bytes) else model.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [result] = session.run([output], {tensor: np.ascontiguousarray(rows, np.float32)})
    return np.ascontiguousarray(result.reshape(len(rows), -1)[:, -1])


def _save(
    name: str, model: bytes, inputs: Mapping[str, Any], score: Floats, test: Split, training: Mapping[str, Any]
) -> None:
    months = "the last five sixths of 7-12" if len(score) < _TESTED else "7-12"
    metrics = {"months": months, "n_rows": len(score), **score_classifier(test.late, score)}
    print(f"{name}: {len(model):,} bytes")
    for key, value in metrics.items():
        print(f"  {key} = {value}")
    outputs = {"label": {"tensor": "label"}, "score": {"tensor": "score"}}
    said = {
        "target": f"arr_delay > {LATE_MIN} minutes",
        "algorithm": "LogisticRegression",
        **training,
        **lineage("python -m modelstream.examples.flights.train_late"),
    }
    write_model(_MODELS / name / "1", model, outputs, metrics, said, inputs)


def main() -> None:
    """Train, test and write all three models."""
    train, test = load_splits()
    columns: dict[str, list[Floats]] = {}
    with threadpool_limits(1):
        # What leaves late arrives late: one number, no trees.
        fitted = LogisticRegression().fit(train.dep_delay[:, None], train.late)
        at_gate = FEATURES.index("dep_delay_min")
        quick = logistic_graph("late_quick", "features", len(FEATURES), [at_gate], fitted)
        columns["late_quick"] = [_say(quick, "score", "features", split.features) for split in (train, test)]
        training = {"months": "1-6", "n_rows": len(train.late), "from": "dep_delay alone"}
        features = {"features": {"field": "features", "width": len(FEATURES)}}
        _save("late_quick", quick, features, columns["late_quick"][1], test, training)

        # The expected delay as a probability; it reads another model's answer.
        regressor = _MODELS / "arrival_delay" / "1" / "model.onnx"
        delays = [_say(regressor, "value", "features", split.features) for split in (train, test)]
        fitted = LogisticRegression().fit(delays[0][:, None], train.late)
        by_delay = logistic_graph("late_by_delay", "delay", 1, [0], fitted)
        columns["late_by_delay"] = [_say(by_delay, "score", "delay", one[:, None]) for one in delays]
        training = {"months": "1-6", "n_rows": len(train.late), "from": "arrival_delay@1"}
        _save("late_by_delay", by_delay, {"delay": {"field": "delay"}}, columns["late_by_delay"][1], test, training)

        # July says how far to trust each: the others have seen January to June, and know them better than they should.
        trees = _MODELS / "late_arrival" / "1" / "model.onnx"
        scores = np.column_stack(
            [
                columns["late_quick"][1],
                _say(trees, "probabilities", "features", test.features),
                columns["late_by_delay"][1],
            ]
        )
        july = np.arange(len(scores)) < len(scores) // 6
        fitted = LogisticRegression().fit(scores[july], test.late[july])
        stacked = logistic_graph("late_stacked", "scores", 3, [0, 1, 2], fitted)
        training = {
            "months": "the first sixth of 7-12",
            "n_rows": int(july.sum()),
            "from": "late_quick@1, late_arrival@1, late_by_delay@1",
        }
        rest = Split(test.features[~july], test.arr_delay[~july], test.air_time[~july])
        said = _say(stacked, "score", "scores", scores[~july])
        _save("late_stacked", stacked, {"scores": {"field": "scores", "width": 3}}, said, rest, training)


if __name__ == "__main__":
    main()
