"""One stage's work, on the data thread: records decoded, micro-batches closed and computed, outputs produced."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modelstream.operators.batch import EventBatch, Fault, Lineage, Settled, join_alike
from modelstream.operators.microbatch import BatchPolicy, BatchStatistics, MicroBatch, MicroBatcher
from modelstream.operators.operator import Operator, run_isolated
from modelstream.streams.dead_letter import dead_letters
from modelstream.streams.delivery import Outlet, Output
from modelstream.streams.flight_record import FlightRecorder
from modelstream.streams.joined_records import JoinedRecords
from modelstream.streams.ledger import Ticket
from modelstream.streams.records import RecordBatch

if TYPE_CHECKING:
    from modelstream.operators.padding import PaddingCounters
    from modelstream.streams.build import BuiltPipeline
    from modelstream.streams.infer_spec import BatchSpec

__all__ = ["REAL_CLOCKS", "Clocks", "InferStep", "Step", "StepResult", "make_step"]

# How long one call may go on, since fetches and commits wait for it on the same thread. Some five micro-batches under
# lag; shorter, and the hops between the threads show in the throughput.
_TURN_S = 0.02

# How often the statistics are brought up to date: nobody looks at every batch's.
_REFRESH_S = 0.2

# Rows that are decoded together. More fall out of the processor's cache before they are encoded, and an infer
# stage would have to split them.
_DECODED_ROWS = 1024

# Batches of fewer rows are put together before a stage works on them: a batch has a cost whatever its size, and a row
# is copied for little.
_MERGE_ROWS = 512


class Clocks(NamedTuple):
    """What tells the steps the time; in a replay without Kafka it is a virtual one."""

    #: Monotonic seconds: for waits, and for what work takes.
    now_s: Callable[[], float] = perf_counter
    #: Seconds since 1970: for the ages of records.
    wall_s: Callable[[], float] = time


REAL_CLOCKS = Clocks()


@dataclass(slots=True)
class StepResult:
    """What one call made of the batches that had arrived, and when there is more to do."""

    #: Batches for the next stage, in their order.
    batches: list[EventBatch] = field(default_factory=list)
    #: Where the rows came from whose predictions or dead letters are on their way, or that were filtered.
    settled: list[Lineage] = field(default_factory=list)
    #: Those of them that a business rule filtered.
    filtered: list[Lineage] = field(default_factory=list)
    #: Counts for the worker's statistics; events where this was the first stage.
    n_events: int = 0
    n_rejected: int = 0
    #: Why, the first of each stage and reason.
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    n_predictions: int = 0
    #: Seconds until the step is to be called again though nothing arrives; None if it need not be.
    due_in_s: float | None = None
    #: Events that the step takes, at least by the batch; without room it is called again first.
    room_rows: int = sys.maxsize


class Step:
    """A stage that works on batches as they come: the operator, and what stands before the first and after the last.

    Used on the data thread only. Dead letters are produced by the stage that rejects.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    position : int
        Which of its stages this is.
    delivery : Outlet
        Where predictions and dead letters go.
    max_output_bytes : int
        A longer prediction record becomes a dead letter.
    """

    def __init__(self, built: BuiltPipeline, position: int, delivery: Outlet, max_output_bytes: int) -> None:
        stage = built.stages[position]
        self._operator: Operator = stage.operator
        self._codec = built.codec if position == 0 else None
        self._encoder = built.encoder if position == len(built.stages) - 1 else None
        self._sink = built.spec.sink
        self._has_event_time = built.spec.source.event_time is not None
        priority = built.spec.source.priority
        self._priority_header = priority.header if priority else None
        self._delivery = delivery
        self._max_output_bytes = max_output_bytes

    def __call__(self, arrived: Sequence[RecordBatch | EventBatch], *, drain: bool = False) -> StepResult:
        """Work on what has arrived.

        Parameters
        ----------
        arrived : sequence of RecordBatch or EventBatch
            Batches, in their order; none where the step is called because it is due.
        drain : bool
            Whether nothing more will come for now, so that nothing is held back.
        """
        result = StepResult()
        for events in _merged(self._events_of(arrived, result)):
            self._settle(run_isolated(self._operator, events), result)
        return result

    def _events_of(self, arrived: Sequence[RecordBatch | EventBatch], result: StepResult) -> Iterable[EventBatch]:
        """Yield the batches that still belong to this worker, decoded."""
        records = []
        for batch in arrived:
            if isinstance(batch, EventBatch):
                events = _live_part(batch)
                if len(events):
                    yield events
            elif batch.ticket is not None and batch.ticket.live:
                result.n_events += len(batch)
                self._delivery.begin(batch.ticket)
                records.append(batch)
        if records:
            yield from self._decode(JoinedRecords(records), result)

    def _decode(self, records: JoinedRecords, result: StepResult) -> Iterable[EventBatch]:
        """Yield the events of records, some rows at a time."""
        assert self._codec is not None
        values, keys = records.values, records.keys
        timestamps_ms = records.timestamps_ms if self._has_event_time else records.first_timestamps_ms
        priorities = None if self._priority_header is None else records.priorities(self._priority_header)
        end = 0
        while end < len(records):
            start, end = end, min(end + self._rows_to_decode(), len(records))
            rows = slice(start, end)
            events = self._codec.decode(
                values[rows],
                keys[rows],
                timestamps_ms[rows],
                default_ids=partial(records.default_ids, rows),
                lineage=records.lineage(rows),
                **({} if priorities is None else {"priorities": priorities[rows]}),
            )
            settled = events.settle()
            self._reject(settled.rejected, result)
            if len(settled.kept):
                yield settled.kept

    def _rows_to_decode(self) -> int:
        return _DECODED_ROWS

    def _settle(self, settled: Settled, result: StepResult) -> None:
        self._reject(settled.rejected, result)
        if settled.filtered is not None:
            lineage = settled.filtered
            self._delivery.produce(Output(self._sink.topic, [], [], _owed(lineage), lineage=lineage))
            result.filtered.append(settled.filtered)
            _hand_over(settled.filtered, result)
        for kept in settled.all_kept:
            if len(live := _live_part(kept)):
                self._pass_on(live, result)

    def _reject(self, rejected: EventBatch | None, result: StepResult) -> None:
        if rejected is not None and len(rejected := _live_part(rejected)):
            self._delivery.produce(dead_letters(self._sink.dead_letter, rejected))
            _hand_over(rejected.lineage, result)
            result.n_rejected += len(rejected)
            for fault in rejected.faults.values():
                result.faults.setdefault((fault.stage, fault.reason), fault)

    def _pass_on(self, events: EventBatch, result: StepResult) -> None:
        if self._encoder is None:
            result.batches.append(events)
            return
        values = self._encoder.encode(events)
        # A character is at most four bytes of UTF-8, and the key, which counts too, stands in the value.
        if 8 * max(map(len, values)) > self._max_output_bytes:
            events, values = self._without_oversize(events, values, result)
        lineage = events.lineage
        headers = FlightRecorder.headers(events) if self._sink.flight_record else None
        self._delivery.produce(Output(self._sink.topic, events.keys, values, _owed(lineage), headers, lineage))
        _hand_over(lineage, result)
        result.n_predictions += len(events)

    def _without_oversize(
        self, events: EventBatch, values: list[str], result: StepResult
    ) -> tuple[EventBatch, list[str]]:
        sizes = [len(value.encode()) + len(key or b"") for key, value in zip(events.keys, values, strict=True)]
        for row, n_bytes in enumerate(sizes):
            if n_bytes > self._max_output_bytes:
                detail = f"the prediction record has {n_bytes} bytes, more than {self._max_output_bytes}"
                events.reject(row, Fault("sink", "too_large", detail))
        fits = [value for value, n_bytes in zip(values, sizes, strict=True) if n_bytes <= self._max_output_bytes]
        settled = events.settle()
        self._reject(settled.rejected, result)
        return settled.kept, fits


class InferStep(Step):
    """A stage that infers: batches are gathered into micro-batches, and those computed, on this thread or a pool.

    Parameters
    ----------
    built, position, delivery, max_output_bytes
        As for `Step`.
    spec : BatchSpec
        How events are gathered.
    downstream_s : float
        What producing takes after a micro-batch.
    pool : Executor, optional
        Computes up to ``in_flight`` micro-batches at once; without it they are computed on the data thread.
    wake : callable, optional
        Called from any thread when a micro-batch of the pool is done, so that the step is called again.
    clocks : Clocks, optional
        What tells the time.
    on_batch : callable, optional
        Gets each micro-batch with what the models took for it, in seconds, when its outputs are on their way.
    """

    def __init__(
        self,
        built: BuiltPipeline,
        position: int,
        delivery: Outlet,
        max_output_bytes: int,
        *,
        spec: BatchSpec,
        downstream_s: float,
        pool: Executor | None = None,
        wake: Callable[[], None] = lambda: None,
        clocks: Clocks = REAL_CLOCKS,
        on_batch: Callable[[MicroBatch, float], None] | None = None,
    ) -> None:
        super().__init__(built, position, delivery, max_output_bytes)
        self._now_s = clocks.now_s
        self._on_batch = on_batch
        self._batcher = MicroBatcher(_policy(spec, downstream_s), clocks.now_s, clocks.wall_s)
        self._statistics = self._batcher.statistics
        self._padding: PaddingCounters | None = getattr(self._operator, "padding", None)
        self._in_flight = spec.in_flight
        self._refresh_at = 0.0
        self._pool = pool
        self._wake = wake
        self._computing: deque[tuple[MicroBatch, Future[tuple[Settled, float]]]] = deque()
        self._full_rows = spec.most_rows * max(1, _DECODED_ROWS // spec.most_rows)
        # With a target or priorities it is not the rows that came first that go first, nor full batches that are best.
        is_eager = pool is None and spec.target_p99_ms is None and built.spec.source.priority is None
        self._eager_rows = spec.most_rows if is_eager else sys.maxsize
        self._recorder = FlightRecorder(built, position) if built.spec.sink.flight_record else None

    @property
    def statistics(self) -> BatchStatistics:
        """What became of the micro-batches so far; the data thread brings it up to date."""
        return self._statistics

    def __call__(self, arrived: Sequence[RecordBatch | EventBatch], *, drain: bool = False) -> StepResult:
        """Gather what has arrived, and compute the micro-batches that are to run now."""
        result = StepResult()
        if self._batcher.n_rows:
            self._batcher.drop(lambda source: source.ticket.live)
        until = self._now_s() + _TURN_S
        for events in self._events_of(arrived, result):
            self._batcher.add(events)
            # A full batch is computed at once, while its rows are in the processor's cache.
            while self._batcher.n_rows >= self._eager_rows and self._now_s() < until:
                if not self._compute_next(drain, result):
                    break
        if self._pool is None:
            self._compute_here(drain, result, until)
        else:
            self._compute_in_pool(drain, result)
        result.room_rows = self._batcher.room_rows
        self._statistics.waiting_rows, self._statistics.waiting_bytes = self._batcher.n_rows, self._batcher.n_bytes
        if (now := self._now_s()) >= self._refresh_at:
            # Here, on the thread that owns the batcher; whoever reads the statistics sees the same object.
            _ = self._batcher.statistics
            if self._padding is not None and self._padding.calls:
                self._statistics.padding_waste = self._padding.waste
            self._refresh_at = now + _REFRESH_S
        return result

    def _rows_to_decode(self) -> int:
        # So many that the last micro-batch gets full: what goes whole is not cut and put together again.
        return self._full_rows - self._batcher.n_rows % self._full_rows

    def _compute_here(self, drain: bool, result: StepResult, until: float) -> None:
        while self._compute_next(drain, result) and self._now_s() < until:
            pass
        result.due_in_s = self._batcher.due_in_s()

    def _compute_next(self, drain: bool, result: StepResult) -> bool:
        micro_batch = self._batcher.take(drain=drain)
        if micro_batch is None:
            return False
        self._finish(micro_batch, *self._compute(micro_batch.events), result)
        return True

    def _compute_in_pool(self, drain: bool, result: StepResult) -> None:
        assert self._pool is not None
        # Released in the order in which they were closed, whichever is done first.
        while self._computing and self._computing[0][1].done():
            micro_batch, future = self._computing.popleft()
            self._finish(micro_batch, *future.result(), result)
        while len(self._computing) < self._in_flight:
            next_batch = self._batcher.take(drain=drain)
            if next_batch is None:
                break
            future = self._pool.submit(self._compute, next_batch.events)
            self._computing.append((next_batch, future))
            future.add_done_callback(lambda _: self._wake())
        # While all slots are taken, the one that gets free calls.
        result.due_in_s = self._batcher.due_in_s() if len(self._computing) < self._in_flight else None

    def _finish(self, micro_batch: MicroBatch, settled: Settled, service_s: float, result: StepResult) -> None:
        start = self._now_s()
        if self._recorder is not None:
            for kept in settled.all_kept:
                self._recorder.note(kept, micro_batch, service_s)
        self._settle(settled, result)
        self._batcher.finished(micro_batch, len(micro_batch.events), service_s + self._now_s() - start)
        if self._on_batch is not None:
            self._on_batch(micro_batch, service_s)

    def _compute(self, events: EventBatch) -> tuple[Settled, float]:
        start = self._now_s()
        settled = run_isolated(self._operator, events)
        return settled, self._now_s() - start


def make_step(
    built: BuiltPipeline,
    position: int,
    delivery: Outlet,
    max_output_bytes: int,
    *,
    downstream_s: float,
    pool: Executor | None,
    wake: Callable[[], None] = lambda: None,
    clocks: Clocks = REAL_CLOCKS,
    on_batch: Callable[[MicroBatch, float], None] | None = None,
) -> Step:
    """Return the step of a stage; the parameters are those of `InferStep`."""
    infer = built.spec.stages[position].infer
    if infer is None:
        return Step(built, position, delivery, max_output_bytes)
    return InferStep(
        built, position, delivery, max_output_bytes,
        spec=infer.batch, downstream_s=downstream_s, pool=pool if infer.batch.in_flight > 1 else None, wake=wake,
        clocks=clocks, on_batch=on_batch,
    )  # fmt: skip


def _policy(spec: BatchSpec, downstream_s: float) -> BatchPolicy:
    return BatchPolicy(
        max_size=spec.most_rows,
        max_wait_s=spec.max_wait_ms / 1000,
        max_bytes=spec.max_bytes,
        target_p99_s=None if spec.target_p99_ms is None else spec.target_p99_ms / 1000,
        queue_rows=spec.queue_rows,
        queue_bytes=spec.queue_bytes,
        downstream_s=downstream_s,
    )


def _hand_over(lineage: Lineage, result: StepResult) -> None:
    """Note rows whose records are no longer needed; here, since freeing thousands takes a while."""
    for source, n_rows in lineage.count_by_source():
        source.let_go(n_rows)
    result.settled.append(lineage)


def _owed(lineage: Lineage) -> list[tuple[Ticket, int]]:
    return [(source.ticket, count) for source, count in lineage.count_by_source()]


def _live_part(events: EventBatch) -> EventBatch:
    """Return the rows that still belong to this worker: those of a partition that was given up are another's now."""
    dead = [i for i, source in enumerate(events.lineage.sources) if not source.ticket.live]
    if not dead:
        return events
    faults, live = events.faults, ~np.isin(events.lineage.source_index, dead)
    part = events.select(live)
    if faults:
        part.faults = {i: faults[row] for i, row in enumerate(np.flatnonzero(live).tolist())}
    return part


def _merged(batches: Iterable[EventBatch]) -> Iterable[EventBatch]:
    """Yield the batches in their order, small ones of one layout put together."""
    small: list[EventBatch] = []
    n_rows = 0
    for batch in batches:
        if small and n_rows + len(batch) > _MERGE_ROWS:
            yield from join_alike(small)
            small, n_rows = [], 0
        small.append(batch)
        n_rows += len(batch)
    yield from join_alike(small)
