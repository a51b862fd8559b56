"""The main job on real input: flights in by the command line, three models' predictions out, counted and compared."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pyarrow.parquet as pq
import pytest
from support.kafka_tools import committed_offsets, delete_topics, end_offsets, read_all
from support.runs import plain_environment
from support.streams import wait_for

from modelstream.examples.flights.data import CANCELLED, FLIGHTS, encoded_events
from modelstream.examples.flights.verify import compare
from modelstream.streams.worker_process import WorkerProcess

#: All 336,776 flights, each prediction compared, take a minute or two; the first six weeks say nearly as much.
FULL = os.environ.get("MODELSTREAM_FULL") == "1"
N_EVENTS = FLIGHTS if FULL else 40_000
#: Every how manyth prediction is compared with ONNX Runtime run on its row alone.
COMPARE_EVERY = 1 if FULL else 6
PARTITIONS = 6
PIPELINE = Path(str(files("modelstream"))) / "examples" / "flights" / "pipeline.yaml"
DEADLINE_S = 240.0


def modelstream(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ours to its end, which must be a good one."""
    kept = plain_environment()
    command = [sys.executable, "-m", "modelstream", *map(str, arguments)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, env=kept, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done


@dataclass
class Flights:
    """The example's pipeline on topics of its own, made by the command line."""

    bootstrap: str
    name: str

    def __post_init__(self) -> None:
        self.group = f"{self.name}.group"
        self.source, self.sink, self.dead = (f"{self.name}.{role}" for role in ("events", "predictions", "dead"))
        overrides = {
            "pipeline": self.group,
            "source.topic": self.source,
            "sink.topic": self.sink,
            "sink.dead_letter": self.dead,
        }
        self.overrides = [f"--set={key}={value}" for key, value in overrides.items()]
        self.options = ["--broker", self.bootstrap, *self.overrides]

    def call(self, command: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        """Run ``modelstream COMMAND PIPELINE …``."""
        return modelstream(command, PIPELINE, *arguments, *self.options)

    def worker(self) -> WorkerProcess:
        """Return a worker, not started yet."""
        return WorkerProcess([str(PIPELINE), *self.options])

    def stands_at_the_end(self) -> bool:
        """Whether the group's committed offsets are the ends of its partitions."""
        committed = committed_offsets(self.bootstrap, self.group, self.source)
        return committed == end_offsets(self.bootstrap, self.source)


@pytest.fixture
def flights(kafka: Any) -> Iterator[Flights]:
    """Make the topics as a user does."""
    flights = Flights(kafka.bootstrap, f"flights-{uuid4().hex[:8]}")
    said = flights.call("topics", "--partitions", PARTITIONS).stdout.decode()
    assert said.count("created") == 3
    yield flights
    delete_topics(kafka.bootstrap, [flights.source, flights.sink, flights.dead])


def _by_key(lines: Iterable[bytes]) -> dict[str | None, list[bytes]]:
    """Return the predictions of each key, in their order."""
    found: dict[str | None, list[bytes]] = {}
    for line in lines:
        found.setdefault(orjson.loads(line)["key"], []).append(line)
    return found


def _inversions(order: list[tuple[str | None, int]]) -> int:
    """Return how often an event comes after a later one of its key."""
    last: dict[str | None, int] = {}
    n_inversions = 0
    for key, position in order:
        n_inversions += last.get(key, -1) >= position
        last[key] = position
    return n_inversions


def _partition_of_keys(bootstrap: str, topic: str) -> dict[bytes, int]:
    """Return where each key is, after a look that it is in one partition only."""
    places = {(record.key, record.partition) for record in read_all(bootstrap, topic) if record.key is not None}
    assert max(Counter(key for key, _ in places).values()) == 1
    return dict(places)


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_flights_by_the_command_line_with_two_workers(flights: Flights, tmp_path: Path) -> None:
    values = [value for _, value in encoded_events(N_EVENTS)]
    events = [orjson.loads(value) for value in values]
    positions = {event["id"]: position for position, event in enumerate(events)}
    due = {event["id"] for event in events if event["dep_delay"] is not None}
    file = tmp_path / "flights.ndjson"
    file.write_bytes(b"".join(value + b"\n" for value in values))

    with flights.worker() as first, flights.worker() as second:
        workers = first, second
        wait_for(lambda: [len(w.stats().get("partitions", ())) for w in workers] == [3, 3], "a fair share", *workers)
        flights.call("produce", file)
        wait_for(flights.stands_at_the_end, "the group to commit everything", *workers)
        done = [worker.stats() for worker in workers]
        for worker in workers:
            worker.stop()
    assert flights.stands_at_the_end()
    assert min(stats["events"] for stats in done) > 0
    totals = {name: sum(stats[name] for stats in done) for name in ("events", "filtered", "predictions")}
    assert totals == {"events": N_EVENTS, "filtered": N_EVENTS - len(due), "predictions": len(due)}
    if FULL:
        assert len(due) == FLIGHTS - CANCELLED

    lines = flights.call("consume", "--from-beginning", "--until-end").stdout.splitlines()
    predictions = [orjson.loads(line) for line in lines]
    found = Counter(prediction["event_id"] for prediction in predictions)
    assert found == Counter(due)  # each once, and no other
    assert _inversions([(p["key"], positions[p["event_id"]]) for p in predictions]) == 0
    assert flights.call("consume", "--from-beginning", "--until-end", "--dead-letters").stdout == b""

    answers = {prediction["event_id"]: prediction["predictions"] for prediction in predictions}
    n_compared, _, differing = compare(values[::COMPARE_EVERY], answers)
    assert n_compared >= (len(due) if FULL else 5_000)
    assert not differing
    for name in ("batch.ndjson.gz", "batch.parquet"):
        modelstream("batch", PIPELINE, file, tmp_path / name, *flights.overrides)
    written = gzip.decompress((tmp_path / "batch.ndjson.gz").read_bytes()).splitlines()
    assert _by_key(written) == _by_key(lines)  # byte for byte, whatever the worker's micro-batches were
    assert [value.encode() for value in pq.read_table(tmp_path / "batch.parquet")["value"].to_pylist()] == written
    sources = _partition_of_keys(flights.bootstrap, flights.source)
    sinks = _partition_of_keys(flights.bootstrap, flights.sink)
    assert sinks.items() <= sources.items()


@pytest.mark.embedded
def test_the_demo_writes_its_summary_as_json(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    events = [orjson.loads(value) for _, value in encoded_events(3_000)]
    filtered = sum(event["dep_delay"] is None for event in events)
    done = modelstream("demo", "--events", 3_000, "--json", file, "--verify")
    summary = orjson.loads(file.read_bytes())
    rates = [summary.pop(name) for name in ("events_per_s", "p50_ms", "p99_ms", "seconds")]
    assert summary.pop("cache_hits") + summary.pop("cache_misses") == 3_000 - filtered
    assert summary == {
        "events": 3_000,
        "filtered": filtered,
        "predictions": 3_000 - filtered,
        "dead_letters": 0,
        "missing": 0,
        "duplicates": 0,
        "out_of_order": 0,
    }
    assert all(rate > 0 for rate in rates)
    assert rates[1] <= rates[2]
    for shown in ("3,000", f"{3_000 - filtered:,}"):
        assert shown in done.stdout.decode()
    assert f"{3_000 - filtered:,} predictions compared" in done.stderr.decode()
