"""Events of files: what they become as records, and which line is to blame where they do not."""

from __future__ import annotations

import datetime
import decimal
import gzip
import math

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.streams import event_lines
from modelstream.streams.event_files import format_of, key_bytes, open_events
from modelstream.streams.replay.capture import write_capture


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write_file


def read(file, key=None, form=None, **options):
    return list(open_events(file, form, key, **options).records())


def read_until_error(file, key=None, form=None):
    """Return the records before the error, and its text."""
    records = []
    with pytest.raises(DecodeError) as caught:
        records.extend(open_events(file, form, key).records())
    return records, str(caught.value)


# -- NDJSON


def test_lines_go_out_as_the_bytes_they_are(write):
    lines = [b'{"id": 1,  "x":1.50}', '{"name":"Zürich"}'.encode(), b' {"a":"\\u00e9"} ']
    file = write("events.ndjson", b"\n".join(lines) + b"\n")
    assert read(file) == [(None, line) for line in lines]


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ('{"k": "N14228"}', b"N14228"),
        ('{"k": "Zürich"}', "Zürich".encode()),
        ('{"k": ""}', b""),
        ('{"k": 7}', b"7"),
        ('{"k": -3}', b"-3"),
        ('{"k": 0.5}', b"0.5"),
        ('{"k": true}', b"true"),
        ('{"k": [1, "a"]}', b'[1,"a"]'),
        ('{"k": null}', None),
        ('{"other": 1}', None),
    ],
)
def test_a_field_is_the_key(write, event, key):
    assert read(write("events.ndjson", event), "k") == [(key, event.encode())]


def test_a_key_may_be_nested(write):
    lines = ['{"plane": {"tail": "N1"}}', '{"plane": {}}', '{"plane": 3}', "{}"]
    records = read(write("events.ndjson", "\n".join(lines)), "plane.tail")
    assert [key for key, _ in records] == [b"N1", None, None, None]


def test_line_ends_blank_lines_and_a_byte_order_mark_are_no_part_of_events(write):
    file = write("events.ndjson", b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n{"a":2}\n\n{"a":3}\r')
    assert [value for _, value in read(file)] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


def test_an_empty_file_holds_no_events(write):
    assert read(write("events.ndjson", "")) == []
    assert read(write("more.ndjson", "\n")) == []


@pytest.mark.parametrize("key", [None, "a", "a.b"])
@pytest.mark.parametrize("broken", ["{", "nothing", "[1]", "3", "null", '"text"', '{"a": NaN}', '{"a": 1e999}', "\xff"])
def test_a_broken_line_is_named_and_all_before_it_come_through(write, key, broken):
    file = write("events.ndjson", f'{{"a":1}}\n\n{{"a":2}}\n{broken}\n{{"a":3}}\n'.encode("latin-1"))
    records, message = read_until_error(file, key)
    assert [value for _, value in records] == [b'{"a":1}', b'{"a":2}']
    assert message.startswith(f"{file}:4: no JSON")


def test_lines_are_counted_over_reads(write, monkeypatch):
    monkeypatch.setattr(event_lines, "_READ_BYTES", 100)
    lines = [b'{"id":%d}' % i for i in range(1000)]
    lines[777] = b'{"id":777'
    records, message = read_until_error(write("events.ndjson", b"\n".join(lines)))
    assert [value for _, value in records] == lines[:777]
    assert ":778: " in message


def test_as_is_sends_every_line(write):
    lines = [b'{"k":"a"}', b"{", b"", b"3", b"\xff\x00", b'{"k":"b"}', b" "]
    file = write("events.ndjson", b"\n".join(lines) + b"\n")
    assert read(file, "k", as_is=True) == list(zip([b"a", None, None, None, None, b"b", None], lines, strict=True))
    assert read(file, as_is=True) == [(None, line) for line in lines]


def test_as_is_is_for_lines_only(write):
    with pytest.raises(ConfigError, match="--as-is: is for lines of NDJSON, not for csv"):
        read(write("events.csv", "a\n1\n"), as_is=True)


def test_a_file_without_lines_does_not_fill_the_memory(write, monkeypatch):
    monkeypatch.setattr(event_lines, "_READ_BYTES", 1000)
    monkeypatch.setattr(event_lines, "_MAX_LINE_BYTES", 1 << 20)
    file = write("image.ndjson", b"x" * (1 << 21))
    with pytest.raises(DecodeError, match="a line of more than 1 MiB; is this NDJSON"):
        read(file)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    events=st.lists(st.dictionaries(st.sampled_from("kab"), json_values)),
    read_bytes=st.integers(1, 60),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_events_come_through_whatever_the_reads(tmp_path_factory, events, read_bytes, line_end):
    file = tmp_path_factory.mktemp("any") / "events.ndjson"
    lines = [orjson.dumps(event) for event in events]
    file.write_bytes(b"".join(line + line_end for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_lines, "_READ_BYTES", read_bytes)
        assert read(file, "k") == [(key_bytes(event.get("k")), line) for event, line in zip(events, lines, strict=True)]


# -- gzip, formats, files


def test_gzip_is_seen_by_itself(write):
    packed = gzip.compress(b'{"a":1}\n{"a":2}\n')
    assert len(read(write("events.ndjson.gz", packed))) == 2
    assert len(read(write("events.jsonl", packed))) == 2
    assert read(write("events.csv.gz", gzip.compress(b"a\n1\n"))) == [(None, b'{"a":1}')]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_a_truncated_gzip_file_is_named(write, form):
    packed = gzip.compress(b"".join(b'{"a":%d}\n' % (i * i) for i in range(1000)))
    file = write("events.gz", packed[:-100])
    with pytest.raises(DecodeError, match=r"events\.gz: broken gzip file: "):
        read(file, form=form)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.ndjson", "ndjson"),
        ("a.b.jsonl.gz", "ndjson"),
        ("A.JSON", "ndjson"),
        ("a.csv", "csv"),
        ("a.CSV.GZ", "csv"),
        ("a.parquet", "parquet"),
    ],
)
def test_the_suffix_tells_the_format(tmp_path, name, form):
    assert format_of(tmp_path / name) == form


