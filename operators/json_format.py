"""Records that hold one JSON object each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from modelstream.operators.batch import Column, Events
from modelstream.operators.codecs import SOURCE, Faults
from modelstream.operators.json_fields import JsonFields
from modelstream.operators.late_events import LateEvents
from modelstream.operators.nesting import reject_deeper, too_deep
from modelstream.operators.paths import Unfit, show
from modelstream.operators.rows import convert_rows

__all__ = ["DEEPEST", "JsonFormat"]

#: orjson reads no deeper: it would run out of stack.
DEEPEST = 1024

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """One JSON object a record.

    What is none is ``undecodable``: invalid UTF-8, NaN, a list, a scalar, anything behind the object. A number beyond
    float64, such as 1e999, is ``non_finite``.

    Parameters
    ----------
    max_depth : int
        Objects and lists may be nested so deep, 1024 at most; else they are ``too_deep``.
    default : callable, optional
        Makes JSON's types of what `write` finds in an event and does not know.
    fields : JsonFields, optional
        Reads all that is read of the events, so that they need not be decoded.

    Examples
    --------
    >>> faults = {}
    >>> JsonFormat().read([b'{"x": 1}', b"[1]"], faults)
    ([{'x': 1}, {}], {})
    >>> faults[1].detail
    'a list is no JSON object'
    >>> JsonFormat().write({"x": 1.5})
    b'{"x":1.5}'
    """

    max_depth: int = DEEPEST
    default: Callable[[Any], Any] | None = None
    fields: JsonFields | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "JSON"

    @property
    def blank(self) -> bytes:
        """An empty object."""
        return b"{}"

    def read(self, values: Sequence[bytes], faults: Faults) -> tuple[Events, dict[str, Column]]:
        """Return the events of values, and no columns."""
        if self.fields is not None and (found := self.fields.read(values)) is not None:
            return LateEvents(list(values), found), {}
        rejected: dict[str, Any] = {}
        read_one = partial(_read_one, max_depth=self.max_depth)
        events = convert_rows(values, _read_all, read_one, rejected, SOURCE, faults)
        if self.max_depth < DEEPEST:
            # Counting brackets is quick, and enough for nearly all.
            suspects = (value.count(b"{") + value.count(b"[") > self.max_depth for value in values)
            reject_deeper(events, suspects, self.max_depth, faults)
        return events, {}

    def write(self, event: Mapping[str, Any]) -> bytes:
        """Return an event as JSON; times in UTC, NaN as null."""
        return orjson.dumps(dict(event), self.default, _OPTIONS)


def _read_all(values: Sequence[bytes]) -> list[dict[str, Any]]:
    events = list(map(orjson.loads, values))
    if set(map(type, events)) - {dict}:
        raise ValueError("a record is no object")
    return events


def _read_one(value: bytes, max_depth: int) -> dict[str, Any]:
    try:
        event = orjson.loads(value)
    except ValueError as error:
        raise _undecodable(str(error), max_depth) from None
    if not isinstance(event, dict):
        raise Unfit("undecodable", f"{show(event)} is no JSON object")
    return event


def _undecodable(problem: str, max_depth: int) -> Unfit:
    # orjson has one class for all of it.
    if problem.startswith("depth limit"):
        return Unfit("too_deep", too_deep(max_depth))
    if problem.startswith("number is infinity"):
        return Unfit("non_finite", problem)
    return Unfit("undecodable", problem)
