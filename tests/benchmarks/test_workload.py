"""The job of the benchmark: the same for everybody, and with answers that a tolerance relative to them suits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
import pytest
from benchmarks import workload


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    workload.write_model(path)
    return path


def test_records_are_distinct_events_of_about_200_bytes() -> None:
    records = list(workload.records(3000))
    events = [orjson.loads(record) for record in records]
    assert [workload.event_number(event["id"]) for event in events] == list(range(3000))
    assert len({tuple(event["features"]) for event in events}) == 3000
    assert {len(event["features"]) for event in events} == {workload.N_FEATURES}
    assert 150 < np.mean([len(record) for record in records]) < 250


def test_a_record_does_not_depend_on_how_many_there_are() -> None:
    many = list(workload.records(workload.BLOCK + 3))
    assert len(many) == workload.BLOCK + 3
    assert many[:10] == list(workload.records(10))
    assert many[-1] != many[2]


def test_model_is_written_alike_every_time(model: Path, tmp_path: Path) -> None:
    workload.write_model(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == model.read_bytes()


def test_expected_values_are_those_of_the_decoded_records(model: Path) -> None:
    n = 500
    rows = np.array([orjson.loads(record)["features"] for record in workload.records(n)], np.float32)
    expected = workload.expected_values(model, n)
    together = ort.InferenceSession(model).run(None, {"features": rows})[0][:, 0]
    np.testing.assert_allclose(together, expected, rtol=1e-6)
    # A relative tolerance needs values away from zero; a check needs values that differ.
    assert expected.min() > 1
    assert len(np.unique(expected)) > 0.99 * n
