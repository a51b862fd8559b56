"""Events through a pipeline in this process under a virtual clock: the worker's own steps, and the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.microbatch import MicroBatch
from modelstream.streams.dead_letter_json import describe_letter
from modelstream.streams.delivery import Output
from modelstream.streams.in_process import Collected, InProcess, in_order, positions_of
from modelstream.streams.infer_step import Clocks
from modelstream.streams.replay.costs import Costs
from modelstream.streams.replay.virtual_time import VirtualClock, VirtualPool, timed
from modelstream.streams.worker_limits import downstream_s, limits_of, pool_threads

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline
    from modelstream.streams.settings import EngineLimits

__all__ = ["ClosedBatch", "OfflineRun", "run_offline"]


@dataclass(frozen=True, slots=True)
class ClosedBatch:
    """One micro-batch of an offline run.

    Parameters
    ----------
    step_id : str
        The stage.
    number : int
        Which of that stage, from 1.
    n_rows : int
        Its rows.
    reason : str
        Why there are no more and no fewer.
    queued_s, service_s : float
        The longest wait of its rows, and what the models took.
    finished_s : float
        When its outputs were on their way, in virtual seconds after the start.
    """

    step_id: str
    number: int
    n_rows: int
    reason: str
    queued_s: float
    service_s: float
    finished_s: float


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """What became of the events, and when.

    Parameters
    ----------
    predictions : list of (int, str)
        The prediction records, each with the position of its event, in the order of the events.
    dead_letters : list of dict
        For each rejected event, in order: ``offset``, its position, and what `describe_letter` says.
    n_filtered : int
        Events that were filtered.
    latency_s : ndarray of float64, shape (n_events,)
        From an event's due time to its prediction, in virtual seconds; NaN where there is none.
    batches : list of ClosedBatch
        The micro-batches of all stages, in the order in which they were finished.
    seconds : float
        Virtual seconds from the first event to the last output, or to the last event where that comes later.
    answered_s : ndarray of float64, shape (n_events,)
        When each prediction or dead letter was on its way out; NaN for filtered events.
    """

    predictions: list[tuple[int, Any]]
    dead_letters: list[dict[str, Any]]
    n_filtered: int
    latency_s: NDArray[np.float64]
    batches: list[ClosedBatch]
    seconds: float
    answered_s: NDArray[np.float64]


def run_offline(
    built: BuiltPipeline,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None],
    due_us: NDArray[np.int64] | None,
    costs: Costs,
    limits: EngineLimits | None = None,
) -> OfflineRun:
    """Run records through a pipeline as one worker would, one partition before it, under a virtual clock.

    Two runs with the same records, due times and costs do exactly the same: micro-batches are closed by the worker's
    own batcher at virtual times, and time goes by only as the costs say.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline, without Redis: what a cache knows depends on more than the events.
    values, keys : sequence of bytes or None
        What the records hold, and their keys.
    due_us : ndarray of int64, shape (n_events,), or None
        When each comes, in microseconds after the start, never falling; None where all are there at once.
    costs : Costs
        What the work takes.
    limits : EngineLimits, optional
        The worker's, by default those of the pipeline.
    """
    due_s = np.zeros(len(values)) if due_us is None else due_us / 1e6
    return _Run(built, values, keys, due_s, costs, limits or limits_of(built.spec)).run()


class _Outlet(Collected):
    """Takes outputs, spends what producing them costs, and notes when."""

    def __init__(self, built: BuiltPipeline, costs: Costs, clock: VirtualClock) -> None:
        super().__init__(built.spec.sink.dead_letter)
        self._costs = costs
        self._clock = clock
        self._sent_s = -1.0
        #: For each output with records, when the producer has sent it.
        self.sent: list[tuple[Output, float]] = []

    def produce(self, output: Output) -> None:
        super().produce(output)
        if output.values:
            self._clock.spend(self._costs.produce.seconds(len(output.values)))
            self.sent.append((output, self._sent_by(self._clock())))

    def _sent_by(self, now_s: float) -> float:
        """Return when what is produced now leaves the producer: with what it gathers, or as the first of the next."""
        if now_s > self._sent_s:
            self._sent_s = now_s + self._costs.linger_s
        return self._sent_s


class _Run:
    """One run of `run_offline`."""

    def __init__(
        self,
        built: BuiltPipeline,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        due_s: NDArray[np.float64],
        costs: Costs,
        limits: EngineLimits,
    ) -> None:
        self._values, self._keys, self._due_s = values, keys, due_s
        self._timestamps_ms = (due_s * 1000).astype(np.int64)
        self._there_s = due_s + costs.path_in_s
        n_bytes = (len(value or b"") + len(key or b"") for value, key in zip(values, keys, strict=True))
        #: Bytes of all records before each, and of all.
        self._bytes_before = np.cumsum([0, *n_bytes])
        self._costs, self._limits = costs, limits
        self._clock = VirtualClock()
        self._pool = VirtualPool(self._clock, max(1, pool_threads(built)))
        self._outlet = _Outlet(built, costs, self._clock)
        self._batches: list[ClosedBatch] = []
        self._engine = InProcess(
            timed(built, costs, self._clock),
            self._outlet,
            limits=limits,
            downstream_s=downstream_s(limits),
            pool=self._pool,
            # Events come after the start of 1970: their ages are what counts.
            clocks=Clocks(self._clock, self._clock),
            on_batch=self._note,
        )
        self._n_fetched = 0
        self._rests_until_s = 0.0

    def run(self) -> OfflineRun:
        """Fetch, compute and wait, until every event is settled."""
        while self._n_fetched < len(self._values) or self._engine.n_under_way:
            n_new = self._fetch()
            self._pool.release()
            due_in_s = self._engine.turn()
            if not n_new and due_in_s != 0.0:
                self._wait(due_in_s)
        return self._result()

    @property
    def _has_room(self) -> bool:
        limits, engine = self._limits, self._engine
        return engine.n_under_way < limits.max_rows_in_flight and engine.n_bytes_under_way < limits.max_bytes_in_flight

    @property
    def _most_rows(self) -> int:
        """Rows of the next fetch at the most."""
        start, limits = self._n_fetched, self._limits
        fitting = int(np.searchsorted(self._bytes_before, self._bytes_before[start] + limits.fetch_max_bytes, "right"))
        # A record that is larger than a fetch comes alone.
        return max(min(fitting - 1 - start, limits.fetch_max_records), 1)

    def _fetch(self) -> int:
        """Take up what is there, as far as there is room."""
        if self._clock() < self._rests_until_s or not self._has_room:
            return 0
        start = self._n_fetched
        n_there = int(np.searchsorted(self._there_s, self._clock(), "right")) - start
        n_rows = min(n_there, most := self._most_rows)
        if n_rows:
            if n_rows < most:
                self._rests_until_s = self._clock() + self._limits.gather_ms / 1000
            rows = slice(start, start + n_rows)
            self._clock.spend(self._costs.fetch.seconds(n_rows))
            self._engine.add(list(self._values[rows]), list(self._keys[rows]), self._timestamps_ms[rows])
            self._n_fetched += n_rows
        return n_rows

    def _wait(self, due_in_s: float | None) -> None:
        """Let time go by until something happens."""
        moments_s = [self._pool.next_s]
        if due_in_s is not None:
            moments_s.append(self._clock() + due_in_s)
        if self._has_room and self._n_fetched < len(self._values):
            moments_s.append(max(float(self._there_s[self._n_fetched]), self._rests_until_s))
        next_s = min(moments_s)
        if next_s < float("inf"):
            self._clock.advance_to(next_s)
        elif self._engine.n_under_way:
            raise AssertionError(f"{self._engine.n_under_way} events are under way, and nothing is due")

    def _note(self, step_id: str, micro_batch: MicroBatch, service_s: float) -> None:
        self._batches.append(
            ClosedBatch(
                step_id=step_id,
                number=micro_batch.number,
                n_rows=len(micro_batch.events),
                reason=str(micro_batch.reason),
                queued_s=micro_batch.queued_s,
                service_s=service_s,
                finished_s=self._clock(),
            )
        )

    def _result(self) -> OfflineRun:
        answered_s = np.full(len(self._values), np.nan)
        is_predicted = np.zeros(len(self._values), np.bool_)
        for output, sent_s in self._outlet.sent:
            positions = positions_of(output)
            answered_s[positions] = sent_s + self._costs.path_out_s
            is_predicted[positions] |= output.topic != self._outlet.dead_letter_topic
        return OfflineRun(
            predictions=in_order(self._outlet.predictions),
            dead_letters=_letters(self._outlet.dead_letters),
            n_filtered=self._outlet.n_filtered,
            latency_s=np.where(is_predicted, answered_s - self._due_s, np.nan),
            batches=self._batches,
            # The clock stands where the last event was filtered, if that was the last.
            seconds=max(self._clock(), np.nanmax(answered_s, initial=self._due_s[-1])) - float(self._due_s[0])
            if len(answered_s)
            else 0.0,
            answered_s=answered_s,
        )


def _letters(outputs: list[Output]) -> list[dict[str, Any]]:
    letters = [
        {"offset": offset, **describe_letter(key, value if isinstance(value, bytes) else None, headers)}
        for output in outputs
        for offset, key, value, headers in zip(
            positions_of(output).tolist(), output.keys, output.values, output.headers or [], strict=True
        )
    ]
    # What a letter says of its place is true already; the position comes first for the order.
    return sorted(letters, key=lambda letter: letter["offset"])
