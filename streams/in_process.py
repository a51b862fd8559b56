"""A pipeline's steps in this process, without Kafka: the worker's own code, and what comes out is collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from modelstream.operators.microbatch import MicroBatch
from modelstream.streams.delivery import Outlet, Output
from modelstream.streams.infer_step import REAL_CLOCKS, Clocks, make_step
from modelstream.streams.ledger import Ledger, Ticket
from modelstream.streams.records import RecordBatch
from modelstream.streams.settings import EngineLimits

if TYPE_CHECKING:
    from modelstream.operators.batch import EventBatch
    from modelstream.streams.build import BuiltPipeline

__all__ = ["Collected", "InProcess", "in_order", "positions_of"]


@dataclass(slots=True)
class Collected:
    """Takes what the stages produce.

    Parameters
    ----------
    predictions, dead_letters : list of Output
        What was produced since somebody emptied the lists.
    n_filtered : int
        Events that were filtered.
    """

    dead_letter_topic: str
    predictions: list[Output] = field(default_factory=list)
    dead_letters: list[Output] = field(default_factory=list)
    n_filtered: int = 0

    def begin(self, ticket: Ticket) -> None:
        """Note nothing: there is no transaction."""

    def produce(self, output: Output) -> None:
        """Keep an output."""
        if output.topic == self.dead_letter_topic:
            self.dead_letters.append(output)
        elif output.values:
            self.predictions.append(output)
        elif output.lineage is not None:
            self.n_filtered += len(output.lineage)


class InProcess:
    """The steps of a pipeline, fed with the records of one partition.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline. Stages with a cache are asked as they are: built without Redis, they have none.
    outlet : Outlet
        Where outputs go.
    limits : EngineLimits, optional
        Of the worker; only the longest prediction matters here.
    downstream_s : float
        What follows a micro-batch, as a worker counts it for a target.
    pool, clocks, on_batch
        As for `InferStep`; `on_batch` gets the step id first.
    """

    def __init__(
        self,
        built: BuiltPipeline,
        outlet: Outlet,
        *,
        limits: EngineLimits | None = None,
        downstream_s: float = 0.0,
        pool: Executor | None = None,
        clocks: Clocks = REAL_CLOCKS,
        on_batch: Callable[[str, MicroBatch, float], None] | None = None,
    ) -> None:
        limits = limits or EngineLimits()
        self._tp = TP(built.spec.source.topic, 0)
        self._ledger: Ledger[TP] = Ledger()
        self._ledger.assign({self._tp: 0})
        self._end = 0
        self._woken = Event()
        self._steps = [
            make_step(
                built, position, outlet, limits.max_output_bytes,
                downstream_s=downstream_s, pool=pool, wake=self._woken.set, clocks=clocks,
                on_batch=_of_stage(on_batch, stage.step_id),
            )
            for position, stage in enumerate(built.stages)
        ]  # fmt: skip
        #: What has arrived before each stage.
        self._waiting: list[list[RecordBatch | EventBatch]] = [[] for _ in self._steps]
        self._room = [limits.max_rows_in_flight] * len(self._steps)
        #: Rows that have come in and are not settled yet.
        self.n_under_way = 0
        #: Bytes of the fetches that have such rows.
        self.n_bytes_under_way = 0

    @property
    def settled_to(self) -> int:
        """Offset up to which all rows are settled."""
        return self._ledger.committable(self._tp) or 0

    def add(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        timestamps_ms: NDArray[np.int64] | None = None,
    ) -> None:
        """Have records come in, behind those before.

        Parameters
        ----------
        values, keys : list of bytes or None
            What they hold, and their keys.
        timestamps_ms : ndarray of int64, shape (n_records,), optional
            When they were produced, in milliseconds since 1970; by default in 1970, since no file tells.
        """
        if not values:
            return
        times = np.zeros(len(values), np.int64) if timestamps_ms is None else timestamps_ms
        records = RecordBatch.of_values(self._tp, values, keys, times, self._end)
        records.ticket = self._ledger.open(self._tp, records.end_offset, len(records), follows=self._end or None)
        self._end = records.end_offset
        self.n_under_way += len(records)
        self.n_bytes_under_way += records.n_bytes
        self._waiting[0].append(records)

    def turn(self, *, drain: bool = False) -> float | None:
        """Call each stage once, from the first to the last.

        Parameters
        ----------
        drain : bool
            Whether nothing more will come, so that nothing is held back.

        Returns
        -------
        float or None
            Seconds until there is something to do though nothing comes in; None if there never is.
        """
        due_in_s: list[float] = []
        for position, step in enumerate(self._steps):
            arrived = self._waiting[position] if self._room[position] > 0 else []
            if arrived:
                self._waiting[position] = []
            result = step(arrived, drain=drain)
            self._room[position] = result.room_rows
            if result.batches:
                self._waiting[position + 1] += result.batches
            for source, n_rows in result.settled:
                assert source.ticket is not None
                self.n_under_way -= n_rows
                self._ledger.finish(source.ticket, n_rows)
                if not source.ticket.unfinished:
                    self.n_bytes_under_way -= source.n_bytes
            if self._waiting[position] and result.room_rows > 0:
                due_in_s.append(0.0)
            if result.due_in_s is not None:
                due_in_s.append(result.due_in_s)
        return min(due_in_s, default=None)

    def run(self, *, most_under_way: int | None = None, drain: bool = False) -> None:
        """Call the stages until there is nothing to do at once.

        Parameters
        ----------
        most_under_way : int, optional
            And until no more rows than these are under way, whatever has to be waited for.
        drain : bool
            Whether nothing more will come, so that nothing is held back.
        """
        while True:
            self._woken.clear()
            due_in_s = self.turn(drain=drain)
            if due_in_s == 0.0:
                continue
            if most_under_way is None or self.n_under_way <= most_under_way:
                return
            self._woken.wait(due_in_s)


def positions_of(output: Output) -> NDArray[np.int64]:
    """Return for each row of an output the offset of its record."""
    lineage = output.lineage
    assert lineage is not None
    starts = np.array([source.end_offset - source.n_rows for source in lineage.sources], np.int64)
    return starts[lineage.source_index] + lineage.record_index


def in_order(outputs: Iterable[Output]) -> list[tuple[int, bytes | str | None]]:
    """Return the values of outputs with the offsets of their records, in the order of these."""
    rows = [row for output in outputs for row in zip(positions_of(output).tolist(), output.values, strict=True)]
    return sorted(rows, key=itemgetter(0))


def _of_stage(
    on_batch: Callable[[str, MicroBatch, float], None] | None, step_id: str
) -> Callable[[MicroBatch, float], None] | None:
    if on_batch is None:
        return None
    return lambda micro_batch, service_s: on_batch(step_id, micro_batch, service_s)
