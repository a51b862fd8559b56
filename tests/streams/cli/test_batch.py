"""``modelstream batch``: predictions of a file as records and as columns, dead letters, and exit codes."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.streams.cli.batch import command
from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.prediction_files import open_predictions
from modelstream.streams.replay.capture import write_capture
from modelstream.streams.replay.recorded import RecordedBatch

PIPELINE = """
pipeline: p
source: {topic: in, key: k, event_id: id, event_time: at, priority: {field: urgent}}
stages:
  - {id: known, filter: {present: [x]}}
  - {id: weigh, infer: {models: [weigh], batch: {max_size: 16, target_p99_ms: 5}}}
  - id: say
    rules:
      columns: {high: weigh.value > 100}
      outputs: {verdict: {level: "'high' if high else 'low'", twice: weigh.value * 2}}
sink: {topic: out, flight_record: true}
"""
N = 20_000


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    write_model(tmp_path / "models", "weigh", affine([1.0, 0.5]), '[inputs.x]\nfield = "x"\n')
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    return file


def event(i: int, **fields: Any) -> bytes:
    return orjson.dumps({"id": f"e{i}", "k": f"ü{i % 7}", "at": i, "urgent": i % 10, "x": [i, 1], **fields})


@pytest.fixture
def events(tmp_path: Path) -> Path:
    lines = [event(i) for i in range(N)]
    lines[5], lines[6], lines[7] = b"", b'{"id": 6', event(7, x=None)
    lines[8] = event(8, x="text")
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def batch(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False, catch_exceptions=False)


def test_all_outputs_hold_what_simulate_gives_in_the_order_of_the_events(pipeline: Path, events: Path) -> None:
    outs = [events.with_name(name) for name in ("out.ndjson", "out.jsonl.gz", "out.parquet")]
    for out in outs:
        done = batch(pipeline, events, out, "--no-progress")
        assert done.return_value == 0
    assert done.stderr.startswith(f"predicted {N - 4:,} of {N - 1:,} events in ")
    assert "; 1 filtered, 2 dead letters\n" in done.stderr
    lines = outs[0].read_bytes().splitlines()
    assert gzip.decompress(outs[1].read_bytes()).splitlines() == lines

    simulated = load_pipeline(pipeline).simulate([line for line in events.read_bytes().splitlines() if line])
    by_id = {record["event_id"]: record for record in simulated.predictions}
    assert [orjson.loads(line) for line in lines] == [by_id[f"e{i}"] for i in range(N) if i not in range(5, 9)]

    table = pq.read_table(outs[2])
    assert table.schema.types == [
        pa.string(), pa.string(), pa.string(), pa.timestamp("us", "UTC"), pa.string(), pa.float32(),
        pa.string(), pa.string(), pa.float64(), pa.string(),
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["value"].encode() for row in rows] == lines
    assert {**rows[200], "event_time": None, "value": None, "id": None} == {
        "id": None, "event_id": "e204", "key": "ü1", "event_time": None, "weigh.version": "1", "weigh.value": 204.5,
        "verdict.version": by_id["e204"]["predictions"]["verdict"]["version"], "verdict.level": "high",
        "verdict.twice": 409.0, "value": None,
    }  # fmt: skip
    assert rows[200]["event_time"].isoformat() == "1970-01-01T00:00:00.204000+00:00"
    assert not list(events.parent.glob("*.part"))


def test_dead_letters_are_told_or_kept_and_fail_when_strict(pipeline: Path, events: Path) -> None:
    told = batch(pipeline, events, events.with_name("out.ndjson"), "--limit", 100).stderr
    assert "no event has a field" not in told
    assert "1  undecodable at 'source'\n" in told
    assert "1  wrong_type at 'weigh'\n" in told
    assert "the first: source: undecodable: " in told
    assert "--dead-letters FILE keeps them" in told

    kept = events.with_name("dead.ndjson")
    done = batch(pipeline, events, events.with_name("out.ndjson"), "--dead-letters", kept, "--strict")
    assert done.return_value == 1
    assert len(events.with_name("out.ndjson").read_bytes().splitlines()) == N - 4
    letters = [orjson.loads(line) for line in kept.read_bytes().splitlines()]
    assert [(letter["stage"], letter["reason"], letter["offset"], letter["key"]) for letter in letters] == [
        ("source", "undecodable", 5, None),
        ("weigh", "wrong_type", 7, "ü1"),
    ]
    assert letters[0]["value"] == '{"id": 6'


def test_dead_letters_alone_are_a_failure(pipeline: Path, tmp_path: Path) -> None:
    events, out = tmp_path / "events.ndjson", tmp_path / "out.ndjson"
    events.write_bytes(b"\n".join(event(i, x="text") for i in range(9)))
    done = batch(pipeline, events, out)
    assert (done.return_value, out.read_bytes()) == (1, b"")
    assert "error: no predictions: there are dead letters alone" in done.stderr
    events.write_bytes(b"\n".join(event(i, x=None) for i in range(9)))  # all of them filtered
    assert batch(pipeline, events, out).return_value == 0


def test_what_a_capture_wrote_is_predicted_with_its_keys_and_timestamps(pipeline: Path, tmp_path: Path) -> None:
    pipeline.write_text(PIPELINE.replace(", event_time: at", ""))
    values = [*(event(i) for i in range(40)), None]
    recorded = RecordedBatch(
        "in", np.arange(41, dtype=np.int32) % 3, np.arange(41), 1_000 + np.arange(41),
        [b"key %d" % i for i in range(41)], values, [None] * 41,
    )  # fmt: skip
    file, out = tmp_path / "monday.parquet", tmp_path / "out.ndjson"
    write_capture(file, "in", [recorded])
    done = batch(pipeline, file, out)
    assert done.return_value == 0
    assert done.stderr.startswith("predicted 40 of 41 events in ")
    found = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(record["event_id"], record["key"]) for record in found] == [(f"e{i}", f"key {i}") for i in range(40)]
    assert [record["event_time"] for record in found[:3]] == [
        "1970-01-01T00:00:01Z", "1970-01-01T00:00:01.001000Z", "1970-01-01T00:00:01.002000Z"
    ]  # fmt: skip
    assert batch(pipeline, file, out, "--limit", 7).stderr.startswith("predicted 7 of 7 events in ")


def test_a_key_that_no_event_has_is_told(pipeline: Path, events: Path) -> None:
    told = batch(pipeline, events, events.with_name("out.ndjson"), "--set", "source.key=kk").stderr
    assert "note: no event has a field 'kk' (source.key), so none has a key" in told


def test_events_without_an_id_are_those_of_partition_0(pipeline: Path, tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("k,x0,x1\nN1,1,2\nN2,3,4\n")
    (tmp_path / "plain.yaml").write_text(
        """
