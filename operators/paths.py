"""Where a value stands in an event: paths such as ``a.b[0].c``, and what is said of a value that does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from modelstream.models.errors import ConfigError
from modelstream.operators.late_events import LateEvents

__all__ = ["Steps", "Unfit", "find_values", "look_up", "parse_path", "path_of_name", "show", "values_at"]

#: A path taken apart: names of fields, and indices of lists.
Steps = tuple[str | int, ...]

# A name has neither dots nor brackets; one that does stands in quotes. More digits would be no list of this world.
_STEP = re.compile(r"""\[(?:(?P<index>[0-9]{1,9})|'(?P<single>[^']*)'|"(?P<double>[^"]*)")]|\.?(?P<name>[^.\[\]]+)""")

_SYNTAX = "write a.b[0].c, and ['a.b'] for a name with dots or brackets"


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


@lru_cache(maxsize=4096)
def parse_path(path: str) -> Steps:
    r"""Return the steps of a path.

    Fields of objects are named after dots, elements of lists by their index from 0 in brackets. A name that has dots
    or brackets itself stands in brackets and quotes.

    Raises
    ------
    ConfigError
        The text is no path; the message says at which character.

    Examples
    --------
    >>> parse_path("a.b[0].c"), parse_path("readings[2]"), parse_path("['a.b'].c")
    (('a', 'b', 0, 'c'), ('readings', 2), ('a.b', 'c'))
    >>> parse_path("a[-1]")
    Traceback (most recent call last):
    modelstream.models.errors.ConfigError: 'a[-1]' is no path: after '[' at character 2 ...
    """
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (found["name"] is not None and (path[at] == ".") != bool(at)):
            raise ConfigError("", f"{show(path)} is no path: {_problem(path, at)}; {_SYNTAX}")
        at = found.end()
        steps.append(int(found["index"]) if found["index"] else found[found.lastgroup or "name"])
    if not steps or isinstance(steps[0], int):
        raise ConfigError("", f"{show(path)} is no path: an event is an object, so it begins with a name; {_SYNTAX}")
    return tuple(steps)


def _problem(path: str, at: int) -> str:
    where = f"character {at + 1}"
    if path[at] == ".":
        return f"a name is missing at {where}"
    if path[at] == "[":
        return f"after '[' at {where} must come an index from 0 or a name in quotes, and ']'"
    return f"']' at {where} closes nothing" if path[at] == "]" else f"a dot is missing at {where}"


def path_of_name(name: str) -> str:
    """Return the path that a name stands for where none is given: itself, or the field of that very name.

    Examples
    --------
    >>> path_of_name("a.b"), path_of_name("length (cm)"), path_of_name("a]")
    ('a.b', 'length (cm)', "['a]']")
    """
    try:
        parse_path(name)
    except ConfigError:
        return f'["{name}"]' if "'" in name else f"['{name}']"
    return name


def values_at(events: Iterable[Mapping[str, Any]], path: str) -> list[Any]:
    """Return what stands at a path in each event, fast: each step is one pass over all events, in C.

    Raises
    ------
    LookupError, TypeError
        Some event has nothing there: then they are to be read one by one, with `look_up`.

    Examples
    --------
    >>> values_at([{"a": [{"b": 1}]}, {"a": [{"b": 2}, {}]}], "a[0].b")
    [1, 2]
    """
    if isinstance(events, LateEvents) and isinstance(known := events.fields.get(path), list):
        return known.copy()
    first, *steps = parse_path(path)
    values: Iterable[Any] = map(itemgetter(first), events)
    for step in steps:
        if isinstance(step, int):
            values = list(values)
            if set(map(type, values)) - {list}:  # text has elements too
                raise TypeError("something on the way is no list")
        values = map(itemgetter(step), values)
    return list(values)


def find_values(events: Sequence[Mapping[str, Any]], path: str) -> list[Any]:
    """Return what stands at a path in each event, None where it is absent.

    Raises
    ------
    Unfit
        If something on the way is no object, or no list.

    Examples
    --------
    >>> find_values([{"a": {"b": 1}}, {"a": {}}, {}], "a.b")
    [1, None, None]
    """
    steps = parse_path(path)
    if len(steps) == 1:
        [name] = steps
        return [event.get(name) for event in events]  # type: ignore[arg-type]
    return [_look_up(event, steps, path) for event in events]


def look_up(event: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None where it is absent.

    Raises
    ------
    Unfit
        If something on the way is no object, or no list.

    Examples
    --------
    >>> look_up({"a": {"b": 1}}, "a.b"), look_up({"a": {}}, "a.b"), look_up({"a": [1]}, "a[1]")
    (1, None, None)
    """
    return _look_up(event, parse_path(path), path)


def _look_up(event: Mapping[str, Any], steps: Steps, path: str) -> Any:
    value: Any = event
    for step in steps:
        if value is None:
            return None
        if isinstance(step, int):
            if not isinstance(value, list):
                raise Unfit("wrong_type", f"field {path!r}: {show(value)} has no element [{step}]")
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            raise Unfit("wrong_type", f"field {path!r}: {show(value)} has no field {step!r}")
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
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:60]
