"""The jobs of the benchmark: the same for everybody, and with answers that their tolerance suits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
import pytest
from benchmarks.systems.common import Job
from benchmarks.systems.scoring import features_of, open_score
from benchmarks.workloads import WORKLOADS, Workload
from benchmarks.workloads.workload import BLOCK, values_of

VECTORS = [name for name, workload in WORKLOADS.items() if workload.kind != "event"]


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> Workload:
    return WORKLOADS[request.param]


@pytest.mark.parametrize(
    ("name", "n_bytes"), [("mlp-20", 200), ("ffnn-784", 8_600), ("ffnn-784-csv", 8_600), ("cnn", 2_850)]
)
def test_records_have_about_the_size_that_the_workload_is_known_for(name: str, n_bytes: int) -> None:
    assert np.mean([len(record) for record in WORKLOADS[name].records(200)]) == pytest.approx(n_bytes, rel=0.1)


@pytest.mark.parametrize("name", VECTORS)
def test_records_hold_the_features_that_the_model_sees(name: str) -> None:
    workload = WORKLOADS[name]
    events = [orjson.loads(record) for record in workload.records(300)]
    assert [workload.event_number(event["id"]) for event in events] == list(range(300))
    assert {type(event["features"]) for event in events} == {str if workload.kind == "csv" else list}
    rows = np.array([features_of(event) for event in events], np.float32)
    assert rows.shape == (300, workload.width)
    np.testing.assert_array_equal(rows, workload.features(300))
    assert len(np.unique(rows, axis=0)) == 300


def test_both_forms_of_a_vector_hold_the_same() -> None:
    np.testing.assert_array_equal(WORKLOADS["ffnn-784"].features(20), WORKLOADS["ffnn-784-csv"].features(20))


def test_a_record_does_not_depend_on_how_many_there_are() -> None:
    workload = WORKLOADS["mlp-20"]
    many = list(workload.records(BLOCK + 3))
    assert len(many) == BLOCK + 3
    assert many[:10] == list(workload.records(10))
    assert many[-1] != many[2]
    assert len(workload.features(BLOCK + 3)) == BLOCK + 3


@pytest.mark.parametrize("name", VECTORS)
def test_the_model_is_written_alike_every_time_and_gives_what_is_expected(name: str, tmp_path: Path) -> None:
    workload = WORKLOADS[name]
    model = workload.write_model(tmp_path / "a")
    assert model.read_bytes() == workload.write_model(tmp_path / "b").read_bytes()
    expected = workload.expected(300)
    assert expected.shape == (300, workload.n_outputs)
    together = ort.InferenceSession(model).run(None, {"features": workload.features(300)})[0]
    np.testing.assert_allclose(together, expected, rtol=workload.tolerance.relative)
    # A relative tolerance needs values away from zero; a check needs values that differ.
    assert expected.min() > 1
    assert len(np.unique(expected)) > 0.9 * expected.size


@pytest.mark.parametrize("many", [1, 400])
def test_the_peers_score_as_expected_alone_and_together(workload: Workload, many: int, tmp_path: Path) -> None:
    n = 400
    job = Job("", "", "", "", workload.name, workload.write_model(tmp_path), tmp_path)
    score, records = open_score(job), list(workload.records(n))
    outputs = [orjson.loads(output) for i in range(0, n, many) for output in score(records[i : i + many])]
    expected = workload.expected(n)
    due = np.flatnonzero(~np.isnan(expected[:, 0])).tolist()
    assert [workload.event_number(output["event_id"]) for output in outputs] == due
    found = np.array([values_of(output) for output in outputs])
    np.testing.assert_allclose(found, expected[due], rtol=workload.tolerance.relative, atol=workload.tolerance.absolute)


def test_of_a_cancelled_flight_nothing_is_due() -> None:
    workload = WORKLOADS["flights"]
    cancelled = [orjson.loads(record)["dep_delay"] is None for record in workload.records(2_000)]
    assert any(cancelled)
    assert np.isnan(workload.expected(2_000)[:, 0]).tolist() == cancelled
    assert workload.event_number("2013-01-01-XX1-EWR-0000") < 0
