"""One bad event never hurts its neighbours: whatever is wrong with it, and at whatever stage that shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import InferenceError
from modelstream.operators.batch import Column, EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.extract import Extract
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.filter import Filter
from modelstream.operators.infer import Infer
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.operator import Operator, run_isolated

CODEC = Codec(JsonFormat(max_depth=9), event_id="id", event_time="time", max_record_bytes=400)
ENCODER = PredictionEncoder("pipeline")


class Touchy:
    """A model that fails on one number, and has no answer for another."""

    name, version = "touchy", "1"
    required_fields = (FieldSpec("x", "float32"), FieldSpec("v", "float32", 3), FieldSpec("length", "int64"))

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> dict[str, Column]:
        x, v, length = (np.asarray(columns[name]) for name in ("x", "v", "length"))
        assert np.isfinite(x).all() and np.isfinite(v).all()
        if (x == 666).any():
            raise InferenceError(self.name, self.version, "666")
        return {"value": np.where(x == -1, np.nan, x + v.sum(axis=1)), "label": [f"of {n}" for n in length]}


def text_length(batch: EventBatch) -> dict[str, Column]:
    """Fail where the text is no text, and end the process on another."""
    if any(event.get("text") == "exit" for event in batch.events):
        raise SystemExit
    return {"length": np.array([len(event["text"]) for event in batch.events])}


STAGES: list[Operator] = [
    Filter("known", present=("x",)),
    Extract("declared", columns=[ColumnSpec("x", "float32"), ColumnSpec("n", "int32", default=0)]),
    Extract("computed", function=text_length),
    Infer("score", [Touchy()], max_size=5),
]


def run(records: list[bytes | None]) -> tuple[list[str], dict[int, tuple[str, str]], list[int]]:
    """Return the predictions, the rejected records with stage and reason, and the filtered ones."""
    settled = CODEC.decode(records, [b"key"] * len(records), [0] * len(records)).settle()
    faults: dict[int, tuple[str, str]] = {}
    filtered: list[int] = []
    batch = settled.kept
    operators: list[Operator | None] = [None, *STAGES]
    for operator in operators:
        if operator is not None:
            settled = run_isolated(operator, batch)
            batch = settled.kept
        if settled.filtered is not None:
            filtered += settled.filtered.record_index.tolist()
        if settled.rejected is not None:
            for row, record in enumerate(settled.rejected.lineage.record_index.tolist()):
                fault = settled.rejected.faults[row]
                assert record not in faults
                faults[record] = (fault.stage, fault.reason)
    return ENCODER.encode(batch), faults, filtered


def event(**fields: Any) -> bytes:
    good = {"id": "a", "time": "2013-01-01T10:15:00Z", "x": 1.5, "v": [1, 2, 3], "text": "text"}
    return orjson.dumps({name: value for name, value in (good | fields).items() if value is not ...})


BAD: list[tuple[bytes | None, tuple[str, str]]] = [
    (None, ("source", "undecodable")),
    (b"", ("source", "undecodable")),
    (b"\xff", ("source", "undecodable")),
    (event()[:-5], ("source", "undecodable")),
    (b"17", ("source", "undecodable")),
    (b"[]", ("source", "undecodable")),
    (event().replace(b"1.5", b"NaN"), ("source", "undecodable")),
    (event().replace(b"1.5", b"1e999"), ("source", "non_finite")),
    (event(text="x" * 400), ("source", "too_large")),
    (event(text=...).replace(b"1.5", b"[" * 9 + b"]" * 9), ("source", "too_deep")),
    (event(id=...), ("source", "missing_field")),
    (event(time="soon"), ("source", "wrong_type")),
    (event(x="1.5"), ("declared", "wrong_type")),
    (event(x=1e39), ("declared", "non_finite")),
    (event(n=2**31), ("declared", "wrong_type")),
    (event(n=1.5), ("declared", "wrong_type")),
    (event(text=5), ("computed", "operator_failed")),
    (event(text=...), ("computed", "operator_failed")),
    (event(text="exit"), ("computed", "operator_failed")),
    (event(v=...), ("score", "missing_field")),
    (event(v=[1, 2]), ("score", "wrong_type")),
    (event(v=[1, 2, "3"]), ("score", "wrong_type")),
    (event(v=[1, 2, 1e39]), ("score", "non_finite")),
    (event(v=[0] * 100), ("score", "wrong_type")),
    (event(x=666), ("score", "model_failed")),
    (event(x=-1), ("score", "non_finite")),
]
FILTERED = [event(x=...), event(x=None)]

good_events = st.builds(
    event,
    id=st.text(max_size=4) | st.integers(0, 99),
    time=st.integers(0, 10**12) | st.sampled_from(["2013-01-01", "2013-01-01T10:15:00+02:00", "2013-01-01T10:15:00Z"]),
    x=st.floats(0, 100, width=32) | st.booleans() | st.integers(0, 100),
    v=st.lists(st.floats(0, 1, width=32) | st.integers(0, 5), min_size=3, max_size=3),
    n=st.integers(-5, 5) | st.none() | st.just(2.0),
    text=st.text(max_size=4),
)
kinds = st.one_of(
    good_events.map(lambda record: (record, None)),
    st.sampled_from(BAD),
    st.sampled_from(FILTERED).map(lambda record: (record, "filtered")),
)


@given(st.lists(kinds, max_size=25))
def test_exactly_the_bad_events_are_rejected_and_the_others_do_not_notice(rows: list[tuple[bytes | None, Any]]) -> None:
    predictions, faults, filtered = run([record for record, _ in rows])
    assert faults == {i: fate for i, (_, fate) in enumerate(rows) if isinstance(fate, tuple)}
    assert filtered == [i for i, (_, fate) in enumerate(rows) if fate == "filtered"]
    alone, no_faults, _ = run([record for record, fate in rows if fate is None])
    assert not no_faults
    assert predictions == alone


def test_one_of_each_kind_among_many_good_ones() -> None:
    good = [event(id=i, x=i) for i in range(1000)]
    rows: list[bytes | None] = list(good)
    for i, (record, _) in enumerate(BAD):
        rows.insert(i * 40, record)
    predictions, faults, filtered = run(rows)
    assert predictions == [run([record])[0][0] for record in good if record != event(id=666, x=666)]
    assert faults == {i * 40: fate for i, (_, fate) in enumerate(BAD)} | {
        rows.index(event(id=666, x=666)): ("score", "model_failed")
    }
    assert not filtered


def test_a_run_of_bad_events_is_rejected_whole() -> None:
    for record, fate in BAD:
        predictions, faults, _ = run([record] * 100 + [event()])
        assert faults == dict.fromkeys(range(100), fate)
        assert predictions == run([event()])[0]
