"""Failures that are not one row's: the worker ends with one message and an exit code, and commits nothing too far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.kafka_tools import committed_offsets, create_topic
from support.streams import KnownStream, wait_for

from modelstream.streams.worker_process import WorkerFailed

pytestmark = pytest.mark.kafka

_HANGING = """\
import time

def slow(batch):
    if any(event["seq"] == 777 for event in batch.events):
        time.sleep(3600)
    return {}
"""


DELIVERIES = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])


@DELIVERIES
def test_a_stage_that_hangs_does_not_keep_the_worker_from_ending(
    make_stream: Callable[..., KnownStream], delivery: str
) -> None:
    stream = make_stream(partitions=1)
    (stream.folder / "hanging.py").write_text(_HANGING, encoding="utf-8")
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(
        text.replace("stages:", "stages:\n  - id: slow\n    extract: hanging:slow"), encoding="utf-8"
    )
    stream.send(range(500))
    with stream.worker(f"--set=delivery={delivery}") as worker:
        stream.wait_until_committed(worker)
        stream.send([777])
        wait_for(lambda: worker.stats().get("open_batches") == 1, "the stage to hang", worker)
        worker.stop()  # exit code 0, within its deadline
    assert committed_offsets(stream.bootstrap, stream.group, stream.source) == {0: 500}
    assert stream.outcome(range(500)).is_clean


@DELIVERIES
def test_outputs_that_the_broker_refuses_end_the_worker_and_are_not_committed(
    make_stream: Callable[..., KnownStream], kafka: Any, delivery: str
) -> None:
    stream = make_stream(partitions=1)
    narrow = f"{stream.sink}-narrow"
    create_topic(kafka.bootstrap, narrow, 1, {"max.message.bytes": "100"})
    stream.send(range(500))
    options = [f"--set=sink.topic={narrow}", f"--set=sink.dead_letter={stream.dead}", f"--set=delivery={delivery}"]
    with stream.worker(*options) as worker, pytest.raises(WorkerFailed, match="ended with code 1") as failure:
        wait_for(lambda: False, "the worker to end", worker)
    message = str(failure.value)
    assert f"cannot produce to {narrow}" in message
    assert "Message size too large" in message
    assert "Traceback" not in message
    assert stream.lag() == 500
