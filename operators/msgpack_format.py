"""Records that hold one MessagePack map each."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ormsgpack

from modelstream.operators.batch import Column
from modelstream.operators.codecs import SOURCE, Faults
from modelstream.operators.nesting import reject_deeper, too_deep
from modelstream.operators.paths import Unfit, show
from modelstream.operators.rows import convert_rows

__all__ = ["DEEPEST", "MsgpackFormat"]

#: ormsgpack reads 1,022 levels, and records are read inside of a list.
DEEPEST = 1021

# ormsgpack takes a value from the front of its input, and says nothing of what follows. So values are read in a list,
# with a mark behind each: where every second element is the mark, each record was one value and no more. It is an
# integer of 64 bits that no producer can know.
_MARK_VALUE = secrets.randbits(64) | 1 << 63
_MARK = struct.pack(">BQ", 0xCF, _MARK_VALUE)
_LIST_HEADER = struct.Struct(">BI")
_LIST = 0xDD

# Records read together: more would copy what does not fit into the processor's cache any more (measured, 784 floats:
# 0.8 times the speed at 1,024).
_TOGETHER = 64

_OPTIONS = ormsgpack.OPT_SERIALIZE_NUMPY | ormsgpack.OPT_NAIVE_UTC | ormsgpack.OPT_UTC_Z

#: The extension type of MessagePack's own timestamps.
_TIMESTAMP = -1


@dataclass(frozen=True, slots=True)
class MsgpackFormat:
    """One MessagePack map a record.

    What is none is ``undecodable``: a list, a scalar, a key that is not text, invalid UTF-8, cut off, anything behind
    the map. Timestamps become milliseconds since 1970; other extension types are ``undecodable``. Binary stays bytes:
    a vector's column may be read from it. What a header says of lengths costs no memory.

    Parameters
    ----------
    max_depth : int
        Maps and arrays may be nested so deep, 1021 at most; else they are ``too_deep``.
    default : callable, optional
        Makes MessagePack's types of what `write` finds in an event and does not know.

    Examples
    --------
    >>> faults = {}
    >>> MsgpackFormat().read([bytes([0x81, 0xA1, 0x78, 0x07]), bytes([0x80, 0x80])], faults)
    ([{'x': 7}, {}], {})
    >>> faults[1].detail
    'there is something behind the map'
    >>> MsgpackFormat().write({"x": 7}).hex(" ")
    '81 a1 78 07'
    """

    max_depth: int = DEEPEST
    default: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "MessagePack"

    @property
    def blank(self) -> bytes:
        """An empty map."""
        return b"\x80"

    def read(self, values: Sequence[bytes], faults: Faults) -> tuple[list[dict[str, Any]], dict[str, Column]]:
        """Return the events of values, and no columns."""
        rejected: dict[str, Any] = {}
        read_one = partial(_read_one, max_depth=min(self.max_depth, DEEPEST))
        events = convert_rows(values, _read_all, read_one, rejected, SOURCE, faults)
        if self.max_depth < DEEPEST:
            # A level takes a byte at least.
            suspects = (len(value) > self.max_depth for value in values)
            reject_deeper(events, suspects, self.max_depth, faults)
        return events, {}

    def write(self, event: Mapping[str, Any]) -> bytes:
        """Return an event as MessagePack; times as text in UTC, bytes as binary."""
        return ormsgpack.packb(dict(event), self.default, _OPTIONS)


def _read_all(values: Sequence[bytes]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for start in range(0, len(values), _TOGETHER):
        events += _read_marked(values[start : start + _TOGETHER])
    if set(map(type, events)) - {dict}:
        raise ValueError("a record is no map")
    return events


def _read_marked(values: Sequence[bytes]) -> list[Any]:
    """Return the value of each record; raise a ValueError where one is not exactly one value."""
    n = len(values)
    header = _LIST_HEADER.pack(_LIST, 2 * n)
    elements: list[Any] = ormsgpack.unpackb(b"".join((header, _MARK.join(values), _MARK)), ext_hook=_read_extension)
    if elements[1::2] != [_MARK_VALUE] * n:
        raise ValueError("there is something behind the map")
    return elements[::2]


def _read_one(value: bytes, max_depth: int) -> dict[str, Any]:
    try:
        [event] = _read_marked([value])
    except ValueError as error:
        raise _undecodable(value, str(error), max_depth) from None
    if not isinstance(event, dict):
        raise Unfit("undecodable", f"{show(event)} is no map")
    return event


def _undecodable(value: bytes, problem: str, max_depth: int) -> Unfit:
    # ormsgpack has one class for all of it.
    if problem == "Recursion limit reached":
        return Unfit("too_deep", too_deep(max_depth))
    if problem == "ext_hook failed":
        return Unfit("undecodable", "it has an extension type that is no timestamp")
    try:
        # Without the mark, which a value that is cut off would take for its own.
        ormsgpack.unpackb(value, ext_hook=_read_extension)
    except ValueError as error:
        problem = f"no MessagePack: {error}"
    return Unfit("undecodable", problem)


def _read_extension(kind: int, content: bytes) -> int:
    """Return a timestamp in milliseconds since 1970."""
    if kind != _TIMESTAMP:
        raise ValueError
    if len(content) == 4:
        return int.from_bytes(content) * 1000
    if len(content) == 8:  # 30 bits of nanoseconds, 34 of seconds
        both = int.from_bytes(content)
        nanoseconds, seconds = both >> 34, both & (1 << 34) - 1
    else:
        nanoseconds, seconds = struct.unpack(">Iq", content)
    return seconds * 1000 + nanoseconds // 1_000_000
