"""Each format from a file to the predictions: produced, read by a worker, consumed; and what is broken put aside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import ormsgpack
import pytest
from numpy.typing import NDArray
from support.kafka_tools import Outgoing, committed_offsets, end_offsets, produce_all, read_all
from support.onnx_factory import mlp, run_plain, write_model
from support.streams import DEADLINE_S, wait_for

from modelstream.streams.worker_process import WorkerProcess

N_VALUES, N_GOOD = 20, 500

_PIPELINE = """\
pipeline: {group}
source: {{topic: {source}, format: {form}, max_record_bytes: 2000, max_depth: 30}}
stages:
  - id: score
    infer: {{models: [mlp]}}
sink: {{topic: {sink}, dead_letter: {dead}}}
broker: {broker}
"""

Row = NDArray[np.float32]


def _raw(*changed: tuple[int, float]) -> bytes:
    numbers = np.zeros(N_VALUES, "<f4")
    for at, value in changed:
        numbers[at] = value
    return numbers.tobytes()


#: How the vector stands in a record: an independent reading, to compare with.
READ: dict[str, Callable[[bytes], Any]] = {
    "json": lambda value: json.loads(value)["x"],
    "msgpack": lambda value: ormsgpack.unpackb(value)["x"],
    "f32": lambda value: np.frombuffer(value, "<f4"),
}
FORMATS = {"json": "json", "msgpack": "msgpack", "f32": f"{{f32: {N_VALUES}, field: x}}"}

#: Broken records of each format, with the stage and the reason of their dead letters.
POISON: dict[str, Mapping[str, tuple[bytes | None, str, str]]] = {
    "json": {
        "null": (None, "source", "undecodable"),
        "cut off": (b'{"x": [1', "source", "undecodable"),
        "MessagePack": (ormsgpack.packb({"x": [0.0] * N_VALUES}), "source", "undecodable"),
        "deep": (b'{"x":' + b"[" * 40 + b"]" * 40 + b"}", "source", "too_deep"),
        "narrow": (b'{"x": [1, 2]}', "score", "wrong_type"),
    },
    "msgpack": {
        "null": (None, "source", "undecodable"),
        "empty": (b"", "source", "undecodable"),
        "JSON": (b'{"x": [1, 2]}', "source", "undecodable"),
        "cut off": (ormsgpack.packb({"x": [0.0] * N_VALUES})[:-3], "source", "undecodable"),
        "two": (ormsgpack.packb({}) * 2, "source", "undecodable"),
        "extension": (b"\x81\xa1x\xd4\x05\x00", "source", "undecodable"),
        "number as key": (b"\x81\x01\x02", "source", "undecodable"),
        "huge length": (b"\x81\xa1x\xdd\xff\xff\xff\xff", "source", "undecodable"),
        "deep": (b"\x81\xa1x" + b"\x91" * 40 + b"\x90", "source", "too_deep"),
        "bottomless": (b"\x91" * 1900, "source", "too_deep"),
        "large": (ormsgpack.packb({"x": "x" * 3000}), "source", "too_large"),
        "NaN": (ormsgpack.packb({"x": [float("nan")] * N_VALUES}), "score", "non_finite"),
        "binary of another length": (ormsgpack.packb({"x": b"12345"}), "score", "wrong_type"),
        "no vector": (ormsgpack.packb({"y": 1}), "score", "missing_field"),
    },
    "f32": {
        "null": (None, "source", "undecodable"),
        "empty": (b"", "source", "undecodable"),
        "short": (_raw()[:-1], "source", "undecodable"),
        "long": (_raw() + b"\0", "source", "undecodable"),
        "JSON": (b'{"x": [1, 2]}', "source", "undecodable"),
        "large": (b"\0" * 2004, "source", "too_large"),
        "NaN": (_raw((3, np.nan)), "source", "non_finite"),
        "infinite": (_raw((0, np.inf), (1, -np.inf)), "source", "non_finite"),
    },
}


def _modelstream(*arguments: object) -> str:
    command = [sys.executable, "-m", "modelstream", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _check(form: str, broker: Any, make_topics: Callable[..., list[str]], folder: Path) -> None:
    source, sink, dead = make_topics(broker, "events", "predictions", "dead", partitions=2)
    group = source.replace("events", "group")
    onnx = mlp((N_VALUES, 16, 1))
    write_model(folder / "models", "mlp", onnx, '[inputs.x]\nfield = "x"\n')
    file = folder / "pipeline.yaml"
    file.write_text(
        _PIPELINE.format(group=group, source=source, sink=sink, dead=dead, broker=broker.bootstrap, form=FORMATS[form])
    )
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N_GOOD, N_VALUES)).astype(np.float32)
    events = folder / "events.ndjson"
    events.write_bytes(b"\n".join(orjson.dumps({"x": row}, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows))

    poison = list(POISON[form].items())
    half = len(poison) // 2
    _modelstream("produce", file, events, "--limit", 1, "--no-progress")
    for some in (poison[:half], poison[half:]):
        records = [Outgoing(value, b"k", headers=[("kind", kind.encode())]) for kind, (value, _, _) in some]
        produce_all(broker.bootstrap, source, records)
        _modelstream("produce", file, events, "--no-progress")
    with WorkerProcess([str(file)]) as worker:
        wait_for(lambda: _lag(broker.bootstrap, group, source) == 0, "the group to commit everything", worker)
        worker.stop()
    predictions = [
        json.loads(line) for line in _modelstream("consume", file, "--from-beginning", "--until-end").splitlines()
    ]
    sent = {f"{source}/{record.partition}/{record.offset}": record for record in read_all(broker.bootstrap, source)}
    good = {place: record for place, record in sent.items() if not dict(record.headers)}
    assert len(good) == 2 * N_GOOD + 1
    assert sorted(record["event_id"] for record in predictions) == sorted(good)
    read = np.array([READ[form](good[record["event_id"]].value or b"") for record in predictions], np.float32)
    [answers] = run_plain(onnx, {"x": read})
    got = np.array([record["predictions"]["mlp"]["value"] for record in predictions], np.float32)
    np.testing.assert_allclose(got, answers[:, 0], rtol=1e-5, atol=1e-6)
    assert {row.tobytes() for row in read} == {row.tobytes() for row in rows}  # no number changed on its way

    found = {}
    for letter in read_all(broker.bootstrap, dead):
        headers = {name: (value or b"").decode() for name, value in letter.headers}
        assert headers["kind"] not in found
        found[headers["kind"]] = (letter.value, headers["modelstream.stage"], headers["modelstream.reason"])
    assert found == POISON[form]


def _lag(bootstrap: str, group: str, topic: str) -> int:
    committed = committed_offsets(bootstrap, group, topic)
    return sum(end - committed.get(partition, 0) for partition, end in end_offsets(bootstrap, topic).items())


@pytest.mark.embedded
@pytest.mark.parametrize("form", FORMATS)
def test_on_the_embedded_broker(
    form: str, embedded_broker: Any, make_topics: Callable[..., list[str]], tmp_path: Path
) -> None:
    _check(form, embedded_broker, make_topics, tmp_path)


@pytest.mark.kafka
@pytest.mark.parametrize("form", ["msgpack", "f32"])
def test_on_apache_kafka(form: str, kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> None:
    _check(form, kafka, make_topics, tmp_path)
