"""Micro-batches that a pool computes, and what a flight record tells of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import orjson
import pytest
from confluent_kafka import Message
from faust.types import TP
from support.onnx_factory import affine, write_model

from modelstream import Pipeline, infer
from modelstream.operators.batch import EventBatch
from modelstream.operators.microbatch import BatchPolicy, MicroBatch
from modelstream.operators.operator import Operator
from modelstream.operators.padding import PaddingCounters
from modelstream.streams.build import BuiltPipeline
from modelstream.streams.delivery import Output
from modelstream.streams.infer_spec import BatchSpec
from modelstream.streams.infer_step import Clocks, InferStep, _policy, make_step
from modelstream.streams.ledger import Ledger, Ticket
from modelstream.streams.records import RecordBatch
from modelstream.streams.steps import Step

DEADLINE_S = 60


class Outbox:
    """Keeps what is handed to the producer."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def begin(self, ticket: Ticket) -> None:
        """Nothing is held back here."""

    def produce(self, output: Output) -> None:
        self.outputs.append(output)

    def of(self, topic: str) -> list[Output]:
        return [output for output in self.outputs if output.topic == topic]

    @property
    def ids(self) -> list[str]:
        return [orjson.loads(value)["event_id"] for output in self.of("out") for value in output.values]


class SlowFirst:
    """Keeps the batch with the first event until it is told to go on; the others are done at once."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.may_go_on = Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def __call__(self, batch: EventBatch) -> EventBatch:
        if batch.ids[0] == "0":
            assert self.may_go_on.wait(DEADLINE_S)
        return self._operator(batch)


@pytest.fixture
def make_built(tmp_path: Path) -> Callable[..., BuiltPipeline]:
    def make(*, flight_record: bool = False, priority: dict[str, str] | None = None, **batch: Any) -> BuiltPipeline:
        write_model(tmp_path / "models", "triple", affine([3.0]), '[inputs.x]\nfields = ["seq"]\n')
        source: Any = {"topic": "in", "event_id": "id"} | ({} if priority is None else {"priority": priority})
        pipeline = Pipeline("p", source, folder=tmp_path)
        stage = pipeline.then("score", infer(["triple"], batch=batch))
        return stage.to("out", dead_letter="dead", flight_record=flight_record).build()

    return make


def records(*sequence: int | None) -> RecordBatch:
    """Return records of one partition, opened in a ledger; one without a number lacks the model's field."""
    tp, ledger = TP("in", 0), Ledger[TP]()
    ledger.assign({tp: 0})
    events = [{"id": str(i)} if seq is None else {"id": str(i), "seq": seq} for i, seq in enumerate(sequence)]
    messages = [
        Message(topic="in", partition=0, offset=i, key=b"k", value=orjson.dumps(event), timestamp=(1, 7))
        for i, event in enumerate(events)
    ]
    batch = RecordBatch(tp, messages, epoch=1)
    batch.ticket = ledger.open(tp, batch.end_offset, len(batch), follows=None)
    return batch


def make(
    built: BuiltPipeline, outbox: Outbox, pool: Executor | None, wake: Callable[[], None] = lambda: None, **more: Any
) -> Step:
    return make_step(built, 0, outbox, 10**6, downstream_s=0.0, pool=pool, wake=wake, **more)  # type: ignore[arg-type]


def test_a_micro_batch_that_is_done_early_waits_for_the_one_before(make_built: Callable[..., BuiltPipeline]) -> None:
    built, outbox, woken = make_built(max_size=2, in_flight=2), Outbox(), SimpleQueue[None]()
    slow = SlowFirst(built.stages[0].operator)
    built = replace(built, stages=(replace(built.stages[0], operator=slow),))
    with ThreadPoolExecutor(2) as pool:
        step = make(built, outbox, pool, lambda: woken.put(None))
        try:
            step([records(0, 1, 2, 3)])
            woken.get(timeout=DEADLINE_S)  # the second is done
            step([])
            assert outbox.ids == []
        finally:
            slow.may_go_on.set()
        woken.get(timeout=DEADLINE_S)
        step([])
    assert outbox.ids == ["0", "1", "2", "3"]