def test_an_unknown_suffix_asks_for_the_format(write):
    file = write("events.txt", '{"a":1}\n')
    with pytest.raises(ConfigError, match=r"does not tell its format; add --format ndjson\|csv\|parquet\|npy\|f32"):
        open_events(file, None, None)
    assert len(read(file, form="ndjson")) == 1


def test_a_missing_file_is_told_before_anything_starts(write, tmp_path):
    write("events.ndjson", "")
    with pytest.raises(ConfigError, match=r"event\.ndjson: no such file; did you mean 'events\.ndjson'\?"):
        open_events(tmp_path / "event.ndjson", None, None)
    with pytest.raises(ConfigError, match="is a directory"):
        open_events(tmp_path, None, None)
    with pytest.raises(ConfigError, match="is no file name"):
        open_events(tmp_path / "a\0b", None, None)


@pytest.mark.parametrize("name", ["events.ndjson", "events.ndjson.gz", "events.csv", "events.parquet"])
def test_the_share_read_goes_from_nothing_to_all(write, tmp_path, name):
    n = 50_000
    file = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"a": range(n)}), file)
    elif name.endswith(".csv"):
        write(name, "a\n" + "".join(f"{i}\n" for i in range(n)))
    else:
        text = b"".join(b'{"a":%d}\n' % i for i in range(n))
        write(name, gzip.compress(text) if name.endswith(".gz") else text)
    events = open_events(file, None, None)
    assert events.share_read() is None
    shares = [events.share_read() for _ in events.records()]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1


# -- CSV


def csv_events(file, **options):
    return [orjson.loads(value) for _, value in read(file, **options)]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("9" * 5000, "9" * 5000),
        ("1.50", 1.5),
        ("-1e3", -1000.0),
        ("1e999", "1e999"),
        ("007", "007"),
        ("+1", "+1"),
        (".5", ".5"),
        ("1_000", "1_000"),
        ("١٢", "١٢"),
        ("true", True),
        ("FALSE", False),
        ("NA", "NA"),
        ("nan", "nan"),
        (" 1", " 1"),
        ("9E", "9E"),
    ],
)
def test_a_cell_is_what_it_looks_like(write, cell, value):
    (event,) = csv_events(write("events.csv", f"a,b\n{cell},x\n"))
    assert event == {"a": value, "b": "x"}
    assert type(event["a"]) is type(value)


def test_csv_rows_become_events_with_keys(write):
    file = write("events.csv", '\ufefftail,note,n\r\nN1,"a, ""b""\nc",1\r\n\r\n,plain,2\r\n')
    assert read(file, "tail") == [
        (b"N1", b'{"tail":"N1","note":"a, \\"b\\"\\nc","n":1}'),
        (None, b'{"tail":null,"note":"plain","n":2}'),
    ]
    assert [key for key, _ in read(file, "n")] == [b"1", b"2"]


