"""The work of a stage that infers, on the data thread: micro-batches closed and computed, there or on a pool."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from time import perf_counter, time
from typing import TYPE_CHECKING, NamedTuple

from modelstream.operators.batch import EventBatch, Settled
from modelstream.operators.microbatch import BatchPolicy, BatchStatistics, MicroBatch, MicroBatcher
from modelstream.operators.operator import run_isolated
from modelstream.streams.delivery import Outlet
from modelstream.streams.flight_record import FlightRecorder
from modelstream.streams.records import RecordBatch
from modelstream.streams.steps import DECODED_ROWS, Step, StepResult

if TYPE_CHECKING:
    from modelstream.operators.padding import PaddingCounters
    from modelstream.streams.build import BuiltPipeline
    from modelstream.streams.infer_spec import BatchSpec

__all__ = ["REAL_CLOCKS", "Clocks", "InferStep", "make_step"]

# How long one call may go on, since fetches and commits wait for it on the same thread. Some five micro-batches under
# lag; shorter, and the hops between the threads show in the throughput.
_TURN_S = 0.02

# How often the statistics are brought up to date: nobody looks at every batch's.
_REFRESH_S = 0.2


class Clocks(NamedTuple):
    """What tells the steps the time; in a replay without Kafka it is a virtual one."""

    #: Monotonic seconds: for waits, and for what work takes.
    now_s: Callable[[], float] = perf_counter
    #: Seconds since 1970: for the ages of records.
    wall_s: Callable[[], float] = time


REAL_CLOCKS = Clocks()


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
        self._full_rows = spec.most_rows * max(1, DECODED_ROWS // spec.most_rows)
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
        # In a drain nothing waits for more: what this turn had no time for is due at once.
        result.due_in_s = 0.0 if drain and self._batcher.n_rows else self._batcher.due_in_s()

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
