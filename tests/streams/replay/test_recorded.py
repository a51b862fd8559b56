"""A topic read in the order of its timestamps, captured to a file, and read from it: every byte as it was."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.kafka_tools import Outgoing, produce_all, read_all

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.streams.replay import capture, recorded
from modelstream.streams.replay.capture import CaptureFile, is_capture, write_capture
from modelstream.streams.replay.recorded import RecordedBatch, read_recorded
from modelstream.streams.settings import BrokerSettings

START_MS = 1_700_000_000_000


def flat(batches):
    return [
        (int(p), int(o), int(ms), key, value, tuple(headers or ()))
        for batch in batches
        for p, o, ms, key, value, headers in zip(
            batch.partitions, batch.offsets, batch.timestamps_ms, batch.keys, batch.values, batch.headers, strict=True
        )
    ]


def batch(n, *, topic="t", headers=None, first=0, size=40):
    rng = random.Random(n + first)
    return RecordedBatch(
        topic,
        np.arange(n, dtype=np.int32) % 3,
        np.arange(first, first + n),
        START_MS + np.arange(first, first + n),
        [None if i % 4 == 0 else rng.randbytes(i % 9) for i in range(n)],
        [None if i % 5 == 0 else rng.randbytes(size) for i in range(n)],
        headers or [None] * n,
    )


@pytest.fixture
def topic(kafka, make_topics):
    """Three partitions with records of all kinds, timestamps not in the order of their offsets."""
    (name,) = make_topics(kafka, "recorded", partitions=3)
    rng = random.Random(1)
    records = [
        Outgoing(
            None if i % 50 == 7 else rng.randbytes(rng.randrange(60)),
            None if i % 3 else rng.randbytes(rng.randrange(6)),
            partition=min(rng.randrange(6), 2),
            timestamp_ms=START_MS + i * 10 + rng.randrange(-40, 40),
            headers=[("trace", rng.randbytes(4)), ("trace", b""), ("é", b"\xff")] if i % 9 == 0 else (),
        )
        for i in range(2000)
    ]
    produce_all(kafka.bootstrap, name, records)
    return BrokerSettings(kafka.bootstrap), name


@pytest.mark.kafka
def test_a_topic_is_read_by_time_kept_in_a_file_and_read_again_as_it_was(topic, tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_GROUP_ROWS", 300)  # several row groups
    monkeypatch.setattr(recorded, "_BATCH_ROWS", 100)
    monkeypatch.setattr(recorded, "_WAITING_BYTES", 3000)  # partitions that are ahead have to wait
    settings, name = topic
    held = read_all(settings.bootstrap, name)

    found = flat(read_recorded(settings, name))

    latest: dict[int, int] = {}
    order = []
    for record in held:
        latest[record.partition] = max(record.timestamp_ms, latest.get(record.partition, 0))
        order.append((latest[record.partition], record.partition, record.offset, record))
    due = [
        (r.partition, r.offset, r.timestamp_ms, r.key, r.value, r.headers)
        for *_, r in sorted(order, key=lambda one: one[:3])
    ]
    assert found == due
    file = tmp_path / "topic.parquet"
    summary = write_capture(file, name, read_recorded(settings, name))
    assert is_capture(file)
    captured = CaptureFile(file)
    assert (captured.topic, captured.n_records, summary.n_records) == (name, 2000, 2000)
    assert flat(captured.batches()) == due
    times = [record.timestamp_ms for record in held]
    assert (summary.first_ms, summary.last_ms, summary.n_bytes) == (min(times), max(times), file.stat().st_size)
    assert pq.ParquetFile(file).num_row_groups > 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.kafka
def test_since_until_and_limit(topic):
    settings, name = topic
    held = read_all(settings.bootstrap, name)
    since_ms, until_ms = START_MS + 5000, START_MS + 9000

    def first(partition, time_ms):
        later = [r.offset for r in held if r.partition == partition and r.timestamp_ms >= time_ms]
        return min(later, default=10**9)

    due = {
        (r.partition, r.offset) for r in held if first(r.partition, since_ms) <= r.offset < first(r.partition, until_ms)
    }
    announced = []
    found = flat(read_recorded(settings, name, since_ms=since_ms, until_ms=until_ms, on_start=announced.append))
    assert {one[:2] for one in found} == due
    assert announced == [len(due)]
    assert [one[:2] for one in flat(read_recorded(settings, name, since_ms=since_ms, limit=25))] == [
        one[:2] for one in found[:25]
    ]
    assert flat(read_recorded(settings, name, since_ms=START_MS + 10**6)) == []
    assert flat(read_recorded(settings, name, until_ms=START_MS - 10**6)) == []


def test_bytes_headers_and_nulls_go_through_a_file(tmp_path):
    headers = [None, [], [("a", None), ("a", b"\xff\x00"), ("é", b"")]]
    one = batch(3, headers=headers)
    file = tmp_path / "c.parquet"
    write_capture(file, "t", [one])
    [back] = CaptureFile(file).batches()
    assert (back.keys, back.values, back.headers) == (one.keys, one.values, headers)
    assert flat([back]) == flat([one])


def test_row_groups_are_bounded_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_GROUP_BYTES", 10_000)
    file = tmp_path / "c.parquet"
    write_capture(file, "t", (batch(10, first=10 * i, size=1000) for i in range(20)))
    groups = pq.ParquetFile(file).metadata
    assert groups.num_rows == 200
    assert all(groups.row_group(i).num_rows <= 20 for i in range(groups.num_row_groups))


def test_an_empty_capture_is_one_all_the_same(tmp_path):
    file = tmp_path / "c.parquet"
    summary = write_capture(file, "t", [])
    assert (summary.n_records, summary.first_ms, CaptureFile(file).n_records) == (0, None, 0)
    assert list(CaptureFile(file).batches()) == []


def test_what_ends_early_leaves_the_old_file_alone(tmp_path):
    file = tmp_path / "c.parquet"
    write_capture(file, "old", [batch(1)])

    def interrupted():
        yield batch(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_capture(file, "t", interrupted())
    assert CaptureFile(file).topic == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_other_files_are_told_apart(tmp_path):
    table, text, newer = tmp_path / "t.parquet", tmp_path / "x.parquet", tmp_path / "n.pq"
    pq.write_table(pa.table({"value": [1]}), table)
    text.write_text("no Parquet")
    pq.write_table(pa.table({"value": [1]}).replace_schema_metadata({"modelstream.capture": "2"}), newer)
    assert [is_capture(file) for file in (table, text, tmp_path / "gone.parquet", tmp_path / "x.csv", newer)] == [
        False, False, False, False, True,
    ]  # fmt: skip
    for file, said in ((table, "holds no captured records"), (text, "cannot be read"), (newer, "a newer modelstream")):
        with pytest.raises(ConfigError, match=f"{file.name}: .*{said}"):
            CaptureFile(file)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone/c\.parquet: cannot be written: "):
        write_capture(tmp_path / "gone" / "c.parquet", "t", [])


def test_a_broken_file_says_so(tmp_path):
    file = tmp_path / "c.parquet"
    write_capture(file, "t", [batch(5000, size=200)])
    captured = CaptureFile(file)
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\0" * 20_000)
    with pytest.raises(DecodeError, match=r"c\.parquet: "):
        list(captured.batches())
