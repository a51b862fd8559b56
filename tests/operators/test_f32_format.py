from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.f32_format import VectorFormat

CODEC = Codec(VectorFormat(3, "x"), max_record_bytes=100)
GOOD = np.array([1, 2.5, -3], "<f4").tobytes()


def decode(values: list[bytes | None], codec: Codec = CODEC) -> EventBatch:
    return codec.decode(values, [None] * len(values), np.arange(len(values)))


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


@given(
    hnp.arrays(
        "<f4",
        st.tuples(st.integers(0, 50), st.just(3)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_a_batch_is_one_column(rows: np.ndarray[Any, Any]) -> None:
    batch = decode([row.tobytes() for row in rows])
    assert not batch.faults
    column = batch.columns["x"]
    assert isinstance(column, np.ndarray)
    assert (column.dtype, column.shape) == (np.float32, rows.shape)
    assert column.tobytes() == rows.tobytes()
    assert batch.events == [{}] * len(rows)
    assert batch.ids == [str(i) for i in range(len(rows))]


BAD: list[tuple[bytes | None, str, str]] = [
    (None, "undecodable", "the value is null"),
    (b"", "undecodable", "the value is empty"),
    (GOOD[:-1], "undecodable", "11 bytes, not 12: 3 float32"),
    (GOOD + b"\0", "undecodable", "13 bytes, not 12: 3 float32"),
    (vector(1, 2), "undecodable", "8 bytes, not 12: 3 float32"),
    (b'{"x": [1, 2, 3]}', "undecodable", "16 bytes, not 12: 3 float32"),
    (b"x" * 101, "too_large", "101 bytes, the limit is 100"),
    (vector(1, np.nan, 3), "non_finite", "number 1 of 3 is nan"),
    (vector(1, 2, np.inf), "non_finite", "number 2 of 3 is inf"),
    (vector(-np.inf, np.nan, 3), "non_finite", "number 0 of 3 is -inf"),
]


@pytest.mark.parametrize(("value", "reason", "detail"), BAD, ids=range(len(BAD)))
def test_a_bad_record_is_rejected_and_its_neighbours_are_not(value: bytes | None, reason: str, detail: str) -> None:
    batch = decode([GOOD, value, GOOD])
    assert {row: (fault.reason, fault.detail) for row, fault in batch.faults.items()} == {1: (reason, detail)}
    assert np.array_equal(batch.columns["x"], [[1, 2.5, -3], [0, 0, 0], [1, 2.5, -3]])
    settled = batch.settle()
    assert np.array_equal(settled.kept.columns["x"], [[1, 2.5, -3]] * 2)
    assert settled.rejected is not None
    assert settled.rejected.lineage.record_index.tolist() == [1]
    assert decode([value]).faults[0] == batch.faults[1]


@given(st.lists(st.none() | st.binary(max_size=14) | st.binary(min_size=12, max_size=12)))
def test_any_bytes_are_a_vector_or_a_fault(values: list[bytes | None]) -> None:
    batch = decode(values)
    for row, value in enumerate(values):
        assert batch.faults.get(row) == decode([value]).faults.get(0)
        assert batch.columns["x"][row].tobytes() == (bytes(12) if row in batch.faults else value)


def test_stages_may_change_columns_and_events() -> None:
    batch = decode([GOOD, GOOD])
    batch.columns["x"] *= 2  # type: ignore[operator]
    batch.events[0]["seen"] = True
    assert batch.events == [{"seen": True}, {}]


@pytest.mark.parametrize(
    "event", [{"x": [1, 2, 3], "y": 5}, {"x": np.array([1, 2, 3])}, {"x": (1.0, 2, 3)}, {"a": 1, "b": 2.0, "c": 3}]
)
def test_events_are_written_as_vectors(event: dict[str, Any]) -> None:
    assert CODEC.encode(event) == vector(1, 2, 3)


def test_what_is_no_vector_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="field 'x' has 2 values, not 3"):
        CODEC.encode({"x": [1, 2]})
