"""Fields read by simdjson: what comes out is what orjson and `read_column` make of the same records, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.fields import ColumnSpec, read_columns
from modelstream.operators.json_fields import JsonFields, VectorField
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.late_events import LateEvents

SPECS = [ColumnSpec("x", "float32", 3), ColumnSpec("n", "int64"), ColumnSpec("wide", "float64", 3, path="x")]


def record(**fields: Any) -> bytes:
    return orjson.dumps({"id": "a", "x": [1.5, -2, 3e-9], "n": 7, **fields})


def read(values: list[bytes], fields: JsonFields | None) -> EventBatch:
    codec = Codec(JsonFormat(fields=fields), event_id="id")
    batch = codec.decode(values, [None] * len(values), [0] * len(values))
    read_columns(batch, SPECS, "features")
    return batch


def fast() -> JsonFields:
    return JsonFields(["id", "n"], {"x": VectorField(3)})


def assert_alike(values: list[bytes]) -> bool:
    """Read records in both ways, and return whether the quick way was taken."""
    batch, expected = read(values, fast()), read(values, None)
    assert batch.ids == expected.ids
    assert batch.faults == expected.faults
    assert list(batch.events) == expected.events
    assert batch.columns.keys() == expected.columns.keys()
    for name, column in expected.columns.items():
        found = batch.columns[name]
        assert found.dtype == column.dtype
        np.testing.assert_array_equal(found, column)
    return isinstance(batch.events, LateEvents)


SOUND = {
    "plain": record(),
    "integers": record(x=[1, 2**53 + 1, 2**64 - 1]),
    "another field": record(y="text"),
    "escapes": record(y='a "quoted"\nline'),
    "not ASCII": record(id="é", y="漢"),
    "spaces": b' {"n" : 1 ,"x":[ 0.1,2 , 3 ],"id":"b"}\n',
    "rounding": record(x=[0.1, 16777217, 1e-46]),
}

ODD = {
    "twice": b'{"id":"a","x":[1,2,3],"x":[4,5,6],"n":7}',
    "twice, once with an escape": b'{"id":"a","x":[1,2,3],"\\u0078":[4,5,6],"n":7}',
    "a number twice": b'{"id":"a","x":[1,2,3],"n":7,"n":8}',
    "a number twice, once with an escape": b'{"id":"a","x":[1,2,3],"n":7,"\\u006e":8}',
    "an id twice": b'{"id":"a","x":[1,2,3],"n":7,"id":"b"}',
    "also deeper": record(y={"n": 8}),
    "list in a vector": b'{"id":"a","x":[[1,2],3],"n":7}',
    "empty list in a vector": b'{"id":"a","x":[[1,2],[],3],"n":7}',
    "another list": record(y=[1]),
    "truth value": record(x=[True, 2, 3]),
    "null in a vector": record(x=[None, 2, 3]),
    "text in a vector": record(x=["1", 2, 3]),
    "short": record(x=[1, 2]),
    "long": record(x=[1, 2, 3, 4]),
    "no vector": record(x=1),
    "an object for a vector": record(x={"0": 1}),
    "text for a number": record(n="7"),
    "a fraction for an integer": record(n=7.5),
    "a list for an id": record(id=["a"]),
    "an object for a number": record(n={}),
    "null": record(n=None),
    "id of another type": record(id=7),
    "missing": b'{"id":"a","x":[1,2,3]}',
    "beyond float32": record(x=[1e39, 2, 3]),
    "beyond float64": b'{"id":"a","x":[1e999,2,3],"n":7}',
    "beyond 64 bits": b'{"id":"a","x":[1,2,3],"n":123456789012345678901234567890}',
    "NaN": b'{"id":"a","x":[NaN,2,3],"n":7}',
    "byte order mark": b"\xef\xbb\xbf" + record(),
    "no UTF-8": b'{"id":"\xff","x":[1,2,3],"n":7}',
    "lone surrogate": b'{"id":"\\ud800","x":[1,2,3],"n":7}',
    "truncated": record()[:-1],
    "more behind it": record() + b"x",
    "two": record() + record(),
    "list": b"[1]",
    "scalar": b"7",
    "nothing": b"",
    "too deep": b'{"id":"a","x":[1,2,3],"n":7,"y":' + b'{"y":' * 1024 + b"0" + b"}" * 1025,
}


@pytest.mark.parametrize("value", SOUND.values(), ids=SOUND.keys())
def test_sound_records_are_read_quickly_and_alike(value):
    assert assert_alike([record(id="before"), value, record(id="after")])


@pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
def test_odd_records_are_read_alike(value):
    assert_alike([record(id="before"), value, record(id="after")])
    assert_alike([value])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("idxny"), inner), max_leaves=6
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(2**70), 2**70)
RECORDS = st.fixed_dictionaries(
    {"id": st.text(max_size=3) | ANYTHING, "x": st.lists(NUMBERS, min_size=3, max_size=3) | ANYTHING},
    optional={"n": st.integers(-(2**64), 2**65) | ANYTHING, "y": ANYTHING, 'x"': SCALARS},
)


def as_json(event: dict[str, Any]) -> bytes:
    import json

    return json.dumps(event).encode()


@settings(max_examples=300)
@given(st.lists(RECORDS.map(as_json) | st.sampled_from([*SOUND.values(), *ODD.values()]), min_size=1, max_size=4))
@example([ODD["twice"], b'{"id":"a","n":7,"y":1,"z":2}'])
def test_any_records_are_read_alike(values):
    assert_alike(values)


TEXTS = [
    "1,2.5,-3e2",
    "1, 2 ,\t3\n",
    "1,2,3,",
    "1;2;3",
    "1;2,5;3",
    "1,2,3,,",
    "1,2",
    "1,2,3,4",
    ",1,2,3",
    "",
    ",",
    "1,[2],3",
    "1,[2,3]",
    "[1,2,3]",
    "1,2],[3",
    "1,true,3",
    "1,null,3",
    '1,"2",3',
    "1,{},3",
    '1,{"a":2},3',
    "1,NaN,3",
    "1,1e39,3",
    "1,1e999,3",
    "1,01,3",
    "1,+2,3",
    "1,.5,3",
    "1,2.,3",
    "1,0x2,3",
    "1,2_0,3",
    "1,18446744073709551616,3",
    "1,2,3\0",
    "\ufeff1,2,3",
    "1,2,3é",
    7,
    None,
    [1, 2, 3],
]


@pytest.mark.parametrize("separator", [",", ";"])
@given(st.lists(st.sampled_from(TEXTS) | st.text(alphabet="0123456789,;.e-[] ", max_size=12), min_size=1, max_size=4))
@example(["1,2.5,-3e2", "1,2,3,"])
def test_any_texts_are_read_alike(separator: str, texts: list[Any]):
    spec = ColumnSpec("x", "float32", 3, separator=separator)
    read = []
    for fields in (JsonFields(["id"], {"x": VectorField(3, separator)}), None):
        values = [orjson.dumps({"id": str(i), "x": text}) for i, text in enumerate(texts)]
        batch = Codec(JsonFormat(fields=fields), event_id="id").decode(values, [None] * len(values), [0] * len(values))
        read_columns(batch, [spec], "features")
        read.append((batch.columns["x"].tolist(), batch.faults))
    assert read[0] == read[1]


def test_sound_texts_are_read_quickly():
    fields = JsonFields(["id"], {"x": VectorField(2, ","), "y": VectorField(2, ";"), "z": VectorField(2)})
    found = fields.read(
        [b'{"id":"a","x":"1,2.5,","y":"3;-4e1","z":[5,6]}', b'{"z":[0,0],"y":"0;0","x":"0,0","id":"b"}']
    )
    assert found is not None
    assert [found[name][0].tolist() for name in "xyz"] == [[1, 2.5], [3, -40], [5, 6]]


def test_records_are_read_in_parts(monkeypatch):
    values = [record(id=str(i), x=[i, i / 3, -i]) for i in range(100)]
    monkeypatch.setattr("modelstream.operators.json_fields._PART_BYTES", 300)
    assert assert_alike(values)
    assert not assert_alike([*values, ODD["short"]])


def test_a_field_that_is_read_twice_has_one_value_a_record():
    fields = JsonFields(["id", "n", "id"], {"x": VectorField(3)}).read([record(id="a"), record(id="b")])
    assert fields is not None
    assert fields["id"] == ["a", "b"]


def test_objects_are_no_values_of_fields():
    # They would hold the parser's document.
    assert fast().read([record(), record(n={})]) is None


def test_more_records_than_parsers():
    values = [record(id=str(i), x=[i, i / 3, -i]) for i in range(1000)]
    assert assert_alike(values)
    assert not assert_alike([*values, ODD["short"]])


def test_after_something_odd_it_reads_on():
    fields = fast()
    fields.read([ODD["a list for an id"]])
    fields.read([record()])  # left out: the batch before was odd
    assert fields.read([record()]) is not None


def test_where_every_batch_is_odd_few_are_tried(monkeypatch):
    fields, tried = fast(), []
    monkeypatch.setattr(fields, "_read", lambda values: tried.append(values))
    for _ in range(1000):
        assert fields.read([record()]) is None
    assert len(tried) < 15


def test_rows_are_selected_and_put_together_without_decoding(monkeypatch):
    values = [record(id=str(i), n=i) for i in range(6)]
    batch = read(values, fast())
    monkeypatch.setattr(LateEvents, "_decoded", None)
    odd = batch.select(np.array([1, 3, 5]))
    joined = EventBatch.concat([odd, batch.select(slice(0, 2)), batch.select(np.arange(6) == 4)])
    monkeypatch.undo()
    assert [event["n"] for event in joined.events] == [1, 3, 5, 0, 1, 4]
    assert joined.events.fields["id"] == ["1", "3", "5", "0", "1", "4"]


def test_events_of_both_kinds_are_put_together():
    late, decoded = read([record(id="a")], fast()), read([record(id="b")], None)
    assert [event["id"] for event in EventBatch.concat([late, decoded]).events] == ["a", "b"]


def test_a_changed_event_stays_changed():
    batch = read([record(), record()], fast())
    batch.events[1]["n"] = "changed"
    joined = EventBatch.concat([batch.select(slice(1, 2)), batch.select(slice(0, 1))])
    assert [event["n"] for event in joined.events] == ["changed", 7]
