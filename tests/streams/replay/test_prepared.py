from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.generator import Cells
from modelstream.streams.replay.matching import hash_ids
from modelstream.streams.replay.prepared import KEYS, RECORDS, VALUES, TimedRecord, prepare, without_times
from modelstream.streams.spec import SourceSpec

SOURCE = SourceSpec(topic="t", key="k", event_id="id", event_time="at")


def event(event_id: str, at: str, key: str = "k") -> tuple[bytes | None, bytes]:
    return key.encode(), orjson.dumps({"id": event_id, "at": at})


def test_records_are_laid_down_as_they_are(tmp_path: Path) -> None:
    records: list[TimedRecord] = [(b"k1", b"one", 1), (None, b"", 2), (b"", None, 3), (b"k2", b"four", 4)]
    prepare(records, SourceSpec(topic="t"), 2, tmp_path)
    table = np.load(tmp_path / RECORDS)
    values, keys = Cells(tmp_path / VALUES, table["n_value"]), Cells(tmp_path / KEYS, table["n_key"])
    assert values.part(0, 4) == [b"one", b"", None, b"four"]
    assert keys.part(1, 4) == [None, b"", b"k2"]


def test_ids_and_times_are_read_as_the_pipeline_reads_them(tmp_path: Path) -> None:
    records = [event("a", "1970-01-01T00:00:01Z"), (b"k", b"{"), event("b", "1970-01-01T00:00:03Z")]
    events = prepare(without_times(records), SOURCE, 2, tmp_path)
    assert events.times_ms.tolist() == [1000, 1000, 3000]  # an event that cannot be read is due with the one before
    assert events.hashes_at("t", np.zeros(2, np.int64)).tolist() == hash_ids(["a", "", "b"]).tolist()


def test_a_pace_by_times_that_no_event_has_is_refused(tmp_path: Path) -> None:
    timeless = [(b"k", b'{"id": "a"}'), (b"k", b"{")]
    with pytest.raises(ConfigError, match=r"source\.event_time: none of 2 events can be read with a time in 'at'"):
        prepare(without_times(timeless), SOURCE, 1, tmp_path, needs_times=True)
    prepare(without_times(timeless), SOURCE, 1, tmp_path)
    prepare(without_times([*timeless, event("b", "1970-01-01T00:00:03Z")]), SOURCE, 1, tmp_path, needs_times=True)


def test_without_an_event_time_the_timestamps_count(tmp_path: Path) -> None:
    events = prepare([(None, b"{}", 7), (None, b"{}", 9)], SourceSpec(topic="t"), 1, tmp_path)
    assert events.times_ms.tolist() == [7, 9]


def test_without_an_event_id_the_place_in_kafka_tells_events_apart(tmp_path: Path) -> None:
    events = prepare(without_times([(None, b"{}")] * 4), SourceSpec(topic="t"), 2, tmp_path)
    assert events.partitions.tolist() == [0, 1, 0, 1]
    found = events.hashes_at("other", np.array([5, 0]))
    assert found.tolist() == hash_ids(["other/0/5", "other/1/0", "other/0/6", "other/1/1"]).tolist()


def test_a_key_has_the_partition_that_java_gives_it(tmp_path: Path) -> None:
    # From the tests of Kafka's own Utils.murmur2: "21" is -973932308, "foobar" -790332482.
    records = without_times([(b"21", b"{}"), (b"foobar", b"{}")])
    events = prepare(records, SourceSpec(topic="t"), 97, tmp_path)
    assert events.partitions.tolist() == [(-973932308 & 0x7FFFFFFF) % 97, (-790332482 & 0x7FFFFFFF) % 97]


def test_more_than_one_chunk_and_a_limit(tmp_path: Path) -> None:
    seen: list[int] = []
    records = without_times((None, b"{}") for _ in range(10_000))
    events = prepare(records, SourceSpec(topic="t"), 3, tmp_path, limit=9000, on_progress=seen.append)
    assert len(events) == 9000
    assert events.partitions.tolist() == [i % 3 for i in range(9000)]
    assert seen == [4096, 8192, 9000]


def test_no_event_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no events to replay"):
        prepare([], SOURCE, 1, tmp_path)
