from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.times import LAST_MS

GOOD = b'{"id":"good","time":"2013-01-01T10:15:00Z"}'
CODEC = Codec(JsonFormat(max_depth=20), event_id="id", event_time="time", max_record_bytes=500)


def decode(codec: Codec, values: Sequence[bytes | None]) -> EventBatch:
    return codec.decode(values, [b"key"] * len(values), np.zeros(len(values), np.int64))


def event(**fields: Any) -> bytes:
    return orjson.dumps({"id": "a", "time": 0} | fields)


BAD: list[tuple[bytes | None, str]] = [
    (None, "undecodable"),
    (b"", "undecodable"),
    (b" ", "undecodable"),
    (b"\xff\xfe", "undecodable"),
    (b'{"id":"\xff"}', "undecodable"),
    (b'{"id":"a","ti', "undecodable"),
    (b"5", "undecodable"),
    (b'"text"', "undecodable"),
    (b"null", "undecodable"),
    (b"[1,2]", "undecodable"),
    (b'[{"id":"a","time":0}]', "undecodable"),
    (b'{"id":"a","time":NaN}', "undecodable"),
    (b'{"id":"a","time":Infinity}', "undecodable"),
    (b'{"id":"\\ud800","time":0}', "undecodable"),
    (b'{"id":"a","time":0}{}', "undecodable"),
    (b'{"id":"a","time":0},{}', "undecodable"),
    (b"\x00\x00\x00\x00\x01" + GOOD, "undecodable"),
    (b"\xef\xbb\xbf" + GOOD, "undecodable"),
    (b'{"id":"a","time":0,"x":1e999}', "non_finite"),
    (event(x="x" * 500), "too_large"),
    (b"x" * 501, "too_large"),
    (b'{"id":"a","time":0,"x":' + b"[" * 20 + b"]" * 20 + b"}", "too_deep"),
    (b'{"id":"a","time":0,"x":' + b'{"a":' * 20 + b"0" + b"}" * 21, "too_deep"),
    (b'{"time":0}', "missing_field"),
    (event(id=None), "missing_field"),
    (event(id=1.5), "wrong_type"),
    (event(id=True), "wrong_type"),
    (event(id=["a"]), "wrong_type"),
    (event(id={"a": 1}), "wrong_type"),
    (b'{"id":"a"}', "missing_field"),
    (event(time=None), "missing_field"),
    (event(time=True), "wrong_type"),
    (event(time="soon"), "wrong_type"),
    (event(time="2013-02-30T00:00:00Z"), "wrong_type"),
    (event(time="10000-01-01T00:00:00Z"), "wrong_type"),
    (event(time=1e300), "wrong_type"),
    (event(time=[0]), "wrong_type"),
]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_record_is_rejected_and_its_neighbours_are_not(value: bytes | None, reason: str) -> None:
    batch = decode(CODEC, [GOOD, value, GOOD])
    assert {row: (fault.stage, fault.reason) for row, fault in batch.faults.items()} == {1: ("source", reason)}
    settled = batch.settle()
    assert settled.kept.events == [orjson.loads(GOOD)] * 2
    assert settled.kept.event_times.tolist() == [np.datetime64("2013-01-01T10:15", "ms")] * 2
    assert settled.rejected is not None
    assert settled.rejected.lineage.record_index.tolist() == [1]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=range(len(BAD)))
def test_a_batch_may_be_all_bad(value: bytes | None, reason: str) -> None:
    batch = decode(CODEC, [value] * 3)
    assert [fault.reason for fault in batch.faults.values()] == [reason] * 3
    assert len(batch.settle().kept) == 0


def test_depth_is_limited_even_where_python_could_not_recurse() -> None:
    deep = b'{"id":"a","time":0,"x":%b}'
    values = [deep % (b"[" * n + b"]" * n) for n in (19, 1023, 1024, 100_000)]
    batch = decode(Codec(JsonFormat(), event_id="id"), values)
    assert {row: fault.reason for row, fault in batch.faults.items()} == {2: "too_deep", 3: "too_deep"}
    batch = decode(Codec(JsonFormat(max_depth=20), event_id="id"), values)
    assert {row: fault.reason for row, fault in batch.faults.items()} == dict.fromkeys([1, 2, 3], "too_deep")


