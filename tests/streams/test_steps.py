"""The work of a stage on the data thread: every row settled once, in order, whatever batches it comes and goes in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Message
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st
from support.onnx_factory import affine, write_model

from modelstream import Pipeline, extract, filter_events, infer
from modelstream.operators.batch import EventBatch, Fault
from modelstream.streams.build import BuiltPipeline
from modelstream.streams.delivery import Output
from modelstream.streams.infer_step import make_step
from modelstream.streams.ledger import Ledger, Ticket
from modelstream.streams.records import RecordBatch
from modelstream.streams.steps import Step, StepResult

GOOD, BAD, UNWANTED = "good", "bad", "unwanted"


class Outbox:
    """Keeps what is handed to the producer."""

    def __init__(self) -> None:
        self.begun: list[Ticket] = []
        self.outputs: list[Output] = []

    def begin(self, ticket: Ticket) -> None:
        self.begun.append(ticket)

    def produce(self, output: Output) -> None:
        self.outputs.append(output)

    def ids(self, topic: str) -> list[str]:
        return [orjson.loads(v)["event_id"] for out in self.outputs if out.topic == topic for v in out.values]

    @property
    def letters(self) -> list[bytes]:
        return [value for out in self.outputs if out.topic == "dead" for value in out.values]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_model(folder / "models", "triple", affine([3.0], bias=1.0), '[inputs.x]\nfields = ["seq"]\n')
    return folder


@pytest.fixture(scope="module")
def make_built(models: Path) -> Callable[..., BuiltPipeline]:
    def make(**batch: Any) -> BuiltPipeline:
        pipeline = Pipeline("p", {"topic": "in", "event_id": "id"}, folder=models)
        wanted = pipeline.then("wanted", filter_events(present=["seq"]))
        return wanted.then("score", infer(["triple"], batch=batch)).to("out", dead_letter="dead").build()

    return make


class Reader:
    """Record batches of several partitions, opened in a ledger as an agent would."""

    def __init__(self) -> None:
        self.ledger: Ledger[TP] = Ledger()
        self.tps = [TP("in", partition) for partition in range(3)]
        self.ledger.assign(dict.fromkeys(self.tps, 0))
        self.ends: dict[TP, int | None] = dict.fromkeys(self.tps)

    def read(self, partition: int, kinds: list[str]) -> RecordBatch:
        start = self.ends[self.tps[partition]] or 0
        return self.read_values(
            partition, [_value(kind, f"{partition}/{start + i}", i) for i, kind in enumerate(kinds)]
        )

    def read_values(
        self, partition: int, values: list[bytes], headers: list[list[tuple[str, bytes]] | None] | None = None
    ) -> RecordBatch:
        tp, start = self.tps[partition], self.ends[self.tps[partition]] or 0
        messages = [
            Message(
                topic="in",
                partition=partition,
                offset=start + i,
                key=b"k",
                value=value,
                timestamp=(1, 7 + start + i),
                headers=headers[i] if headers else None,
            )
            for i, value in enumerate(values)
        ]
        batch = RecordBatch(tp, messages, epoch=1, follows=self.ends[tp])
        batch.ticket = self.ledger.open(tp, batch.end_offset, len(batch), follows=batch.follows)
        self.ends[tp] = batch.end_offset
        return batch


def _value(kind: str, event_id: str, number: int) -> bytes:
    if kind == BAD:
        return b"{" + event_id.encode()
    return orjson.dumps({"id": event_id, "seq": number if kind == GOOD else None})


def _run(steps: list[Step], arrived: list[Any], results: list[StepResult]) -> None:
    """Call the steps of a pipeline, one after the other, until nothing is due."""
    for step in steps:
        made = []
        while True:
            result = step(arrived, drain=True)
            results.append(result)
            made += result.batches
            arrived = []
            if result.due_in_s is None and not getattr(step, "_computing", ()):
                break
            time.sleep(0)  # the pool's turn
        arrived = made


Sizes = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.sampled_from([GOOD, GOOD, GOOD, BAD, UNWANTED]), min_size=1, max_size=40)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(calls=st.lists(Sizes, min_size=1, max_size=3), max_size=st.integers(1, 30), in_flight=st.sampled_from([1, 3]))
def test_every_row_is_settled_once_and_a_partition_keeps_its_order(
    make_built: Callable[..., BuiltPipeline], calls: list[list[tuple[int, list[str]]]], max_size: int, in_flight: int
) -> None:
    built, outbox, reader = make_built(max_size=max_size, in_flight=in_flight), Outbox(), Reader()
    results: list[StepResult] = []
    fates: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        steps = [
            make_step(built, position, outbox, 10**6, downstream_s=0.0, pool=pool, wake=lambda: None)  # type: ignore[arg-type]
            for position in (0, 1)
        ]
        for call in calls:
            fates.update(kind for _, kinds in call for kind in kinds)
            _run(steps, [reader.read(partition, kinds) for partition, kinds in call], results)
    predicted = outbox.ids("out")
    assert len(predicted) == len(set(predicted)) == fates[GOOD] == sum(result.n_predictions for result in results)
    assert len(outbox.letters) == fates[BAD] == sum(result.n_rejected for result in results)
    assert sum(result.n_filtered for result in results) == fates[UNWANTED]
    assert sum(result.n_events for result in results) == fates.total()
    for partition in range(3):
        offsets = [int(i.partition("/")[2]) for i in predicted if i.startswith(f"{partition}/")]
        assert offsets == sorted(offsets)
    settled: Counter[RecordBatch] = Counter()
    for result in results:
        for batch, n_rows in result.settled:
            settled[batch] += n_rows
    assert all(n_rows == len(batch) for batch, n_rows in settled.items())
    assert settled.total() == fates.total()
    # Each with its output, its dead letter, or the word that it needs none; a partition's batches begun in their order.
    owed: Counter[Ticket] = Counter()
    for output in outbox.outputs:
        for ticket, n_rows in output.owed:
            owed[ticket] += n_rows
    assert owed == {batch.ticket: len(batch) for batch in settled}
    assert set(outbox.begun) == set(owed)
    for partition in range(3):
        ends = [
            ticket.end_offset
            for ticket in outbox.begun
            if ticket.partition is reader.ledger._partitions[TP("in", partition)]
        ]
        assert ends == sorted(ends)


def test_a_dead_letter_is_of_its_own_record_in_a_batch_that_is_decoded_in_pieces(
    make_built: Callable[..., BuiltPipeline],
) -> None:
    outbox, reader = Outbox(), Reader()
    step = make_step(make_built(), 0, outbox, 10**6, downstream_s=0.0, pool=None, wake=lambda: None)  # type: ignore[arg-type]
    kinds = [BAD if i in (5, 1023, 1024, 2999) else GOOD for i in range(3000)]
    result = step([reader.read(0, kinds)])
    assert outbox.letters == [b"{0/5", b"{0/1023", b"{0/1024", b"{0/2999"]
    assert [event_id for batch in result.batches for event_id in batch.ids] == [
        f"0/{i}" for i, kind in enumerate(kinds) if kind == GOOD
    ]


def test_rows_of_a_partition_that_was_given_up_are_left_out(make_built: Callable[..., BuiltPipeline]) -> None:
    built, outbox, reader = make_built(max_size=100, max_wait_ms=1000), Outbox(), Reader()
    first, second = (
        make_step(built, i, outbox, 10**6, downstream_s=0.0, pool=None, wake=lambda: None)  # type: ignore[arg-type]
        for i in (0, 1)
    )
    batches = first([reader.read(0, [GOOD] * 3), reader.read(1, [GOOD, GOOD])]).batches
    assert [len(batch) for batch in batches] == [5]  # small ones go together
    held = second(batches)
    assert held.due_in_s
    assert not outbox.outputs
    reader.ledger.drop([TP("in", 0)])
    second(first([reader.read(2, [GOOD])]).batches, drain=True)
    assert outbox.ids("out") == ["1/0", "1/1", "2/0"]
    assert [ticket.live for output in outbox.outputs for ticket, _ in output.owed] == [True, True]


def test_records_of_a_partition_that_was_given_up_are_not_begun(make_built: Callable[..., BuiltPipeline]) -> None:
    step, reader = make_step(make_built(), 0, outbox := Outbox(), 10**6, downstream_s=0.0, pool=None), Reader()
    records = reader.read(0, [GOOD, BAD, UNWANTED])
    reader.ledger.drop([TP("in", 0)])
    result = step([records])
    assert (outbox.begun, outbox.outputs) == ([], [])
    assert (result.n_events, result.batches, result.settled) == (0, [], [])


def test_a_dead_letter_keeps_its_own_reason_when_rows_before_it_are_given_up(
    make_built: Callable[..., BuiltPipeline],
) -> None:
    step, reader = make_step(make_built(), 0, outbox := Outbox(), 10**6, downstream_s=0.0, pool=None), Reader()
    parts = [reader.read(partition, [GOOD, GOOD]) for partition in (0, 1)]
    events = step(parts).batches[0]
    for row, reason in enumerate(("first", "second", "third", "fourth")):
        events.reject(row, Fault("stage", reason, "as the test says"))
    reader.ledger.drop([TP("in", 0)])
    step._settle(events.settle(), StepResult())
    headers = [dict(found) for output in outbox.outputs for found in output.headers or ()]
    assert [found["modelstream.reason"] for found in headers] == [b"third", b"fourth"]


def _vector(batch: EventBatch) -> dict[str, Any]:
    """Make a column that is as wide as the events' lists, and of their type."""
    return {"v": np.array([event["v"] for event in batch.events])}


