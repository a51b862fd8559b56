from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from modelstream.operators.batch import Column, EventBatch, ModelOutput
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.times import FIRST_MS, LAST_MS, parse_time_ms

ENCODER = PredictionEncoder("flights score delay@1")

nasty = st.text() | st.sampled_from(
    ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "\u2028", "😀", "a,b", '","', "]", "é\n", ""]
)
keys = st.none() | nasty.map(str.encode) | st.binary()


def batch_of(ids: list[str], *, keys: list[bytes | None] | None = None, **columns: Column) -> EventBatch:
    batch = EventBatch.of_events([{}] * len(ids))
    batch.ids = ids
    batch.keys = keys or batch.keys
    batch.outputs["delay"] = ModelOutput("1", columns)
    return batch


def documents(batch: EventBatch) -> list[dict[str, Any]]:
    return [orjson.loads(document) for document in ENCODER.encode(batch)]


def test_the_form_of_a_record() -> None:
    batch = batch_of(["a"], keys=[b"N1"], value=np.array([12.3], np.float32))
    batch.event_times = np.array(["2013-01-01T10:15"], "datetime64[ms]")
    batch.outputs["late"] = ModelOutput("2", {"label": np.array([1]), "score": np.array([0.83])})
    batch.outputs["class"] = ModelOutput("3", {"label": ["x"], "vector": np.array([[0.5, 1.0]], np.float32)})
    seed = xxhash.xxh3_64_intdigest(b"flights score delay@1")
    document = (
        f'{{"id":"{xxhash.xxh3_128_hexdigest(b"a", seed)}","event_id":"a","key":"N1",'
        '"event_time":"2013-01-01T10:15:00Z",'
        '"predictions":{"delay":{"version":"1","value":12.3},"late":{"version":"2","label":1,"score":0.83},'
        '"class":{"version":"3","label":"x","vector":[0.5,1.0]}}}'
    )
    assert ENCODER.encode(batch) == [document]


def test_no_rows_are_no_records() -> None:
    assert ENCODER.encode(batch_of([], value=np.zeros(0, np.float32))) == []


def test_ids_depend_on_event_and_seed() -> None:
    batch = batch_of(["a", "b", "a"], value=np.zeros(3))
    first = [document["id"] for document in documents(batch)]
    assert first[0] == first[2] != first[1]
    assert orjson.loads(PredictionEncoder("other").encode(batch)[0])["id"] != first[0]


@given(st.lists(st.tuples(nasty, keys, nasty), min_size=1, max_size=8))
def test_any_ids_keys_and_labels_can_be_read_again(rows: list[tuple[str, bytes | None, str]]) -> None:
    ids, held, labels = map(list, zip(*rows, strict=True))
    for (event_id, key, label), document in zip(rows, documents(batch_of(ids, keys=held, label=labels)), strict=True):
        assert document["event_id"] == event_id
        assert document["predictions"]["delay"] == {"version": "1", "label": label}
        if "key_base64" in document:
            assert document["key"] is None
            assert base64.b64decode(document["key_base64"]) == key
            with pytest.raises(UnicodeDecodeError):
                key.decode()
        else:
            assert document["key"] == (None if key is None else key.decode())


@given(st.lists(st.tuples(nasty, keys, nasty), min_size=1, max_size=8), st.data())
def test_a_record_depends_on_its_row_alone(rows: list[tuple[str, bytes | None, str]], data: st.DataObject) -> None:
    ids, held, labels = map(list, zip(*rows, strict=True))
    n_rows = len(rows)
    floats = stnp.arrays(np.float32, n_rows, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
    batch = batch_of(ids, keys=held, label=labels, value=data.draw(floats))
    times = data.draw(st.lists(st.integers(FIRST_MS, LAST_MS) | st.just(0), min_size=n_rows, max_size=n_rows))
    batch.event_times = np.array(times, "datetime64[ms]")
    encoded = ENCODER.encode(batch)
    assert encoded == [ENCODER.encode(batch.select(np.array([row])))[0] for row in range(n_rows)]
    assert [parse_time_ms(orjson.loads(document)["event_time"]) for document in encoded] == times


@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: stnp.arrays(
            dtype,
            st.tuples(st.integers(1, 6)) | st.tuples(st.integers(1, 4), st.integers(1, 4)),
            elements={"allow_nan": False, "allow_infinity": False},
        )
    )
)
def test_numbers_come_back_exactly(column: Any) -> None:
    read = [
        document["predictions"]["delay"]["value"] for document in documents(batch_of(["a"] * len(column), value=column))
    ]
    again = np.array(read, column.dtype)
    assert again.tobytes() == column.tobytes()  # the sign of zero too


@pytest.mark.parametrize(
    "column",
    [
        np.array([1, -(2**63)]),
        np.array([1, 2], np.int32),
        np.array([0, 2**64 - 1], np.uint64),
        np.array([True, False]),
        np.array([[1, 2], [3, 4]], np.int32),
        np.array([[True], [False]]),
        np.zeros((2, 0)),
        np.arange(8.0).reshape(2, 2, 2),
        np.arange(8.0, dtype=np.float32)[::4],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", '"'], object),
        np.array([["a", "b"], ["c", '"']], object),
        ["a", "b"],
        ["a", None],
        [["a"], ["b", "c"]],
        [1, {"x": 2}],
    ],
    ids=str,
)
def test_columns_of_every_kind(column: Column) -> None:
    expected = column if isinstance(column, list) else column.tolist()
    found = documents(batch_of(["a", "b"], value=column))
    assert [document["predictions"]["delay"]["value"] for document in found] == expected


@given(nasty, nasty, nasty)
def test_names_may_hold_anything(model: str, version: str, field: str) -> None:
    batch = batch_of(["a"])
    batch.outputs = {model: ModelOutput(version, {f"_{field}": np.array([1])})}
    assert documents(batch)[0]["predictions"] == {model: {"version": version, f"_{field}": 1}}


def test_no_models_are_no_predictions() -> None:
    batch = batch_of(["a"])
    batch.outputs = {}
    assert documents(batch)[0]["predictions"] == {}


class TestPartialAnswers:
    """Entries are left out where a model was not asked, and commas with them."""

    @given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6), st.booleans())
    def test_an_entry_for_each_answer_and_no_other(self, answered: list[list[bool]], full: bool) -> None:
        n_rows, masks = len(answered), np.array(answered, np.bool_)
        batch = EventBatch.of_events([{}] * n_rows)
        for k in range(3):
            mask = None if full and k == 1 else masks[:, k]
            versions = [f"{row}" for row in range(n_rows)]
            fields = {"label": [f"<{row}>" for row in range(n_rows)], "value": np.arange(n_rows) * 0.5}
            batch.outputs[f"m{k}"] = ModelOutput(versions if k else "v", fields, mask)
        encoder = PredictionEncoder("p")
        texts = encoder.encode(batch)
        for row, text in enumerate(texts):
            assert orjson.loads(text)["predictions"] == {
                f"m{k}": {"version": str(row) if k else "v", "label": f"<{row}>", "value": row * 0.5}
                for k in range(3)
                if masks[row, k] or (full and k == 1)
            }
            assert encoder.encode(batch.select(np.array([row]))) == [text]
            assert encoder.encode(EventBatch.concat([batch, batch.select(slice(row, row + 1))]))[-1] == text
