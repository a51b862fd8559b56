"""Records into events, whatever their format: one batch at a time, and a bad record never hurts its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column, EventBatch, Events, Fault, Lineage
from modelstream.operators.paths import Unfit, find_values, look_up, show, values_at
from modelstream.operators.rows import SURPRISES, convert_rows
from modelstream.operators.times import FIRST_MS, LAST_MS, parse_time_ms, parse_times

__all__ = ["SOURCE", "Codec", "Faults", "Format"]

#: What faults of decoding call their stage.
SOURCE = "source"

#: What is wrong with rows, by row.
Faults = dict[int, Fault]

#: Numbers that are equal are one key here: 7.0 is 7.
_PRIORITY_OF: Mapping[Any, int] = {priority: priority for priority in range(10)}
_NUMBERS = {int, float, type(None)}


class Format(Protocol):
    """What the value of a record is: how events are read from it, and written to it.

    A new one that a word names is one file, one entry in `modelstream.streams.formats`, and its name in
    `spec.FormatName`. One with keys of its own, as ``{f32: N}``, also has a place in `spec`, and wherever it matters
    that events have no fields.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def blank(self) -> bytes:
        """The shortest value that is read without a fault: it stands for a record that is not to be read."""
        ...

    def read(self, values: Sequence[bytes], faults: Faults) -> tuple[Events, dict[str, Column]]:
        """Return the event of each value, ``{}`` where it is bad, and columns, if the format gives any.

        Parameters
        ----------
        values : sequence of bytes
            None of them empty, nor longer than the limit.
        faults : dict of int to Fault
            Gets what is wrong with bad values, by row; the first fault of a row counts.
        """
        ...

    def write(self, event: Mapping[str, Any]) -> bytes:
        """Return the value of a record that holds an event.

        Raises
        ------
        TypeError, ValueError
            The format cannot say it; the text tells why.
        """
        ...


@dataclass(frozen=True, slots=True)
class Codec:
    """Decodes records of one format.

    A record is rejected as ``undecodable`` (null, empty, or not of the format), ``too_large``, ``too_deep``,
    ``non_finite``, or, for its id and its time, as ``missing_field`` or ``wrong_type``.

    Parameters
    ----------
    format : Format
        What values of records are.
    max_record_bytes : int
        Longer values are rejected before they are decoded.
    event_id : str, optional
        Path of the field that identifies the event: text, or an integer. Without one the record's place in Kafka does.
    event_time : str, optional
        Path of the field with the event time: see `parse_time_ms`. Without one it is the record's timestamp.
    priority : str, optional
        Path of the field with the priority: a whole number from 0 to 9; 0 where it is absent, or anything else.

    Examples
    --------
    >>> from modelstream.operators.json_format import JsonFormat
    >>> codec = Codec(JsonFormat(), event_id="id")
    >>> batch = codec.decode([b'{"id": 7, "x": 1}', b"{"], [None, None], [0, 0])
    >>> batch.ids, batch.events, batch.faults[1].reason
    (['7', ''], [{'id': 7, 'x': 1}, {}], 'undecodable')
    """

    format: Format
    max_record_bytes: int = 1_048_576
    event_id: str | None = None
    event_time: str | None = None
    priority: str | None = None

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: list[bytes | None],
        timestamps_ms: Sequence[int] | NDArray[np.int64],
        default_ids: Callable[[], list[str]] | None = None,
        lineage: Lineage | None = None,
        default_times_ms: NDArray[np.int64] | None = None,
        priorities: NDArray[np.int8] | None = None,
    ) -> EventBatch:
        """Return the events of a batch of records; bad records are marked as rejected, and are ``{}`` as events.

        Parameters
        ----------
        values : sequence of bytes or None
            What the records hold.
        keys : list of bytes or None
            Their keys.
        timestamps_ms : sequence of int, or ndarray of int64, shape (n_rows,)
            Their timestamps, in milliseconds since 1970.
        default_ids : callable, optional
            Gives the ids where `event_id` names no field; by default an event's position.
        lineage : Lineage, optional
            Where the records come from; by default all from one source, in its order.
        default_times_ms : ndarray of int64, shape (n_rows,), optional
            The event times where `event_time` names no field; by default the timestamps.
        priorities : ndarray of int8, shape (n_rows,), optional
            Their priorities, from 0 to 9, where the events do not tell them.
        """
        faults: Faults = {}
        n_bytes = _lengths(values)
        readable = self._without_unreadable(values, n_bytes, faults)
        events, columns = self.format.read(readable, faults)
        record_times = np.asarray(timestamps_ms, np.int64)
        batch = EventBatch(
            keys=keys,
            ids=self._ids(events, faults, default_ids),
            event_times=self._times(events, faults, record_times if default_times_ms is None else default_times_ms),
            events=events,
            lineage=Lineage.of_source(None, len(events)) if lineage is None else lineage,
            columns=columns,
            record_times=record_times,
            n_bytes=n_bytes,
            priorities=priorities if self.priority is None else _priorities(events, self.priority),
        )
        for row, fault in faults.items():
            batch.reject(row, fault)
        return batch

    def decode_one(self, value: bytes) -> dict[str, Any] | None:
        """Return the event of one value, whatever its id and its time; None where there is none."""
        if not 0 < len(value) <= self.max_record_bytes:
            return None
        faults: Faults = {}
        events, _ = self.format.read([value], faults)
        return None if faults else events[0]

    def encode(self, event: Mapping[str, Any]) -> bytes:
        """Return the value of a record that holds an event; raise a TypeError or ValueError where none can."""
        return self.format.write(event)

    def _without_unreadable(
        self, values: Sequence[bytes | None], n_bytes: NDArray[np.int64], faults: Faults
    ) -> Sequence[bytes]:
        """Return the values with a blank for those that there is no need to look into."""
        limit = self.max_record_bytes
        if not len(n_bytes) or 0 < n_bytes.min() <= n_bytes.max() <= limit:
            return values  # type: ignore[return-value]
        readable = list(values)
        for row in np.flatnonzero((n_bytes == 0) | (n_bytes > limit)).tolist():
            value = readable[row]
            if value:
                faults[row] = Fault(SOURCE, "too_large", f"{len(value)} bytes, the limit is {limit}")
            else:
                problem = "the value is null" if value is None else "the value is empty"
                faults[row] = Fault(SOURCE, "undecodable", problem)
            readable[row] = self.format.blank
        return readable  # type: ignore[return-value]

    def _ids(self, events: Events, faults: Faults, default_ids: Callable[[], list[str]] | None) -> list[str]:
        field = self.event_id
        if field is None:
            return default_ids() if default_ids else list(map(str, range(len(events))))
        readable = _with_stand_ins(events, faults)
        ids = convert_rows(readable, partial(_ids_of, field=field), partial(_id_of, field=field), "", SOURCE, faults)
        for row in faults:
            ids[row] = ""
        return ids

    def _times(self, events: Events, faults: Faults, default_ms: NDArray[np.int64]) -> NDArray[np.datetime64]:
        field = self.event_time
        if field is None or not events:
            # Clipped: a producer may stamp anything, and a prediction has four digits for the year.
            ms = default_ms
            if len(ms) and not FIRST_MS <= ms.min() <= ms.max() <= LAST_MS:
                ms = np.clip(ms, FIRST_MS, LAST_MS)
            return ms.view("datetime64[ms]")
        readable = _with_stand_ins(events, faults)
        try:
            times = parse_times(values_at(readable, field))
        except SURPRISES:
            each = convert_rows(
                readable, partial(_times_of, field=field), partial(_time_of, field=field), 0, SOURCE, faults
            )
            times = np.array(each, np.int64).view("datetime64[ms]")
        for row in faults:
            times[row] = 0
        return times