@pytest.mark.parametrize("odd", [[1, 2], ["x", "y", "z"], [[1, 2, 3]] * 3, "text"])
@pytest.mark.parametrize("alone", [True, False])
def test_rows_whose_columns_look_otherwise_are_the_only_ones_to_fail(models: Path, odd: Any, alone: bool) -> None:
    write_model(models / str(odd) / str(alone), "sum", affine([1.0] * 3), '[inputs.x]\nfield = "v"\n')
    built = (
        Pipeline("p", {"topic": "in", "event_id": "id"}, folder=models, models_dir=f"{odd}/{alone}")
        .then("columns", extract(_vector))
        .then("score", infer(["sum"]))
        .to("out", dead_letter="dead")
        .build()
    )
    outbox, reader = Outbox(), Reader()
    first, second = (
        make_step(built, i, outbox, 10**6, downstream_s=0.0, pool=None, wake=lambda: None)  # type: ignore[arg-type]
        for i in (0, 1)
    )
    events = [{"id": f"{i}", "v": [i, 1, 1]} for i in range(700)]
    bad = {"id": "bad", "v": odd}
    calls = [events[:350], [bad], events[350:]] if alone else [[*events[:350], bad, *events[350:]]]
    arrived = [reader.read_values(0, [orjson.dumps(event) for event in call]) for call in calls]
    results: list[StepResult] = []
    _run([first, second], arrived, results)
    assert outbox.ids("out") == [event["id"] for event in events]
    assert outbox.letters == [orjson.dumps(bad)]


