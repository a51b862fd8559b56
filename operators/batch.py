"""The event batch: what flows through a pipeline, in columns, with the lineage of every row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.operators.columns import Rows, concat_columns, select_rows
from modelstream.operators.faults import REASONS, Fault
from modelstream.operators.late_events import LateEvents
from modelstream.operators.lineage import Lineage
from modelstream.operators.model_output import ModelOutput

__all__ = [
    "REASONS",
    "CacheState",
    "Column",
    "EventBatch",
    "Events",
    "Fault",
    "Lineage",
    "ModelOutput",
    "RowStatus",
    "Settled",
    "join_alike",
]


#: Events, decoded or not yet.
Events = list[dict[str, Any]] | LateEvents


class RowStatus(IntEnum):
    """What an operator decided about a row."""

    KEPT = 0
    #: A business rule took the row out: nothing is due for it, and that is no error.
    FILTERED = 1
    #: The row cannot be processed: a dead letter is due for it.
    REJECTED = 2


class CacheState(IntEnum):
    """Where the answer to a row comes from, in a stage with a cache."""

    #: The models were asked, and the cache was not.
    BYPASSED = 0
    #: The models were asked, since the cache did not know.
    MISS = 1
    #: From this process's memory.
    MEMORY = 2
    #: From Redis.
    REDIS = 3
    #: From an equal row that was being computed, of this batch or another one.
    COALESCED = 4


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch after an operator, split by the fate of its rows.

    Parameters
    ----------
    kept : EventBatch
        The rows that go on, possibly none.
    filtered : Lineage or None
        Where the rows came from that a business rule took out.
    rejected : EventBatch or None
        The rows that are due a dead letter, with a fault for each; columns and outputs are left out.
    more : tuple of EventBatch
        Further rows that go on, behind those of `kept`, where an operator laid out the columns of some rows otherwise:
        no one batch can be made of them.
    """

    kept: EventBatch
    filtered: Lineage | None
    rejected: EventBatch | None
    more: tuple[EventBatch, ...] = ()

    @property
    def all_kept(self) -> tuple[EventBatch, ...]:
        """The batches with the rows that go on, in their order; none where there are no rows."""
        return tuple(batch for batch in (self.kept, *self.more) if len(batch))

    @classmethod
    def concat(cls, parts: Sequence[Settled]) -> Settled:
        """Return the parts of one batch put together again."""
        kept = join_alike(batch for part in parts for batch in part.all_kept) or [parts[0].kept]
        filtered = [part.filtered for part in parts if part.filtered is not None]
        rejected = [part.rejected for part in parts if part.rejected is not None]
        return cls(
            kept[0],
            Lineage.concat(filtered) if filtered else None,
            EventBatch.concat(rejected) if rejected else None,
            tuple(kept[1:]),
        )