def test_a_lone_event_for_a_pool_is_due_when_it_has_waited(make_built: Callable[..., BuiltPipeline]) -> None:
    built, outbox, now_s = make_built(max_size=4, max_wait_ms=4000, in_flight=2), Outbox(), 0.0
    with ThreadPoolExecutor(1) as pool:
        step = make(built, outbox, pool, clocks=Clocks(lambda: now_s, lambda: now_s))
        result = step([records(0)])
        assert result.due_in_s is not None
        assert 0 < result.due_in_s <= 4
        now_s += result.due_in_s
        step([])
    step([])  # the pool is done
    assert outbox.ids == ["0"]


def test_a_drain_gives_a_pool_what_waits_for_more(make_built: Callable[..., BuiltPipeline]) -> None:
    built, outbox = make_built(max_size=4, max_wait_ms=4000, in_flight=2), Outbox()
    with ThreadPoolExecutor(1) as pool:
        step = make(built, outbox, pool, clocks=Clocks(lambda: 0.0, lambda: 0.0))
        assert step([records(0)], drain=True).due_in_s is None
    step([])  # the pool is done
    assert outbox.ids == ["0"]


def test_a_batcher_gets_all_that_the_stage_says() -> None:
    spec = BatchSpec(
        max_size=7, max_wait_ms=20, max_bytes=900, target_p99_ms=50, in_flight=3, queue_rows=110, queue_bytes=13_000
    )
    assert _policy(spec, 0.003) == BatchPolicy(
        max_size=7,
        max_wait_s=0.02,
        max_bytes=900,
        target_p99_s=0.05,
        queue_rows=110,
        queue_bytes=13_000,
        downstream_s=0.003,
    )


class Hand:
    """A clock that a batch moves on, by a second if nothing else is said."""

    def __init__(self, operator: Operator, batch_s: float = 1) -> None:
        self._operator = operator
        self._batch_s = batch_s
        self.now_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def __call__(self, batch: EventBatch) -> EventBatch:
        self.now_s += self._batch_s
        return self._operator(batch)


def test_what_a_turn_of_a_drain_had_no_time_for_is_due_at_once(make_built: Callable[..., BuiltPipeline]) -> None:
    built = make_built(max_size=4, max_wait_ms=4000)
    hand = Hand(built.stages[0].operator)
    built = replace(built, stages=(replace(built.stages[0], operator=hand),))
    clocks, outbox = Clocks(lambda: hand.now_s, lambda: hand.now_s), Outbox()
    step = make_step(built, 0, outbox, 10**6, downstream_s=0.0, pool=None, clocks=clocks)  # type: ignore[arg-type]
    result = step([records(*range(7))], drain=False)
    assert len(outbox.ids) == 4
    assert result.due_in_s is not None
    assert result.due_in_s > 0
    result = step([records(*range(7))], drain=True)
    assert (len(outbox.ids), result.due_in_s) == (11, 0)
    assert (step([], drain=True).due_in_s, len(outbox.ids)) == (None, 14)


@pytest.mark.parametrize("priority", [None, {"field": "seq"}])
def test_a_turn_ends_though_more_batches_wait(
    make_built: Callable[..., BuiltPipeline], priority: dict[str, str] | None
) -> None:
    built = make_built(max_size=4, priority=priority)
    hand = Hand(built.stages[0].operator, batch_s=0.01)
    built = replace(built, stages=(replace(built.stages[0], operator=hand),))
    outbox = Outbox()
    step = make(built, outbox, None, clocks=Clocks(lambda: hand.now_s, lambda: hand.now_s))
    result = step([records(*[0] * 400)])
    assert 0.02 <= hand.now_s < 0.035  # of the second that it all takes
    assert len(outbox.ids) == pytest.approx(400 * hand.now_s)
    assert result.due_in_s == 0


