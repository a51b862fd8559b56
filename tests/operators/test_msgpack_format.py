from __future__ import annotations

import datetime
import tracemalloc
from typing import Any

import numpy as np
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.fields import ColumnSpec, read_column
from modelstream.operators.msgpack_format import DEEPEST, MsgpackFormat

pack = ormsgpack.packb
GOOD = pack({"id": "good", "time": "2013-01-01T10:15:00Z"})
CODEC = Codec(MsgpackFormat(max_depth=20), event_id="id", event_time="time", max_record_bytes=500)
HUGE = b"\xff\xff\xff\xff"


def decode(codec: Codec, values: list[bytes | None]) -> EventBatch:
    return codec.decode(values, [b"key"] * len(values), np.zeros(len(values), np.int64))


def event(**fields: Any) -> bytes:
    return pack({"id": "a", "time": 0} | fields)


def with_x(x: bytes) -> bytes:
    """Return an event whose field x is these bytes."""
    return b"\x83\xa2id\xa1a\xa4time\x00\xa1x" + x


BAD: list[tuple[bytes | None, str]] = [
    (None, "undecodable"),
    (b"", "undecodable"),
    (b"\xc1", "undecodable"),
    (b'{"id":"a","time":0}', "undecodable"),
    (pack(5), "undecodable"),
    (pack("text"), "undecodable"),
    (pack(None), "undecodable"),
    (pack([1, 2]), "undecodable"),
    (pack([{"id": "a", "time": 0}]), "undecodable"),
    (event()[:-1], "undecodable"),
    (event()[:5], "undecodable"),
    (event() + b"\x80", "undecodable"),
    (event() + event(), "undecodable"),
    (event() + b"\xc1", "undecodable"),
    (b"\x00" + event(), "undecodable"),
    (with_x(b"\xa1\xff"), "undecodable"),  # text that is no UTF-8
    (with_x(b"\xa3\xed\xa0\x80"), "undecodable"),  # a surrogate
    (with_x(b"\x81\x01\x02"), "undecodable"),  # a key that is a number
    (with_x(b"\x81\xc4\x01k\x02"), "undecodable"),  # binary
    (with_x(b"\x81\x90\x02"), "undecodable"),  # a list
    (with_x(b"\xd4\x05\x00"), "undecodable"),  # an extension type
    (with_x(b"\xc7\x03\xff\x00\x00\x00"), "undecodable"),  # a timestamp of three bytes
    (b"\xdf" + HUGE, "undecodable"),
    (with_x(b"\xdd" + HUGE), "undecodable"),
    (with_x(b"\xdf" + HUGE), "undecodable"),
    (with_x(b"\xdb" + HUGE), "undecodable"),
    (with_x(b"\xc6" + HUGE), "undecodable"),
    (with_x(b"\xc9" + HUGE + b"\x01"), "undecodable"),
    (with_x((b"\xdd" + HUGE) * 10), "undecodable"),
    (event(x="x" * 500), "too_large"),
    (b"x" * 501, "too_large"),
    (with_x(b"\x91" * 20 + b"\x00"), "too_deep"),
    (with_x(b"\x81\xa1a" * 20 + b"\x00"), "too_deep"),
    (pack({"time": 0}), "missing_field"),
    (event(id=None), "missing_field"),
    (event(id=1.5), "wrong_type"),
    (event(id=b"a"), "wrong_type"),
    (event(time=True), "wrong_type"),
    (event(time="soon"), "wrong_type"),
    (event(time=float("nan")), "wrong_type"),
    (event(time=b"2013"), "wrong_type"),
]


@pytest.mark.parametrize(("value", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_record_is_rejected_and_its_neighbours_are_not(value: bytes | None, reason: str) -> None:
    batch = decode(CODEC, [GOOD, value, GOOD])
    assert {row: (fault.stage, fault.reason) for row, fault in batch.faults.items()} == {1: ("source", reason)}
    settled = batch.settle()
    assert settled.kept.events == [{"id": "good", "time": "2013-01-01T10:15:00Z"}] * 2
    assert settled.rejected is not None
    assert settled.rejected.lineage.record_index.tolist() == [1]
    alone = decode(CODEC, [value])
    assert alone.faults[0] == batch.faults[1]
    assert "\n" not in alone.faults[0].detail


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (event() + b"\x80", "there is something behind the map"),
        (event()[:-1], "no MessagePack: unexpected end of file"),
        (with_x(b"\xd4\x05\x00"), "it has an extension type that is no timestamp"),
        (pack([1]), "a list is no map"),
        (b"\xc1", "no MessagePack: invalid type Reserved"),
        (with_x(b"\xdd" + HUGE), "no MessagePack: unexpected end of file"),
        (with_x(b"\x91" * 20 + b"\x00"), "nested deeper than 20"),
    ],
)
def test_faults_say_what_is_wrong(value: bytes, detail: str) -> None:
    assert decode(CODEC, [value]).faults[0].detail == detail