def test_an_empty_csv_file_holds_no_events(write):
    assert read(write("events.csv", "")) == []
    assert read(write("events.csv", "a,b\n")) == []


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"a,b\n1,2\n1\n", 3, "1 cells for 2 columns"),
        (b'a,b\n"x\ny",2\n1,2,3\n', 4, "3 cells for 2 columns"),
        (b"a,b\n1,\xff\n", 2, "not UTF-8"),
        (b"\xff,b\n1,2\n", 2, "not UTF-8"),
        (b"a,a\n1,2\n", 1, "the first line must name each column, and no two of them the same"),
        (b"a,\n1,2\n", 1, "the first line must name each column, and no two of them the same"),
        (b'a,b\n1,"2\n', 2, "unexpected end of data"),
    ],
)
def test_a_broken_row_is_named(write, content, line, problem):
    file = write("events.csv", content)
    _, message = read_until_error(file)
    assert message == f"{file}:{line}: {problem}"


# -- Parquet


def write_parquet(tmp_path, **columns):
    file = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def test_rows_become_events(tmp_path):
    utc = datetime.datetime(2013, 1, 1, 10, 15, 0, 250_000, tzinfo=datetime.UTC)
    at = utc.replace(tzinfo=None)
    file = write_parquet(
        tmp_path,
        tail=pa.array(["N1", None]),
        n=pa.array([1, 2], pa.int32()),
        x=pa.array([1.5, math.nan]),
        ok=pa.array([True, None]),
        naive=pa.array([at, None], pa.timestamp("ms")),
        zoned=pa.array([utc, None], pa.timestamp("us", "America/New_York")),
        nanos=pa.array([1_357_035_300_250_000_999, None], pa.timestamp("ns")),
        seconds=pa.array([at.replace(microsecond=0), None], pa.timestamp("s")),
        day=pa.array([at.date(), None]),
        price=pa.array([decimal.Decimal("1.25"), None]),
        raw=pa.array([b"text", b"\xff"]),
        took=pa.array([datetime.timedelta(seconds=1.5), None]),
        inner=pa.array([{"a": 1, "b": ["x"]}, None]),
        by_name=pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        carrier=pa.array(["UA", None]).dictionary_encode(),
    )
    (key, first), (no_key, second) = read(file, "tail")
    assert (key, no_key) == (b"N1", None)
    assert orjson.loads(first) == {
        "tail": "N1",
        "n": 1,
        "x": 1.5,
        "ok": True,
        "naive": "2013-01-01T10:15:00.250Z",
        "zoned": "2013-01-01T10:15:00.250000Z",
        "nanos": "2013-01-01T10:15:00.250000Z",
        "seconds": "2013-01-01T10:15:00.000Z",  # Parquet has no seconds
        "day": "2013-01-01",
        "price": 1.25,
        "raw": "text",
        "took": 1.5,
        "inner": {"a": 1, "b": ["x"]},
        "by_name": {"a": 1},
        "carrier": "UA",
    }
    nulls = orjson.loads(second)
    assert (nulls.pop("n"), nulls.pop("raw")) == (2, "/w==")
    assert set(nulls.values()) == {None}


def test_a_key_of_parquet_is_the_text_of_the_event(tmp_path):
    at = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC).replace(tzinfo=None)
    file = write_parquet(tmp_path, at=pa.array([at], pa.timestamp("ms")), plane=pa.array([{"tail": "N1"}]))
    assert read(file, "at")[0][0] == b"2013-01-01T00:00:00.000Z"
    assert read(file, "plane.tail")[0][0] == b"N1"


def test_a_file_that_is_no_parquet_is_named(write):
    file = write("events.parquet", "a,b\n1,2\n")
    _, message = read_until_error(file)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message


def test_what_json_cannot_say_is_named(tmp_path):
    file = write_parquet(tmp_path, a=pa.array([[("x", 1), ("x", 2)]], pa.map_(pa.string(), pa.int64())))
    _, message = read_until_error(file)
    assert message.startswith(f"{file}: after row 0: ")


def test_captured_records_are_no_events(tmp_path):
    file = tmp_path / "captured.parquet"
    write_capture(file, "t", [])
    with pytest.raises(ConfigError, match="captured records, not events; `modelstream replay` and `batch` take them"):
        list(open_events(file, None, None).records())


def test_parquet_needs_a_file_and_pyarrow(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="cannot be read from standard input"):
        open_events(None, "parquet", None)
    file = write_parquet(tmp_path, a=[1])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'modelstream\[parquet\]'"):
        open_events(file, None, None)


def test_keys_and_ids_in_csv_keep_their_text(write):
    file = write("events.csv", b"id,n,flag\n12e3,12e3,true\n7,7,no\n,1.50,\n")
    records = list(open_events(file, None, "id", codes={"id", "flag"}).records())
    assert [key for key, _ in records] == [b"12e3", b"7", None]
    assert [orjson.loads(value) for _, value in records] == [
        {"id": "12e3", "n": 12000.0, "flag": "true"},
        {"id": 7, "n": 7, "flag": "no"},
        {"id": None, "n": 1.5, "flag": None},
    ]