def _lengths(values: Sequence[bytes | None]) -> NDArray[np.int64]:
    try:
        return np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    except TypeError:  # null values have none
        return np.array([len(value or b"") for value in values], np.int64)


def _with_stand_ins(events: Events, faults: Faults) -> Events:
    """Return the events with a sound one for each rejected one, so that those do not slow down what is read next."""
    if not faults:
        return events
    stand_in = next((event for row, event in enumerate(events) if row not in faults), {})
    return [stand_in if row in faults else event for row, event in enumerate(events)]


def _ids_of(events: Sequence[dict[str, Any]], field: str) -> list[str]:
    ids = values_at(events, field)
    try:
        "".join(ids)  # Raises where one is not text; the cheapest check there is.
    except TypeError:
        if set(map(type, ids)) - {str, int}:
            raise
        return list(map(str, ids))
    return ids


def _id_of(event: dict[str, Any], field: str) -> str:
    value = look_up(event, field)
    if value is None:
        raise Unfit("missing_field", f"field {field!r} is missing")
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unfit("wrong_type", f"field {field!r}: {show(value)} is no id; it must be text or an integer")


def _times_of(events: Sequence[dict[str, Any]], field: str) -> list[int]:
    ms: list[int] = parse_times(values_at(events, field)).view(np.int64).tolist()
    return ms


def _time_of(event: dict[str, Any], field: str) -> int:
    value = look_up(event, field)
    if value is None:
        raise Unfit("missing_field", f"field {field!r} is missing")
    try:
        return parse_time_ms(value)
    except ValueError as error:
        raise Unfit("wrong_type", f"field {field!r}: {show(value)} is no event time: {error}") from None


def _priorities(events: Events, field: str) -> NDArray[np.int8] | None:
    """Return the priorities of events; None where all are 0."""
    try:
        values = find_values(events, field)
        if set(map(type, values)) - _NUMBERS:
            raise TypeError("a value is no number")
        priorities = list(map(_PRIORITY_OF.get, values))
    except SURPRISES:
        priorities = [_priority_of(event, field) for event in events]
    return np.array([priority or 0 for priority in priorities], np.int8) if any(priorities) else None


def _priority_of(event: dict[str, Any], field: str) -> int | None:
    try:
        value = look_up(event, field)
    except Unfit:
        return None
    return _PRIORITY_OF.get(value) if type(value) in _NUMBERS else None