pipeline: p
source: {topic: in, key: k}
stages:
  - {id: packed, extract: {columns: {x: {from: x0, dtype: float32}}}}
  - {id: one, infer: {models: [one]}}
sink: {topic: out}
"""
    )
    write_model(tmp_path / "models", "one", affine([1.0]), '[inputs.x]\nfields = ["x"]\n')
    out = tmp_path / "out.ndjson"
    assert batch(tmp_path / "plain.yaml", table, out).return_value == 0
    records = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(one["event_id"], one["key"], one["event_time"]) for one in records] == [
        ("in/0/0", "N1", "1970-01-01T00:00:00Z"),
        ("in/0/1", "N2", "1970-01-01T00:00:00Z"),
    ]


def test_no_events_make_an_empty_file_with_all_columns(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "none.ndjson").write_bytes(b"")
    done = batch(pipeline, tmp_path / "none.ndjson", tmp_path / "none.parquet")
    assert done.return_value == 0
    assert done.stderr.endswith(f"note: {tmp_path / 'none.ndjson'} holds no events\n")
    table = pq.read_table(tmp_path / "none.parquet")
    assert table.num_rows == 0
    assert {"value", "weigh.value", "verdict.level"} <= set(table.column_names)


def test_a_file_that_is_not_finished_is_let_go_in_silence(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_predictions(tmp_path / "out.parquet", {}) as writer:
        writer.write(['{"id":"1","event_id":"a","key":null,"event_time":"2013-01-01T11:00:00Z"}'] * 100_000)
        raise KeyboardInterrupt
    del writer
    gc.collect()  # a complaint of what is freed would fail this test
    assert list(tmp_path.iterdir()) == []


def test_it_reads_and_writes_pipes(pipeline: Path, run: Callable[..., Any]) -> None:
    done = run("batch", pipeline, "-", "-", input=event(1) + b"\n" + event(2) + b"\n")
    assert done.returncode == 0
    assert [orjson.loads(line)["event_id"] for line in done.stdout.splitlines()] == ["e1", "e2"]
    assert done.stderr.startswith("predicted 2 of 2 events in ")


def test_what_cannot_be_is_told_and_leaves_no_file(pipeline: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("id,k,at,x\n1,2\n")
    out = tmp_path / "out.parquet"
    with pytest.raises(DecodeError, match=r"events.csv:2: 2 cells for 4 columns"):
        batch(pipeline, events, out)
    with pytest.raises(ConfigError, match=r"out.txt: predictions are written as .parquet, .ndjson or .ndjson.gz"):
        batch(pipeline, events, tmp_path / "out.txt")
    with pytest.raises(ConfigError, match=r"must be different files"):
        batch(pipeline, tmp_path / "same.ndjson", tmp_path / "same.ndjson")
    with pytest.raises(ConfigError, match=r"none/out.ndjson: cannot be written: No such file or directory"):
        batch(pipeline, events, tmp_path / "none" / "out.ndjson")
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))