def test_a_full_queue_asks_for_no_more(make_built: Callable[..., BuiltPipeline]) -> None:
    built, outbox, reader = make_built(max_size=4, in_flight=2, queue_rows=4), Outbox(), Reader()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(time.sleep, 0.05)
        first, second = (
            make_step(built, i, outbox, 10**6, downstream_s=0.0, pool=pool, wake=lambda: None)  # type: ignore[arg-type]
            for i in (0, 1)
        )
        [batch] = first([reader.read(0, [GOOD] * 20)]).batches
        result = second([batch])
        assert result.room_rows == 0
        assert result.due_in_s is None  # both slots are taken; the one that gets free calls
        busy.result()
        while not second([]).room_rows:
            time.sleep(0)


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        (None, 0),
        ([("tier", b"7")], 7),
        ([("tier", b"1"), ("tier", b"3")], 3),
        ([("other", b"9")], 0),
        ([("tier", b"10")], 0),
        ([("tier", b"-1")], 0),
        ([("tier", "²".encode())], 0),
        ([("tier", None)], 0),
    ],
)
def test_a_priority_is_a_digit(headers: list[tuple[str, bytes | None]] | None, priority: int) -> None:
    message = Message(topic="in", partition=0, offset=0, key=b"k", value=b"{}", timestamp=(1, 7), headers=headers)
    assert RecordBatch(TP("in", 0), [message], epoch=1).priorities("tier").tolist() == [priority]