def test_a_record_cannot_pass_for_two_nor_two_for_one() -> None:
    # What is cut off from one record, and stands before the next, must not make both of them right.
    whole = pack({"x": "a" * 50})
    batch = decode(Codec(MsgpackFormat()), [whole[:20], whole[20:] + whole, whole, whole + whole[:20], whole[20:]])
    assert sorted(batch.faults) == [0, 1, 3, 4]
    assert batch.events[2] == {"x": "a" * 50}


def test_lengths_cost_no_memory() -> None:
    values: list[bytes | None] = [with_x((b"\xdd" + HUGE) * 500), with_x(b"\xdf" + HUGE), b"\xdd" + HUGE]
    tracemalloc.start()
    try:
        assert len(decode(Codec(MsgpackFormat()), values).faults) == 3
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def test_depth_is_limited_even_where_python_could_not_recurse() -> None:
    values: list[bytes | None] = [with_x(b"\x91" * n + b"\x90") for n in (18, 19, DEEPEST - 2, 1100, 100_000)]
    batch = decode(Codec(MsgpackFormat()), values)
    assert {row: fault.reason for row, fault in batch.faults.items()} == dict.fromkeys([3, 4], "too_deep")
    batch = decode(Codec(MsgpackFormat(max_depth=20)), values)
    assert {row: fault.reason for row, fault in batch.faults.items()} == dict.fromkeys([1, 2, 3, 4], "too_deep")


@pytest.mark.parametrize(
    "at", ["2013-01-01T10:15:00.250Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z"]
)
def test_timestamps_are_milliseconds(at: str) -> None:
    time = datetime.datetime.fromisoformat(at)
    value = ormsgpack.packb({"id": "a", "time": time}, option=ormsgpack.OPT_DATETIME_AS_TIMESTAMP_EXT)
    batch = decode(CODEC, [value])
    assert batch.event_times.tolist() == [time.replace(tzinfo=None)]
    assert type(batch.events[0]["time"]) is int


def test_numbers_are_what_they_were() -> None:
    numbers = {"a": 2**64 - 1, "b": -(2**63), "c": 0.1, "d": float("inf"), "e": True, "f": None}
    assert decode(Codec(MsgpackFormat()), [pack(numbers)]).events == [numbers]


def test_what_is_not_finite_or_binary_does_not_fit_a_number() -> None:
    batch = decode(Codec(MsgpackFormat()), [pack({"x": x}) for x in (1.5, float("nan"), b"1.5", -float("inf"))])
    assert not batch.faults
    read_column(batch, ColumnSpec("x", "float32"), "stage")
    assert {row: fault.reason for row, fault in batch.faults.items()} == {
        1: "non_finite",
        2: "wrong_type",
        3: "non_finite",
    }


msgpack_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), msgpack_values, max_size=4), max_size=200))
def test_what_is_written_is_read(events: list[dict[str, Any]]) -> None:
    codec = Codec(MsgpackFormat())
    batch = decode(codec, [codec.encode(event) for event in events])
    assert batch.events == events
    assert not batch.faults


@given(
    st.lists(
        st.binary(max_size=12)
        | st.none()
        | st.dictionaries(st.sampled_from(["id", "time"]), st.integers(0, 9)).map(pack)
    )
)
def test_any_bytes_are_an_event_or_a_fault(values: list[bytes | None]) -> None:
    batch = decode(CODEC, values)
    for row, value in enumerate(values):
        alone = decode(CODEC, [value])
        assert batch.faults.get(row) == alone.faults.get(0)
        assert (batch.ids[row], batch.event_times[row]) == (alone.ids[0], alone.event_times[0])
        assert repr(batch.events[row]) == repr(alone.events[0])  # NaN is not itself
        if value is not None and row not in batch.faults:
            # Whatever is taken for one value is one: nothing less of it is.
            assert decode(Codec(MsgpackFormat()), [value[:-1]]).faults
