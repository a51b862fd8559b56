"""Events of files in the formats that records may have: the same events, whatever the file and the format."""

from __future__ import annotations

import datetime
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import ormsgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.streams.event_files import FileFormat, open_events
from modelstream.streams.spec import F32Format

F32 = F32Format(f32=3, field="x")


def read(file: Path, source_format: Any, key: str | None = None, **options: Any) -> list[tuple[bytes | None, bytes]]:
    return list(open_events(file, None, key, source_format=source_format, **options).records())


def read_until_error(file: Path, source_format: Any) -> tuple[list[bytes], str]:
    records = []
    with pytest.raises(DecodeError) as caught:
        records.extend(value for _, value in open_events(file, None, None, source_format=source_format).records())
    return records, str(caught.value)


def vectors(records: list[tuple[bytes | None, bytes]]) -> list[list[float]]:
    return [np.frombuffer(value, "<f4").tolist() for _, value in records]


# -- MessagePack


def test_lines_become_maps(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"k": "a", "x": [1, 2.5]}\n\n  \n{"k": null, "n": 18446744073709551615}\r\n')
    records = read(file, "msgpack", "k")
    assert [(key, ormsgpack.unpackb(value)) for key, value in records] == [
        (b"a", {"k": "a", "x": [1, 2.5]}),
        (None, {"k": None, "n": 2**64 - 1}),
    ]


@pytest.mark.parametrize("source_format", ["json", "msgpack"])
def test_a_key_may_stand_anywhere(tmp_path: Path, source_format: str) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"a": [{"b": "N1"}], "c.d": 7}\n{"a": []}\n{"a": "text"}\n')
    assert [key for key, _ in read(file, source_format, "a[0].b")] == [b"N1", None, None]
    assert [key for key, _ in read(file, source_format, "['c.d']")] == [b"7", None, None]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"a":1}\n\n{"a":\n{"a":2}\n')
    records, message = read_until_error(file, "msgpack")
    assert records == [ormsgpack.packb({"a": 1})]
    assert message.startswith(f"{file}:3: no JSON: ")
    file.write_bytes(b'{"a":1}\n[1]\n')
    assert read_until_error(file, "msgpack")[1] == f"{file}:2: no JSON object; NDJSON has one event a line"


@pytest.mark.parametrize("source_format", ["msgpack", F32])
def test_as_is_sends_the_lines_themselves(tmp_path: Path, source_format: Any) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"k":"a"}\n{"broken\n\n')
    key = "k" if source_format == "msgpack" else None
    values = [b'{"k":"a"}', b'{"broken', b""]
    assert read(file, source_format, key, as_is=True) == [
        (b"a" if key else None, values[0]),
        *((None, v) for v in values[1:]),
    ]


def test_a_csv_becomes_maps(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_bytes(b"k,x,ok\nN1,2.5,true\n,,FALSE\n")
    assert [(key, ormsgpack.unpackb(value)) for key, value in read(file, "msgpack", "k")] == [
        (b"N1", {"k": "N1", "x": 2.5, "ok": True}),
        (None, {"k": None, "x": None, "ok": False}),
    ]
    file.write_bytes(b"k\n\xff\n")
    assert read_until_error(file, "msgpack")[1] == f"{file}:2: not UTF-8"


def test_parquet_is_the_same_in_both_formats_but_for_bytes(tmp_path: Path) -> None:
    file = tmp_path / "events.parquet"
    at = datetime.datetime(2013, 1, 1, 10, tzinfo=datetime.UTC)
    table = {
        "at": pa.array([at, None], pa.timestamp("ms", "UTC")),
        "day": pa.array([at.date(), None]),
        "x": pa.array([math.nan, 1.5]),
        "x32": pa.array([math.nan, 1.5], pa.float32()),
        "inner": pa.array([{"a": 1, "b": ["x"]}, None]),
        "price": pa.array([None, __import__("decimal").Decimal("1.25")]),
    }
    pq.write_table(pa.table(table), file)
    as_json, as_msgpack = read(file, "json", "at"), read(file, "msgpack", "at")
    events = [ormsgpack.unpackb(value) for _, value in as_msgpack]
    assert events == [orjson.loads(value) for _, value in as_json]
    assert (events[0]["x"], events[0]["x32"], events[1]["price"]) == (None, None, 1.25)
    assert [key for key, _ in as_msgpack] == [key for key, _ in as_json] == [b"2013-01-01T10:00:00.000Z", None]

    pq.write_table(pa.table({"raw": pa.array([b"\xff\x00"])}), file)
    [(_, value)] = read(file, "msgpack")
    assert ormsgpack.unpackb(value) == {"raw": b"\xff\x00"}


# -- raw vectors


def test_an_event_is_its_list_or_all_its_numbers_in_order(tmp_path: Path) -> None:
    lines = tmp_path / "events.ndjson"
    lines.write_bytes(b'{"id": 7, "x": [1, 2.5, -3]}\n{"a": 1, "b": 2, "c": true}\n')
    assert vectors(read(lines, F32)) == [[1, 2.5, -3], [1, 2, 1]]
    cells = tmp_path / "events.csv"
    cells.write_bytes(b"a,b,c\n1,2,3\n4,5,6.5\n")
    assert vectors(read(cells, F32)) == [[1, 2, 3], [4, 5, 6.5]]
    table = tmp_path / "events.parquet"
    pq.write_table(pa.table({"id": [1, 2], "x": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float32(), 3))}), table)
    assert vectors(read(table, F32)) == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"x": [1, 2]}', "field 'x' has 2 values, not 3"),
        (b'{"x": [[1, 2, 3]]}', "field 'x' has 1 x 3 values, not 3"),
        (b'{"x": [[1], [2, 3]]}', "field 'x' is no list of numbers"),
        (b'{"x": 5}', "field 'x' has no values, not 3"),
        (b'{"x": ["1", "2", "3"]}', "field 'x' has values that are no numbers: a list"),
        (b'{"x": [1, 2, null]}', "field 'x' has values that are no numbers: a list"),
        (b'{"x": [1, 2, 1e39]}', "field 'x' has a number that is not finite in float32"),
        (b'{"y": 1, "z": 2}', "there is no field 'x', and the event has 2 values, not 3"),
        (b"{}", "there is no field 'x', and the event has 0 values, not 3"),
    ],
)
def test_what_is_no_vector_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b'{"x": [1, 2, 3]}\n' + line)
    records, message = read_until_error(file, F32)
    assert (len(records), message) == (1, f"{file}:2: {problem}")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "u1", "?", "<i8"])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 1), (0, 3)])