def test_a_priority_and_a_time_are_of_their_own_record_in_a_batch_that_is_decoded_in_pieces(models: Path) -> None:
    source: Any = {"topic": "in", "event_id": "id", "priority": {"header": "tier"}}
    pipeline = Pipeline("p", source, folder=models).then("wanted", filter_events(present=["seq"]))
    built = pipeline.then("score", infer(["triple"])).to("out", dead_letter="dead").build()
    step, reader = make_step(built, 0, Outbox(), 10**6, downstream_s=0.0, pool=None), Reader()  # type: ignore[arg-type]
    values = [_value(GOOD, f"0/{i}", i) for i in range(3000)]
    batches = step([reader.read_values(0, values, [None] * 2950 + [[("tier", b"9")]] * 50)]).batches
    priorities = [batch.priorities for batch in batches]
    assert [priority for part in priorities if part is not None for priority in part] == [0] * 2950 + [9] * 50
    # So are the times: where no field tells the event's, the record's does.
    for times in ("record_times", "event_times"):
        assert [int(time) for batch in batches for time in getattr(batch, times).view("int64")] == list(range(7, 3007))


def test_a_flight_record_names_what_answers(models: Path) -> None:
    write_model(models / "models", "pair", affine([1.0, 1.0]), '[inputs.x]\nfields = ["triple", "other"]\n')
    write_model(models / "models", "triple", affine([3.0]), '[inputs.x]\nfields = ["seq"]\n', version="2")
    built = (
        Pipeline("p", {"topic": "in", "event_id": "id"}, folder=models)
        .then(
            "score",
            infer(
                ["triple@1", {"model": "triple@2", "as": "other"}],
                ensembles={"both": {"stack": ["triple", "other"], "model": "pair"}},
            ),
        )
        .to("out", flight_record=True)
        .build()
    )
    outbox, reader = Outbox(), Reader()
    step = make_step(built, 0, outbox, 10**6, downstream_s=0.0, pool=None, wake=lambda: None)  # type: ignore[arg-type]
    step([reader.read(0, [GOOD])])
    [[(name, record)]] = outbox.outputs[0].headers  # type: ignore[misc]
    assert name == "modelstream.flight.score"
    assert orjson.loads(record)["models"] == {"triple": "1", "other": "2", "both": "1"}


@pytest.mark.parametrize("field", [None, "at"])
def test_a_redriven_record_has_the_time_of_its_event_and_its_own_age(models: Path, field: str | None) -> None:
    source = {"topic": "in", "event_id": "id", **({"event_time": field} if field else {})}
    pipeline = Pipeline("p", source, folder=models).then("wanted", filter_events(present=["seq"]))
    built = pipeline.then("score", infer(["triple"])).to("out", dead_letter="dead").build()
    headers = [("modelstream.origin", b"in/0/3"), ("modelstream.timestamp_ms", b"5")]
    value = orjson.dumps({"id": "a", "seq": 1, "at": 6})
    step, reader = make_step(built, 0, Outbox(), 10**6, downstream_s=0.0, pool=None), Reader()  # type: ignore[arg-type]
    [events] = step([reader.read_values(0, [value], [headers])]).batches
    assert events.event_times.astype(np.int64).tolist() == [6 if field else 5]
    assert events.record_times is not None
    assert events.record_times.tolist() == [7]


def test_what_a_stage_or_a_timer_waits_for_is_told_at_once() -> None:
    assert StepResult(n_predictions=1).can_wait
    assert not StepResult(batches=[EventBatch.of_events([{}])]).can_wait
    assert not StepResult(due_in_s=0.0).can_wait
