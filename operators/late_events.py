"""JSON events that are decoded when somebody looks: until then some of their fields are all that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import orjson

from modelstream.models.contract import Column
from modelstream.operators.columns import Rows, concat_columns, select_rows

__all__ = ["LateEvents"]


class LateEvents(Sequence[dict[str, Any]]):
    """Events with some of their fields read, and the rest left as JSON.

    Parameters
    ----------
    values : list of bytes
        The events: a JSON object each, known to be sound.
    fields : mapping of str to Column
        By name: what stands in a field, in a list; or the numbers of a vector, float64 of shape (n_rows, width).

    Examples
    --------
    >>> events = LateEvents([b'{"id": "a", "x": 1}', b'{"id": "b", "x": 2}'], {"id": ["a", "b"]})
    >>> events.fields["id"], events[1], len(events[:1])
    (['a', 'b'], {'id': 'b', 'x': 2}, 1)
    """

    __slots__ = ("_events", "_values", "fields")

    def __init__(self, values: list[bytes], fields: Mapping[str, Column]) -> None:
        self._values = values
        self._events: list[dict[str, Any]] | None = None
        self.fields = fields

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> LateEvents: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | LateEvents:
        return self.select(index) if isinstance(index, slice) else self._decoded()[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._decoded())

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, LateEvents) else other)

    __hash__ = None  # type: ignore[assignment]

    def select(self, rows: Rows) -> LateEvents:
        """Return some of the events."""
        fields = {name: select_rows(column, rows) for name, column in self.fields.items()}
        selected = LateEvents(select_rows(self._values, rows), fields)
        if self._events is not None:
            # Somebody may have changed one.
            selected._events = select_rows(self._events, rows)
        return selected

    def copy(self) -> LateEvents:
        """Return the same events, to be changed; what lies deeper in them stays shared."""
        copied = LateEvents(self._values, self.fields)
        copied._events = None if self._events is None else list(map(dict.copy, self._events))
        return copied

    @staticmethod
    def concat(parts: Sequence[LateEvents | list[dict[str, Any]]]) -> LateEvents | list[dict[str, Any]]:
        """Return events put one after the other, decoded if any of them are."""
        late = [part for part in parts if isinstance(part, LateEvents) and part._events is None]
        if len(late) < len(parts) or any(part.fields.keys() != late[0].fields.keys() for part in late):
            return [event for part in parts for event in part]
        fields = {name: concat_columns([part.fields[name] for part in late]) for name in late[0].fields}
        return LateEvents(concat_columns([part._values for part in late]), fields)

    def _decoded(self) -> list[dict[str, Any]]:
        if self._events is None:
            self._events = list(map(orjson.loads, self._values))
        return self._events
