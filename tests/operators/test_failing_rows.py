"""Any rows that any of several real ONNX models fail on, in any batch: exactly those are rejected."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from support.onnx_factory import build, write_model

from modelstream.models.loading import load_model
from modelstream.models.onnx_model import OnnxModel
from modelstream.operators.batch import EventBatch
from modelstream.operators.cascade import Cascade
from modelstream.operators.circuit import Circuit
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.infer import Infer, NamedModel
from modelstream.operators.operator import run_isolated

#: What the models add for each index; of index 3 and more there is none, and ONNX Runtime fails on the whole batch.
TABLE = np.array([1, 4, 16], np.float32)
NOT_THERE = 3
UNSURE = "value > 10"


@cache
def models() -> dict[str, OnnxModel]:
    """Return models that add a number of a table: each fails where its own index is not in the table."""
    folder = Path(mkdtemp())
    for name in ("quick", "thorough", "other"):
        onnx = build(
            [
                helper.make_node("Gather", ["table", f"{name}_index"], ["found"]),
                helper.make_node("Add", ["x", "found"], ["value"]),
            ],
            {"x": ("float32", [None]), f"{name}_index": ("int64", [None])},
            {"value": ("float32", [None])},
            {"table": TABLE},
        ).SerializeToString()
        write_model(folder, name, onnx, f"[examples]\n{name}_index = [0, 1, 2]\n")
    return {name: load_model(folder, name) for name in ("quick", "thorough", "other")}


def stage(max_size: int | None) -> Infer:
    quick, thorough, other = models().values()
    return Infer(
        "score",
        [quick, thorough, NamedModel(other, "reader", {"x": "quick.value"})],
        max_size,
        ensembles=[Ensemble("blend", "mean", ("quick", "reader"))],
        cascades=[Cascade("verdict", ("quick", "thorough"), UNSURE)],
        circuit=lambda model: Circuit(model.name, model.version, max_failures=10_000),
    )


def expected(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the predictions of one row by plain arithmetic, or the model that fails on it."""
    if row["quick_index"] == NOT_THERE:
        return "quick"
    quick = row["x"] + float(TABLE[row["quick_index"]])
    predictions: dict[str, Any] = {"quick": {"version": "1", "value": quick}}
    verdict = {"version": "1", "model": "quick", "value": quick}
    failing = []
    if quick > 10:
        if row["thorough_index"] == NOT_THERE:
            failing.append("thorough")
        else:
            thorough = row["x"] + float(TABLE[row["thorough_index"]])
            predictions["thorough"] = {"version": "1", "value": thorough}
            verdict = {"version": "1", "model": "thorough", "value": thorough}
    if row["other_index"] == NOT_THERE:
        failing.append("other")
    if failing:
        return " or ".join(failing)
    reader = quick + float(TABLE[row["other_index"]])
    predictions["reader"] = {"version": "1", "value": reader}
    predictions["blend"] = {"version": "quick@1+reader@1", "value": (quick + reader) / 2}
    return predictions | {"verdict": verdict}


index = st.sampled_from([0, 1, 2, 0, 1, 2, NOT_THERE])
rows_of_events = st.lists(
    st.fixed_dictionaries(
        {"x": st.integers(0, 12), "quick_index": index, "thorough_index": index, "other_index": index}
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200)
@given(rows_of_events, st.none() | st.integers(1, 9))
def test_exactly_the_rows_that_a_model_fails_on_are_rejected(rows: list[dict[str, Any]], max_size: int | None) -> None:
    settled = run_isolated(stage(max_size), EventBatch.of_events(rows))
    truth = [expected(row) for row in rows]
    good = [i for i, one in enumerate(truth) if isinstance(one, dict)]
    assert settled.kept.lineage.record_index.tolist() == good
    found = [orjson.loads(text)["predictions"] for text in PredictionEncoder("p").encode(settled.kept)]
    assert found == [truth[i] for i in good]
    faults = {}
    if settled.rejected is not None:
        records = settled.rejected.lineage.record_index.tolist()
        faults = {record: settled.rejected.faults[i] for i, record in enumerate(records)}
    assert sorted(faults) == [i for i, one in enumerate(truth) if isinstance(one, str)]
    for record, fault in faults.items():
        blamed = truth[record]
        assert isinstance(blamed, str)
        assert (fault.stage, fault.reason, fault.exception) == ("score", "model_failed", "InferenceError")
        assert any(fault.detail.startswith(f"model {name}@1: ONNX Runtime: ") for name in blamed.split(" or "))
        assert "indices element out of data bounds, idx=3" in fault.detail


def test_a_model_is_not_blamed_for_rows_that_it_never_sees() -> None:
    rows = [{"x": 0, "quick_index": 0, "thorough_index": NOT_THERE, "other_index": 0}] * 5
    assert run_isolated(stage(None), EventBatch.of_events(rows)).rejected is None


@given(rows_of_events)
def test_a_row_is_told_alike_in_every_batch(rows: list[dict[str, Any]]) -> None:
    infer, encoder = stage(None), PredictionEncoder("p")
    together = run_isolated(infer, EventBatch.of_events(rows)).kept
    alone = [text for i, row in enumerate(rows) for text in encoder.encode(run_isolated(infer, _at(i, row)).kept)]
    assert encoder.encode(together) == alone


def _at(i: int, row: dict[str, Any]) -> EventBatch:
    batch = EventBatch.of_events([row])
    batch.ids = [str(i)]
    return batch
