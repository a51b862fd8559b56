"""Where a value stands in an event: paths such as ``sched.hour``, and what is said of a value that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

__all__ = ["Unfit", "field_getter", "look_up", "show"]


class Unfit(Exception):
    """A value does not fit its declaration.

    Parameters
    ----------
    reason : str
        The fault's reason, such as ``missing_field`` or ``wrong_type``.
    detail : str
        One line for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


def field_getter(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a fast function from an event to the value at a path; it raises where there is none.

    Examples
    --------
    >>> field_getter("a.b")({"a": {"b": 1}})
    1
    """
    if "." not in path:
        return itemgetter(path)
    parts = path.split(".")

    def get(event: Any) -> Any:
        for part in parts:
            event = event[part]
        return event

    return get


def look_up(event: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None where it is absent.

    Raises
    ------
    Unfit
        If something on the way is not an object.

    Examples
    --------
    >>> look_up({"a": {"b": 1}}, "a.b"), look_up({"a": {}}, "a.b"), look_up({}, "a.b")
    (1, None, None)
    """
    value: Any = event
    for part in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Unfit("wrong_type", f"field {path!r}: {show(value)} has no field {part!r}")
        value = value.get(part)
    return value


def show(value: Any) -> str:
    """Return a value as text for a message: short, whatever it holds.

    Examples
    --------
    >>> show("x" * 1000), show(1.5), show([[1], [2]])
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'...", '1.5', 'a list')
    """
    # Never the repr of what is nested: it may be a megabyte, or deeper than Python recurses.
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r}..."
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(value)[:60]
