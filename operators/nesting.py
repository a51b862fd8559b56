"""How deep the objects and lists of an event are nested."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelstream.operators.batch import Fault
from modelstream.operators.codecs import SOURCE, Faults

__all__ = ["is_deeper", "reject_deeper", "too_deep"]


def too_deep(limit: int) -> str:
    """Return the detail of a ``too_deep`` fault."""
    return f"nested deeper than {limit}"


def is_deeper(event: dict[str, Any], limit: int) -> bool:
    """Return whether objects and lists are nested deeper, the event itself counting as one.

    Examples
    --------
    >>> is_deeper({"x": [[1]]}, 3), is_deeper({"x": [[1]]}, 2)
    (False, True)
    """
    level: list[Any] = [event]  # level by level: recursion has a limit of its own
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


def reject_deeper(events: list[dict[str, Any]], suspects: Iterable[bool], limit: int, faults: Faults) -> None:
    """Reject the events that are nested deeper, and put an empty one in their place.

    Parameters
    ----------
    events : list of dict
        The events.
    suspects : iterable of bool
        For each, whether it may be nested deeper: what a glance at its record says, since a look inside is dear.
    limit : int
        How deep they may be.
    faults : dict of int to Fault
        Gets the faults; the first one of a row counts.
    """
    for row, is_suspect in enumerate(suspects):
        if is_suspect and is_deeper(events[row], limit):
            faults.setdefault(row, Fault(SOURCE, "too_deep", too_deep(limit)))
            events[row] = {}
