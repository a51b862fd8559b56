"""Micro-batches of real workers on Apache Kafka: merged over partitions, several in flight, held back and drained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from onnx import TensorProto, helper
from support.kafka_tools import Incoming, Outgoing, produce_all, read_all
from support.onnx_factory import build, write_model
from support.streams import KnownStream, wait_for

pytestmark = pytest.mark.kafka

RECORDED = ["--set", "sink.flight_record=true"]


def _flights(stream: KnownStream) -> list[dict[str, Any]]:
    """Return the flight record of each prediction, in the order of the topic's partitions."""
    return [_flight(record) for record in read_all(stream.bootstrap, stream.sink)]


def _flight(record: Incoming) -> dict[str, Any]:
    headers = dict(record.headers)
    assert set(headers) == {"modelstream.flight.score"}
    flight: dict[str, Any] = orjson.loads(headers["modelstream.flight.score"])
    return flight


def _order(stream: KnownStream) -> list[int]:
    """Return the numbers of the events in the order of their predictions."""
    return [
        int(orjson.loads(record.value or b"")["event_id"][1:]) for record in read_all(stream.bootstrap, stream.sink)
    ]


def test_a_micro_batch_has_rows_of_several_partitions(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=12)
    stream.send(range(240), n_keys=240)
    with stream.worker(*RECORDED) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(240)).is_clean
    sizes = [flight["size"] for flight in _flights(stream)]
    # Some 20 rows a partition: more can only come from several.
    assert max(sizes) > 60


