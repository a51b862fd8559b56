"""The benchmark's own check must notice whatever can be wrong with outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson
import pytest
from benchmarks.checks import RunFailed, check_outputs
from benchmarks.cluster import Cluster
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.workload import event_id
from support.kafka_tools import produce_all

WORKLOAD = WORKLOADS["mlp-20"]

EXPECTED = np.linspace(1, 2, 50, dtype=np.float32).reshape(50, 1)

WriteOutputs = Callable[[Sequence[tuple[int, float]]], str]


@pytest.fixture
def cluster(kafka) -> Iterator[Cluster]:
    cluster = Cluster(kafka.bootstrap)
    yield cluster
    cluster.close()


@pytest.fixture
def write_outputs(kafka, make_topics) -> WriteOutputs:
    def write(rows: Sequence[tuple[int, float]]) -> str:
        (topic,) = make_topics(kafka, "outputs", partitions=2, message_timestamp_type="LogAppendTime")
        produce_all(kafka.bootstrap, topic, [orjson.dumps({"event_id": event_id(i), "value": v}) for i, v in rows])
        return topic

    return write


def _right() -> list[tuple[int, float]]:
    return list(enumerate(EXPECTED[:, 0].tolist()))


@pytest.mark.kafka
def test_right_outputs_in_any_order_pass_and_have_append_times(cluster: Cluster, write_outputs: WriteOutputs) -> None:
    outputs = check_outputs(cluster, write_outputs(_right()[::-1]), WORKLOAD, EXPECTED)
    assert sorted(outputs.numbers.tolist()) == list(range(len(EXPECTED)))
    assert outputs.append_ms is not None
    assert outputs.append_ms.shape == outputs.numbers.shape


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (_right()[1:], "1 lost, 0 repeated, 0 wrong, 0 not due, 0 of unknown"),
        ([*_right(), _right()[7], _right()[7]], "0 lost, 2 repeated, 0 wrong"),
        ([(0, 1.00002), *_right()[1:]], "0 lost, 0 repeated, 1 wrong"),
        ([(0, float("nan")), *_right()[1:]], "1 wrong"),
        ([*_right(), (50, 1.0)], "0 wrong, 0 not due, 1 of unknown events"),
    ],
)
def test_anything_else_fails(cluster: Cluster, write_outputs: WriteOutputs, rows, complaint: str) -> None:
    with pytest.raises(RunFailed, match=complaint):
        check_outputs(cluster, write_outputs(rows), WORKLOAD, EXPECTED)


@pytest.mark.kafka
def test_an_output_that_is_not_due_fails(cluster: Cluster, write_outputs: WriteOutputs) -> None:
    expected = EXPECTED.copy()
    expected[7] = np.nan
    check_outputs(cluster, write_outputs([*_right()[:7], *_right()[8:]]), WORKLOAD, expected)
    with pytest.raises(RunFailed, match="0 lost, 0 repeated, 0 wrong, 1 not due"):
        check_outputs(cluster, write_outputs(_right()), WORKLOAD, expected)