@dataclass(slots=True)
class EventBatch:
    """Events of one pipeline step, in columns. One owner at a time; operators may change it in place.

    Parameters
    ----------
    keys : list of bytes or None
        Record keys as Kafka holds them; the prediction is keyed alike.
    ids : list of str
        Event ids.
    event_times : ndarray of datetime64[ms], shape (n_rows,)
        Event times in UTC.
    events : list of dict, or LateEvents
        The decoded events; where a pipeline reads but some of their fields, they are decoded when somebody looks.
    lineage : Lineage
        Where each row came from.
    columns : dict of str to Column
        What `extract` made of the events, by name.
    outputs : dict of str to ModelOutput
        What the models said, by model name, in the order they were declared.
    faults : dict of int to Fault
        For each rejected row, why.
    status : ndarray of uint8, shape (n_rows,), optional
        `RowStatus` of each row; None while every row is kept.
    record_times : ndarray of int64, shape (n_rows,), optional
        When each record was produced, in milliseconds since 1970: how long its event has waited already.
    n_bytes : ndarray of int64, shape (n_rows,), optional
        Bytes of each record's value.
    priorities : ndarray of int8, shape (n_rows,), optional
        0 to 9, higher ones first; None while all are 0.
    cache_states : ndarray of uint8, shape (n_rows,), optional
        `CacheState` of each row in the stage that it went through last; None without a cache.
    flight : dict of str to list of bytes
        For each stage that infers, each row's flight record, where one is kept.

    Examples
    --------
    >>> batch = EventBatch.of_events([{"x": 1}, {"x": 2}, {"x": 3}])
    >>> batch.filter_out(np.array([True, False, False]))
    >>> batch.reject(1, Fault("check", "wrong_type", "x is even"))
    >>> settled = batch.settle()
    >>> settled.kept.events, len(settled.filtered), settled.rejected.faults[0].detail
    ([{'x': 3}], 1, 'x is even')
    """

    keys: list[bytes | None]
    ids: list[str]
    event_times: NDArray[np.datetime64]
    events: Events
    lineage: Lineage
    columns: dict[str, Column] = field(default_factory=dict)
    outputs: dict[str, ModelOutput] = field(default_factory=dict)
    faults: dict[int, Fault] = field(default_factory=dict)
    status: NDArray[np.uint8] | None = None
    record_times: NDArray[np.int64] | None = None
    n_bytes: NDArray[np.int64] | None = None
    priorities: NDArray[np.int8] | None = None
    cache_states: NDArray[np.uint8] | None = None
    flight: dict[str, list[bytes]] = field(default_factory=dict)

    @classmethod
    def of_events(cls, events: Iterable[dict[str, Any]], source: Any = None) -> EventBatch:
        """Return a batch of bare events, for tests and simulations: no keys, ids by position, time zero."""
        rows = list(events)
        return cls(
            keys=[None] * len(rows),
            ids=[str(i) for i in range(len(rows))],
            event_times=np.zeros(len(rows), "datetime64[ms]"),
            events=rows,
            lineage=Lineage.of_source(source, len(rows)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def layout(self) -> dict[tuple[str, ...], object]:
        """What the columns and answers look like; only batches of one layout can be put together."""
        looks: dict[tuple[str, ...], object] = {(name,): _look(column) for name, column in self.columns.items()}
        for name, output in self.outputs.items():
            looks.update(((name, field), _look(column)) for field, column in output.fields.items())
        return looks

    def reject(self, row: int, fault: Fault) -> None:
        """Mark one row for the dead-letter topic. The first fault of a row is the one that counts."""
        status = self._own_status()
        if status[row] != RowStatus.REJECTED:
            status[row] = RowStatus.REJECTED
            self.faults[row] = fault

    def reject_where(self, mask: NDArray[np.bool_], fault: Fault) -> None:
        """Reject the rows where the mask is true, but not those that are filtered: nothing is due for them."""
        if self.status is not None:
            mask = mask & (self.status == RowStatus.KEPT)
        for row in np.flatnonzero(mask).tolist():
            self.reject(row, fault)

    def filter_out(self, mask: NDArray[np.bool_]) -> None:
        """Mark the rows where the mask is true as taken out by a business rule."""
        if mask.any():
            status = self._own_status()
            status[mask & (status == RowStatus.KEPT)] = RowStatus.FILTERED

    def _own_status(self) -> NDArray[np.uint8]:
        if self.status is None:
            self.status = np.zeros(len(self), np.uint8)
        return self.status

    def settle(self) -> Settled:
        """Split the batch by row status. Where every row is kept, that is this batch itself."""
        status = self.status
        if status is None:
            return Settled(self, None, None)
        filtered, rejected = status == RowStatus.FILTERED, status == RowStatus.REJECTED
        return Settled(
            kept=self.select(status == RowStatus.KEPT),
            filtered=self.lineage.select(filtered) if filtered.any() else None,
            rejected=self._select_rejected(np.flatnonzero(rejected)) if rejected.any() else None,
        )

    def _select_rejected(self, rows: NDArray[np.intp]) -> EventBatch:
        part = self.select(rows)
        part.columns, part.outputs = {}, {}
        part.status = np.full(len(rows), RowStatus.REJECTED, np.uint8)
        part.faults = {i: self.faults[row] for i, row in enumerate(rows.tolist())}
        return part

    def select(self, rows: Rows) -> EventBatch:
        """Return some rows as a batch in which every row is kept."""
        return EventBatch(
            keys=select_rows(self.keys, rows),
            ids=select_rows(self.ids, rows),
            event_times=self.event_times[rows],
            events=self.events.select(rows) if isinstance(self.events, LateEvents) else select_rows(self.events, rows),
            lineage=self.lineage.select(rows),
            columns={name: select_rows(column, rows) for name, column in self.columns.items()},
            outputs={name: output.select(rows) for name, output in self.outputs.items()},
            record_times=_selected(self.record_times, rows),
            n_bytes=_selected(self.n_bytes, rows),
            priorities=_selected(self.priorities, rows),
            cache_states=_selected(self.cache_states, rows),
            flight={step_id: select_rows(records, rows) for step_id, records in self.flight.items()},
        )

    @classmethod
    def concat(cls, parts: Sequence[EventBatch]) -> EventBatch:
        """Return batches of one pipeline step put one after the other, row status and faults included.

        Every part that has rows must have the same layout.
        """
        filled = [part for part in parts if len(part)] or parts[:1]
        if len(filled) == 1:
            return filled[0]
        faults: dict[int, Fault] = {}
        start = 0
        for part in filled:
            faults.update({start + row: fault for row, fault in part.faults.items()})
            start += len(part)
        first = filled[0]
        return cls(
            keys=[key for part in filled for key in part.keys],
            ids=[event_id for part in filled for event_id in part.ids],
            event_times=np.concatenate([part.event_times for part in filled]),
            events=LateEvents.concat([part.events for part in filled]),
            lineage=Lineage.concat([part.lineage for part in filled]),
            columns={name: concat_columns([part.columns[name] for part in filled]) for name in first.columns},
            outputs={name: ModelOutput.concat([part.outputs[name] for part in filled]) for name in first.outputs},
            faults=faults,
            status=None
            if all(part.status is None for part in filled)
            else np.concatenate([part._own_status() for part in filled]),
            record_times=_joined([part.record_times for part in filled]),
            n_bytes=_joined([part.n_bytes for part in filled]),
            priorities=_joined(
                [np.zeros(len(part), np.int8) if part.priorities is None else part.priorities for part in filled]
                if any(part.priorities is not None for part in filled)
                else [None]
            ),
            cache_states=_joined([part.cache_states for part in filled]),
            flight={name: concat_columns([part.flight[name] for part in filled]) for name in first.flight},
        )


def join_alike(batches: Iterable[EventBatch]) -> list[EventBatch]:
    """Return batches in their order, those put together that have one layout and follow one another."""
    runs: list[list[EventBatch]] = []
    for batch in batches:
        if runs and runs[-1][-1].layout == batch.layout:
            runs[-1].append(batch)
        else:
            runs.append([batch])
    return [EventBatch.concat(run) for run in runs]


def _look(column: Column) -> object:
    if isinstance(column, list):
        return "list"
    # Numbers of all kinds go together: NumPy takes the widest.
    return "number" if column.dtype.kind in "biuf" else column.dtype.kind, column.shape[1:]


def _selected(values: NDArray[Any] | None, rows: Rows) -> NDArray[Any] | None:
    return None if values is None else values[rows]


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the parts as one; None where one is not known."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
