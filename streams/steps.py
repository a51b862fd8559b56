"""One stage's work, on the data thread: records decoded, batches worked on as they come, outputs produced."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from modelstream.operators.batch import EventBatch, Fault, Settled, join_alike
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.operator import Operator, run_isolated
from modelstream.streams.dead_letter import dead_letters
from modelstream.streams.delivery import Outlet, Output
from modelstream.streams.flight_record import FlightRecorder
from modelstream.streams.joined_records import JoinedRecords
from modelstream.streams.ledger import Ticket
from modelstream.streams.records import RecordBatch

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline

__all__ = ["DECODED_ROWS", "Step", "StepResult"]

#: Rows that are decoded together. More fall out of the processor's cache before they are encoded, and an infer
#: stage would have to split them.
DECODED_ROWS = 1024

# Batches of fewer rows are put together before a stage works on them: a batch has a cost whatever its size, and a row
# is copied for little.
_MERGE_ROWS = 512


@dataclass(slots=True)
class StepResult:
    """What one call made of the batches that had arrived, and when there is more to do."""

    #: Batches for the next stage, in their order.
    batches: list[EventBatch] = field(default_factory=list)
    #: Of which records rows have their predictions or dead letters on their way, or were filtered, and how many.
    settled: list[tuple[RecordBatch, int]] = field(default_factory=list)
    #: Counts for the worker's statistics; events where this was the first stage.
    n_events: int = 0
    n_filtered: int = 0
    n_rejected: int = 0
    #: Why, the first of each stage and reason.
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    n_predictions: int = 0
    #: Seconds until the step is to be called again though nothing arrives; None if it need not be.
    due_in_s: float | None = None
    #: Events that the step takes, at least by the batch; without room it is called again first.
    room_rows: int = sys.maxsize

    @property
    def can_wait(self) -> bool:
        """Whether nothing follows from it at once: no stage waits for batches, and no timer is to be set.

        It may be told as late as the fetch behind it brings something. A fetch waits only where nothing is under way,
        so no row waits for that (`Pump.fetch`).
        """
        return not self.batches and self.due_in_s is None


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
        timestamps_ms = records.timestamps_ms
        # Of a redriven record the event is as old as it was at first; how long it has waited is another matter.
        default_times_ms = timestamps_ms if self._has_event_time else records.first_timestamps_ms
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
                default_times_ms=default_times_ms[rows],
                priorities=None if priorities is None else priorities[rows],
            )
            settled = events.settle()
            self._reject(settled.rejected, result)
            if len(settled.kept):
                yield settled.kept

    def _rows_to_decode(self) -> int:
        return DECODED_ROWS

    def _settle(self, settled: Settled, result: StepResult) -> None:
        self._reject(settled.rejected, result)
        if settled.filtered is not None:
            counts = settled.filtered.count_by_source()
            self._delivery.produce(Output(self._sink.topic, [], [], _owed(counts), lineage=settled.filtered))
            result.n_filtered += len(settled.filtered)
            _hand_over(counts, result)
        for kept in settled.all_kept:
            if len(live := _live_part(kept)):
                self._pass_on(live, result)

    def _reject(self, rejected: EventBatch | None, result: StepResult) -> None:
        if rejected is not None and len(rejected := _live_part(rejected)):
            self._delivery.produce(dead_letters(self._sink.dead_letter, rejected))
            _hand_over(rejected.lineage.count_by_source(), result)
            result.n_rejected += len(rejected)
            for fault in rejected.faults.values():
                result.faults.setdefault((fault.stage, fault.reason), fault)

    def _pass_on(self, events: EventBatch, result: StepResult) -> None:
        if self._encoder is None:
            result.batches.append(events)
            return
        try:
            values = self._encoder.encode(events)
        except Exception:
            # A function's answer that no record can hold.
            settled = run_isolated(_Writing(self._encoder), events)
            self._reject(settled.rejected, result)
            for kept in settled.all_kept:
                self._send(kept, self._encoder.encode(kept), result)
        else:
            self._send(events, values, result)

    def _send(self, events: EventBatch, values: list[str], result: StepResult) -> None:
        # A character is at most four bytes of UTF-8, and the key, which counts too, stands in the value.
        if 8 * max(map(len, values)) > self._max_output_bytes:
            events, values = self._without_oversize(events, values, result)
        counts = events.lineage.count_by_source()
        headers = FlightRecorder.headers(events) if self._sink.flight_record else None
        self._delivery.produce(Output(self._sink.topic, events.keys, values, _owed(counts), headers, events.lineage))
        _hand_over(counts, result)
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


@dataclass(frozen=True, slots=True)
class _Writing:
    """The encoder as an operator, to find the rows that cannot be written."""

    encoder: PredictionEncoder
    step_id: str = "sink"

    def __call__(self, batch: EventBatch) -> EventBatch:
        self.encoder.encode(batch)
        return batch


def _hand_over(counts: list[tuple[RecordBatch, int]], result: StepResult) -> None:
    """Note rows whose records are no longer needed; here, since freeing thousands takes a while."""
    for source, n_rows in counts:
        source.let_go(n_rows)
    result.settled += counts


def _owed(counts: list[tuple[Any, int]]) -> list[tuple[Ticket, int]]:
    return [(source.ticket, n_rows) for source, n_rows in counts]


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