def test_a_flight_record_tells_of_the_batch(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    stream.send(range(100))
    with stream.worker(*RECORDED, "--set", "stages[1].infer.batch.max_size=30") as worker:
        stream.wait_until_committed(worker)
        stats = worker.stats()
        worker.stop()
    flights = _flights(stream)
    by_batch = {flight["batch"]: flight for flight in flights}
    assert len(flights) == sum(flight["size"] for flight in by_batch.values()) == 100
    assert max(flight["size"] for flight in flights) == 30
    assert {flight["close_reason"] for flight in flights} <= {"full", "idle"}
    for flight in flights:
        assert flight["models"] == {"triple": "1"}
        assert flight["cache"] is None
        assert flight["age_us"] >= flight["queue_us"] >= 0
        assert flight["service_us"] > 0
    assert stats["batches"]["score"]["rows"] == 100


def test_what_waits_for_more_goes_when_its_time_has_come(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    with stream.worker(*RECORDED, "--set", "stages[1].infer.batch.max_wait_ms=300") as worker:
        worker.wait_until_ready()
        for number in range(5):
            stream.send([number])
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(5)).is_clean
    flights = _flights(stream)
    assert flights[0]["close_reason"] == "deadline"
    assert flights[0]["queue_us"] >= 300_000


def test_sigterm_sends_off_what_waits_for_more(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    with stream.worker(*RECORDED, "--set", "stages[1].infer.batch.max_wait_ms=4000") as worker:
        worker.wait_until_ready()
        stream.send(range(10))
        wait_for(lambda: worker.stats().get("events") == 10, "the events", worker)
        worker.stop()
    assert stream.outcome(range(10)).is_clean
    assert stream.lag() == 0
    assert {flight["close_reason"] for flight in _flights(stream)} == {"drain"}


def test_several_batches_in_flight_leave_in_the_order_they_came(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=2)
    write_model(stream.folder / "models", "triple", _uneven(), '[inputs.x]\nfields = ["seq"]\n', version="2")
    n_events = 2_000
    stream.send(range(n_events))
    options = ["--set", "stages[1].infer.batch={max_size: 16, in_flight: 4}", "--set", "threads=4"]
    with stream.worker(*RECORDED, *options) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(n_events)).is_clean
    # In the order of the batches' numbers, though every other batch takes much longer than the next one.
    for partition in (0, 1):
        records = [record for record in read_all(stream.bootstrap, stream.sink) if record.partition == partition]
        numbers = [int(_flight(record)["batch"].rpartition("-")[2]) for record in records]
        assert numbers == sorted(numbers)


def _uneven() -> bytes:
    """Return a model of ``3·seq + 1`` that takes some milliseconds for batches whose first row is odd in the 16s."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["v", "nought"], ["v_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", TensorProto.FLOAT, [None, 1]),
        ],
    )
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["line"]),
        helper.make_node("Gather", ["x", "first"], ["row"], axis=0),
        helper.make_node("Reshape", ["row", "scalar"], ["seq"]),
        helper.make_node("Cast", ["seq"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Div", ["whole", "sixteen"], ["group"]),
        helper.make_node("Mod", ["group", "two"], ["odd"]),
        helper.make_node("Mul", ["odd", "times"], ["n"]),
        helper.make_node("Loop", ["n", "yes", "line"], ["value"], body=body),
    ]
    constants = {
        "w": np.array([[3]], np.float32), "b": np.array([1], np.float32), "nought": np.array([[0]], np.float32),
        "first": np.array([0], np.int64), "scalar": np.array([], np.int64), "sixteen": np.array(16, np.int64),
        "two": np.array(2, np.int64), "times": np.array(3_000, np.int64), "yes": np.array(True),
    }  # fmt: skip
    model = build(nodes, {"x": ("float32", [None, 1])}, {"value": ("float32", [None, 1])}, constants)
    return model.SerializeToString()


def test_a_stage_behind_the_models_gets_more_batches_than_may_wait(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    stream.send(range(5_000))
    stages = "[{id: score, infer: {models: [triple], batch: {max_size: 2}}}, {id: wanted, filter: {present: [seq]}}]"
    with stream.worker("--set", f"stages={stages}") as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(5_000)).is_clean


def test_a_small_queue_holds_the_fetch_back(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=2)
    stream.send(range(20_000))
    batch = "{max_size: 1000, max_wait_ms: 4000, queue_rows: 10}"
    with stream.worker("--set", f"stages[1].infer.batch={batch}") as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert stream.outcome(range(20_000)).is_clean


def test_urgent_events_overtake(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    write_model(stream.folder / "models", "triple", _uneven(), '[inputs.x]\nfields = ["seq"]\n', version="2")
    n_events = 600
    records = [
        Outgoing(orjson.dumps({"id": f"e{n}", "seq": n, "tier": 9 * (n >= n_events - 50)}), b"key-%d" % (n % 50))
        for n in range(n_events)
    ]
    produce_all(stream.bootstrap, stream.source, records)
    options = ["--set", "source.priority={field: tier}", "--set", "stages[1].infer.batch={max_size: 16}"]
    with stream.worker(*RECORDED, *options) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    order = _order(stream)
    assert sorted(order) == list(range(n_events))
    urgent = [position for position, number in enumerate(order) if number >= n_events - 50]
    # A full batch keeps an eighth for the others, and what was computed before they came went before them.
    assert np.median(urgent) < n_events / 2
    # Within each lane, the order is the input's.
    for lane in (range(n_events - 50), range(n_events - 50, n_events)):
        assert [number for number in order if number in lane] == list(lane)


def test_a_batch_of_urgent_events_by_header(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    n_events = 200
    produce_all(
        stream.bootstrap,
        stream.source,
        [
            Outgoing(
                orjson.dumps({"id": f"e{n}", "seq": n}),
                b"k",
                headers=[("tier", b"9" if n >= n_events - 20 else b"none")],
            )
            for n in range(n_events)
        ],
    )
    options = ["--set", "source.priority={header: tier}", "--set", "stages[1].infer.batch={max_size: 20}"]
    with stream.worker(*RECORDED, *options) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    order = _order(stream)
    assert sorted(order) == list(range(n_events))
    # All were there before the worker: the urgent ones are in the first batches, but for an eighth of the places.
    assert set(order[:30]) >= set(range(n_events - 20, n_events))