@given(
    st.recursive(
        st.integers(0, 9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )
)
def test_depth_is_the_number_of_brackets_around(value: Any) -> None:
    def depth(part: Any) -> int:
        parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else None
        return 0 if parts is None else 1 + max(map(depth, parts), default=0)

    record = orjson.dumps({"x": value})
    n_levels = 1 + depth(value)
    assert not decode(Codec(JsonFormat(max_depth=n_levels)), [record]).faults
    if n_levels > 1:
        assert decode(Codec(JsonFormat(max_depth=n_levels - 1)), [record]).faults[0].reason == "too_deep"


def test_size_is_checked_before_decoding() -> None:
    assert not decode(Codec(JsonFormat(), max_record_bytes=2), [b"{}"]).faults
    fault = decode(Codec(JsonFormat(), max_record_bytes=2), [b"not JSON at all"]).faults[0]
    assert (fault.reason, fault.detail) == ("too_large", "15 bytes, the limit is 2")


@pytest.mark.parametrize(
    ("value", "expected"), [("a", "a"), ("", ""), (7, "7"), (2**64 - 1, "18446744073709551615"), ("ü\n", "ü\n")]
)
@pytest.mark.parametrize("neighbour", ["text", 5])
def test_ids_are_text_or_integers(value: str | int, expected: str, neighbour: str | int) -> None:
    batch = decode(CODEC, [event(id=value), event(id=neighbour)])
    assert batch.ids == [expected, str(neighbour)]
    assert not batch.faults


def test_without_a_field_for_them_ids_are_the_default() -> None:
    def default_ids() -> list[str]:
        return ["topic/0/7", "topic/0/8"]

    batch = Codec(JsonFormat()).decode([b"{}", b"x"], [None, None], [0, 0], default_ids, None)
    assert batch.ids == ["topic/0/7", "topic/0/8"]
    assert decode(Codec(JsonFormat()), [b"{}", b"{}"]).ids == ["0", "1"]
    assert Codec(JsonFormat(), event_id="id").decode([event(id="a")], [None], [0], default_ids).ids == ["a"]


def test_without_a_field_for_them_times_are_the_timestamps() -> None:
    timestamps = [1_357_035_300_000, -1, 2**62, -(2**62)]
    times = Codec(JsonFormat()).decode([b"{}"] * 4, [None] * 4, timestamps).event_times
    assert times.dtype == "datetime64[ms]"
    assert times[0] == np.datetime64("2013-01-01T10:15", "ms")
    assert times[1] == np.datetime64("1969-12-31T23:59:59.999", "ms")
    assert times[2] == np.datetime64(LAST_MS, "ms")
    assert times[3] == np.datetime64("0001-01-01", "ms")


def test_fields_may_be_nested() -> None:
    codec = Codec(JsonFormat(), event_id="meta.id", event_time="meta.at")
    values = [b'{"meta":{"id":"a","at":1}}', b'{"meta":{"id":2,"at":"1970-01-01"}}', b'{"meta":null}', b'{"meta":5}']
    batch = decode(codec, values)
    assert batch.ids == ["a", "2", "", ""]
    assert batch.event_times.view(np.int64).tolist() == [1, 0, 0, 0]
    assert {row: fault.reason for row, fault in batch.faults.items()} == {2: "missing_field", 3: "wrong_type"}


def test_no_records_are_no_events() -> None:
    batch = decode(CODEC, [])
    assert len(batch) == 0
    assert batch.event_times.dtype == "datetime64[ms]"


@given(
    st.lists(
        st.binary(max_size=30)
        | st.none()
        | st.dictionaries(st.sampled_from(["id", "time", "x"]), st.text(max_size=3) | st.integers(0, 10)).map(
            orjson.dumps
        )
    )
)
def test_any_bytes_are_an_event_or_a_fault(values: list[bytes | None]) -> None:
    batch = decode(CODEC, values)
    for row, value in enumerate(values):
        alone = decode(CODEC, [value])
        assert batch.faults.get(row) == alone.faults.get(0)
        assert (batch.ids[row], batch.events[row], batch.event_times[row]) == (
            alone.ids[0],
            alone.events[0],
            alone.event_times[0],
        )


def test_a_batch_knows_when_its_records_were_made_and_how_large_they_are() -> None:
    values = [b"{}", None, b"", GOOD, b"x" * 600]
    batch = CODEC.decode(values, [None] * 5, [5, -1, 2**62, 3, 4])
    assert batch.record_times is not None and batch.n_bytes is not None
    assert (batch.record_times.dtype, batch.record_times.tolist()) == (np.int64, [5, -1, 2**62, 3, 4])
    assert (batch.n_bytes.dtype, batch.n_bytes.tolist()) == (np.int64, [2, 0, 0, len(GOOD), 600])


PRIORITIES: list[tuple[bytes | None, int]] = [
    (b'{"a":{"tier":7}}', 7),
    (b'{"a":{"tier":0}}', 0),
    (b'{"a":{"tier":9.0}}', 9),
    (b'{"a":{"tier":10}}', 0),
    (b'{"a":{"tier":-1}}', 0),
    (b'{"a":{"tier":1.5}}', 0),
    (b'{"a":{"tier":true}}', 0),
    (b'{"a":{"tier":"7"}}', 0),
    (b'{"a":{"tier":[7]}}', 0),
    (b'{"a":{"tier":null}}', 0),
    (b'{"a":{}}', 0),
    (b'{"a":5}', 0),
    (b"{}", 0),
    (b"{", 0),
    (None, 0),
]


@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 11), slice(None)])
def test_a_priority_is_a_digit_of_the_event_or_else_0(rows: slice) -> None:
    values = [value for value, _ in PRIORITIES[rows]]
    priorities = decode(Codec(JsonFormat(), priority="a.tier"), values).priorities
    assert priorities is not None
    assert (priorities.dtype, priorities.tolist()) == (np.int8, [expected for _, expected in PRIORITIES[rows]])


def test_a_top_level_priority_is_read_too() -> None:
    batch = decode(Codec(JsonFormat(), priority="tier"), [b'{"tier":3}', b"{}", b'{"tier":"x"}'])
    assert batch.priorities is not None and batch.priorities.tolist() == [3, 0, 0]


def test_without_a_priority_there_is_none_unless_it_is_given() -> None:
    assert decode(Codec(JsonFormat()), [b'{"tier":3}']).priorities is None
    assert decode(Codec(JsonFormat(), priority="tier"), [b"{}"]).priorities is None
    given = np.array([4], np.int8)
    assert Codec(JsonFormat()).decode([b"{}"], [None], [0], priorities=given).priorities is given


def test_an_event_is_found_for_its_key_whatever_its_id() -> None:
    assert CODEC.decode_one(b'{"x":1}') == {"x": 1}
    assert [CODEC.decode_one(value) for value in (b"", b"[", b"[1]", b"x" * 600)] == [None] * 4
