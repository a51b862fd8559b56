"""Records into events: JSON decoded a batch at a time, and a bad record marked without harm to its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modelstream.operators.batch import EventBatch, Fault, Lineage
from modelstream.operators.paths import Unfit, field_getter, look_up, show
from modelstream.operators.rows import SURPRISES, convert_rows
from modelstream.operators.times import FIRST_MS, LAST_MS, parse_time_ms, parse_times

__all__ = ["DEEPEST", "SOURCE", "JsonCodec"]

#: What faults of decoding call their stage.
SOURCE = "source"

#: orjson reads no deeper: it would run out of stack.
DEEPEST = 1024

_Faults = dict[int, Fault]


@dataclass(frozen=True, slots=True)
class JsonCodec:
    """Decodes records that hold one JSON object each.

    A record is rejected as ``undecodable`` (no JSON, invalid UTF-8, NaN, no object, empty, null), ``too_large``,
    ``too_deep``, ``non_finite`` (a number beyond float64, such as 1e999), or, for its id and its time, as
    ``missing_field`` or ``wrong_type``.

    Parameters
    ----------
    max_record_bytes : int
        Longer values are rejected before they are decoded.
    max_depth : int
        Objects and lists may be nested so deep, 1024 at most.
    event_id : str, optional
        Field that identifies the event: text, or an integer. Without one the record's place in Kafka does.
    event_time : str, optional
        Field with the event time: see `parse_time_ms`. Without one it is the record's timestamp.

    Examples
    --------
    >>> codec = JsonCodec(event_id="id")
    >>> batch = codec.decode([b'{"id": 7, "x": 1}', b"{"], [None, None], [0, 0])
    >>> batch.ids, batch.events, batch.faults[1].reason
    (['7', ''], [{'id': 7, 'x': 1}, {}], 'undecodable')
    """

    max_record_bytes: int = 1_048_576
    max_depth: int = DEEPEST
    event_id: str | None = None
    event_time: str | None = None

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: list[bytes | None],
        timestamps_ms: Sequence[int] | NDArray[np.int64],
        default_ids: Callable[[], list[str]] | None = None,
        source: Any = None,
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
        source : object
            What the lineage leads back to.
        """
        faults: _Faults = {}
        events = self._events(values, faults)
        batch = EventBatch(
            keys=keys,
            ids=self._ids(events, faults, default_ids),
            event_times=self._times(events, faults, timestamps_ms),
            events=events,
            lineage=Lineage.of_source(source, len(events)),
        )
        for row, fault in faults.items():
            batch.reject(row, fault)
        return batch

    def _events(self, values: Sequence[bytes | None], faults: _Faults) -> list[dict[str, Any]]:
        rejected: dict[str, Any] = {}
        events = convert_rows(values, self._decode_all, self._decode_one, rejected, SOURCE, faults)
        if self.max_depth < DEEPEST:
            self._limit_depth(values, events, faults)
        return events

    def _decode_all(self, values: Sequence[bytes | None]) -> list[dict[str, Any]]:
        # Null values raise here: they have no length.
        if max(map(len, values), default=0) > self.max_record_bytes:  # type: ignore[arg-type]
            raise ValueError("a record is too large")
        events = list(map(orjson.loads, values))  # type: ignore[arg-type]
        if set(map(type, events)) - {dict}:
            raise ValueError("a record is no object")
        return events

    def _limit_depth(self, values: Sequence[bytes | None], events: list[dict[str, Any]], faults: _Faults) -> None:
        limit = self.max_depth
        for row, (value, event) in enumerate(zip(values, events, strict=True)):
            # Counting brackets is quick, and enough for nearly all.
            if value and value.count(b"{") + value.count(b"[") > limit and _is_deeper(event, limit):
                faults.setdefault(row, Fault(SOURCE, "too_deep", _too_deep(limit)))
                events[row] = {}

    def _decode_one(self, value: bytes | None) -> dict[str, Any]:
        if not value:
            raise Unfit("undecodable", "the value is null" if value is None else "the value is empty")
        if len(value) > self.max_record_bytes:
            raise Unfit("too_large", f"{len(value)} bytes, the limit is {self.max_record_bytes}")
        try:
            event = orjson.loads(value)
        except ValueError as error:
            raise self._undecodable(str(error)) from None
        if not isinstance(event, dict):
            raise Unfit("undecodable", f"{show(event)} is no JSON object")
        return event

    def _undecodable(self, problem: str) -> Unfit:
        # orjson has one class for all of it.
        if problem.startswith("depth limit"):
            return Unfit("too_deep", _too_deep(self.max_depth))
        if problem.startswith("number is infinity"):
            return Unfit("non_finite", problem)
        return Unfit("undecodable", problem)

    def _ids(
        self, events: list[dict[str, Any]], faults: _Faults, default_ids: Callable[[], list[str]] | None
    ) -> list[str]:
        field = self.event_id
        if field is None:
            return default_ids() if default_ids else list(map(str, range(len(events))))
        readable = _with_stand_ins(events, faults)
        ids = convert_rows(readable, partial(_ids_of, field=field), partial(_id_of, field=field), "", SOURCE, faults)
        for row in faults:
            ids[row] = ""
        return ids

    def _times(
        self, events: list[dict[str, Any]], faults: _Faults, timestamps_ms: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.datetime64]:
        field = self.event_time
        if field is None or not events:
            # Clipped: a producer may stamp anything, and a prediction has four digits for the year.
            ms = np.asarray(timestamps_ms, np.int64)
            if len(ms) and not FIRST_MS <= ms.min() <= ms.max() <= LAST_MS:
                ms = np.clip(ms, FIRST_MS, LAST_MS)
            return ms.view("datetime64[ms]")
        readable = _with_stand_ins(events, faults)
        try:
            times = parse_times(list(map(field_getter(field), readable)))
        except SURPRISES:
            each = convert_rows(
                readable, partial(_times_of, field=field), partial(_time_of, field=field), 0, SOURCE, faults
            )
            times = np.array(each, np.int64).view("datetime64[ms]")
        for row in faults:
            times[row] = 0
        return times


def _with_stand_ins(events: list[dict[str, Any]], faults: _Faults) -> list[dict[str, Any]]:
    """Return the events with a sound one for each rejected one, so that those do not slow down what is read next."""
    if not faults:
        return events
    stand_in = next((event for row, event in enumerate(events) if row not in faults), {})
    return [stand_in if row in faults else event for row, event in enumerate(events)]


def _ids_of(events: Sequence[dict[str, Any]], field: str) -> list[str]:
    ids = list(map(field_getter(field), events))
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
    ms: list[int] = parse_times(list(map(field_getter(field), events))).view(np.int64).tolist()
    return ms


def _time_of(event: dict[str, Any], field: str) -> int:
    value = look_up(event, field)
    if value is None:
        raise Unfit("missing_field", f"field {field!r} is missing")
    try:
        return parse_time_ms(value)
    except ValueError as error:
        raise Unfit("wrong_type", f"field {field!r}: {show(value)} is no event time: {error}") from None


def _too_deep(limit: int) -> str:
    return f"nested deeper than {limit}"


def _is_deeper(event: dict[str, Any], limit: int) -> bool:
    """Return whether objects and lists are nested deeper; level by level, since recursion has a limit of its own."""
    level: list[Any] = [event]
    for _ in range(limit):
        level = [
            part
            for container in level
            for part in (container.values() if isinstance(container, dict) else container)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True