def test_the_urgent_events_of_a_call_go_first_wherever_they_stand(make_built: Callable[..., BuiltPipeline]) -> None:
    built, batches = make_built(max_size=1000, priority={"field": "seq"}), list[MicroBatch]()
    clocks = Clocks(lambda: 0.0, lambda: 0.0)
    step = make(built, Outbox(), None, clocks=clocks, on_batch=lambda batch, _: batches.append(batch))
    step([records(*[0] * 1000, *[9] * 6)], drain=True)
    assert len(batches[0].events) == 1000
    assert {str(i) for i in range(1000, 1006)} <= set(batches[0].events.ids)


class SlowRows(Hand):
    """A clock that each row moves on, by 10 µs: a large batch gains nothing."""

    def __call__(self, batch: EventBatch) -> EventBatch:
        self.now_s += 10e-6 * len(batch)
        return self._operator(batch)


def test_with_a_target_a_batch_has_its_size_by_all_that_waits(make_built: Callable[..., BuiltPipeline]) -> None:
    built, batches = make_built(max_size=1000, target_p99_ms=60_000), list[MicroBatch]()
    clock = SlowRows(built.stages[0].operator)
    built = replace(built, stages=(replace(built.stages[0], operator=clock),))
    clocks = Clocks(lambda: clock.now_s, lambda: 0.007)  # the records are new
    step = make(built, Outbox(), None, clocks=clocks, on_batch=lambda batch, _: batches.append(batch))
    for n_rows in (10, 1000, 2000) * 4:
        step([records(*[0] * n_rows)], drain=True)
        while step([], drain=True).due_in_s is not None:
            pass
    batches.clear()
    step([records(*[0] * 1600)])  # decoded as 1,000 and 600
    assert len(batches[0].events) == 400  # a quarter


class SlowOutbox(Outbox):
    """A clock that each output moves on, by 3 ms."""

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        self._hand = hand

    def produce(self, output: Output) -> None:
        super().produce(output)
        self._hand.now_s += 3e-3


def test_what_a_batch_costs_is_models_encoding_and_producing(make_built: Callable[..., BuiltPipeline]) -> None:
    built = make_built()
    hand = Hand(built.stages[0].operator, batch_s=5e-3)
    built = replace(built, stages=(replace(built.stages[0], operator=hand),))
    step = make(built, SlowOutbox(hand), None, clocks=Clocks(lambda: hand.now_s, lambda: hand.now_s))
    step([records(0)], drain=True)
    assert step.statistics.as_dict()["service_us_total"] == pytest.approx(8_000, abs=2)


class Padding:
    """An operator whose models were given a fifth of fillers."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.padding = PaddingCounters()

    def __call__(self, batch: EventBatch) -> EventBatch:
        self.padding.add(real_cells=8, cells=10)
        return self._operator(batch)


def test_what_padding_costs_is_told(make_built: Callable[..., BuiltPipeline]) -> None:
    built = make_built()
    built = replace(built, stages=(replace(built.stages[0], operator=Padding(built.stages[0].operator)),))
    step = make(built, Outbox(), None, lambda: None)
    assert isinstance(step, InferStep)
    assert step.statistics.as_dict()["padding_waste"] is None
    step([records(0, 1, 2)])
    assert step.statistics.as_dict()["padding_waste"] == 0.2


def test_a_flight_record_counts_the_rows_that_were_rejected_too(make_built: Callable[..., BuiltPipeline]) -> None:
    outbox = Outbox()
    step = make(make_built(flight_record=True), outbox, None, lambda: None)
    step([records(0, None, 2, None, 4)], drain=True)
    assert sum(len(letters.values) for letters in outbox.of("dead")) == 2
    [output] = outbox.of("out")
    assert output.headers is not None
    sizes = [orjson.loads(dict(headers)["modelstream.flight.score"])["size"] for headers in output.headers]
    assert sizes == [5, 5, 5]