def test_rows_of_an_array(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(math.prod(shape)) % 2).astype(dtype).reshape(shape)
    file = tmp_path / "events.npy"
    np.save(file, array)
    assert vectors(read(file, F32)) == array.reshape(-1, 3).tolist()
    packed = tmp_path / "events.npy.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read(packed, F32) == read(file, F32)


def test_raw_vectors_one_after_the_other(tmp_path: Path) -> None:
    numbers = np.arange(300_000, dtype="<f4").reshape(-1, 3)  # more than one read
    file = tmp_path / "events.f32"
    file.write_bytes(numbers.tobytes())
    events = open_events(file, None, None, source_format=F32)
    records = list(events.records())
    assert b"".join(value for _, value in records) == numbers.tobytes()
    assert {key for key, _ in records} == {None}
    assert len(records) == 100_000


@pytest.mark.parametrize(
    ("content", "n_records", "problem"),
    [
        (np.arange(7, dtype="<f4").tobytes(), 2, "ends within row 2, which has 4 of 12 bytes"),
        (
            np.array([0, 1, 2, 3, np.inf, 5, np.nan, 7, 8], "<f4").tobytes(),
            1,
            "row 1 has a number that is not finite in float32",
        ),
    ],
)
def test_broken_vectors_are_told_by_their_row(tmp_path: Path, content: bytes, n_records: int, problem: str) -> None:
    file = tmp_path / "events.f32"
    file.write_bytes(content)
    records, message = read_until_error(file, F32)
    assert (len(records), message) == (n_records, f"{file}: {problem}")


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((2, 4)), "an array of shape (2, 4), not (rows, 3)"),
        (np.zeros(3), "an array of shape (3,), not (rows, 3)"),
        (np.asfortranarray(np.zeros((2, 3))), "stands by columns; save np.ascontiguousarray(…) instead"),
        (np.array([["a", "b", "c"]]), "an array of <U1; vectors are of numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray[Any, Any], problem: str) -> None:
    file = tmp_path / "events.npy"
    np.save(file, array)
    assert read_until_error(file, F32) == ([], f"{file}: {problem}")


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x04\x00{{{\n"])
def test_what_is_no_array_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events.npy"
    file.write_bytes(content)
    assert read_until_error(file, F32)[1].startswith(f"{file}: no array of numpy: ")


@pytest.mark.parametrize("source_format", ["json", "msgpack"])
@pytest.mark.parametrize("name", ["events.npy", "events.f32"])
def test_vectors_are_for_pipelines_of_vectors(tmp_path: Path, source_format: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"holds vectors, and the pipeline's events do not; it needs format: \{f32: N\}"
    ):
        open_events(tmp_path / name, None, None, source_format=source_format)


@pytest.mark.parametrize("file_format", ["csv", "parquet", "npy", "f32"])
def test_as_is_is_for_lines(tmp_path: Path, file_format: FileFormat) -> None:
    (tmp_path / "events").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"--as-is: is for lines of NDJSON, not for {file_format}"):
        open_events(tmp_path / "events", file_format, None, as_is=True, source_format=F32)
