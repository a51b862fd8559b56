"""Words that go with numbers, for messages and logs."""

from __future__ import annotations

__all__ = ["counted", "event_number", "letter_reason", "rough_time"]


def counted(n: int, noun: str) -> str:
    """Return a number with what it counts.

    Parameters
    ----------
    n : int
        The number.
    noun : str
        What is counted, in the singular; its plural has an s.

    Examples
    --------
    >>> counted(1, "dead letter"), counted(20_000, "prediction")
    ('1 dead letter', '20,000 predictions')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def event_number(position: int) -> str:
    """Return what to call an event by its position, which is counted from 0.

    Examples
    --------
    >>> event_number(0), event_number(1234)
    ('event 1', 'event 1,235')
    """
    return f"event {position + 1:,}"


def letter_reason(stage: str, reason: str) -> str:
    """Return why and where events became dead letters.

    Examples
    --------
    >>> letter_reason("score", "missing_field")
    "missing_field at 'score'"
    """
    return f"{reason} at {stage!r}"


def rough_time(seconds: float) -> str:
    """Return a length of time as one would say it.

    Examples
    --------
    >>> rough_time(7.6), rough_time(600), rough_time(14_400), rough_time(864_000)
    ('8 s', '10 min', '4 h', '10 days')
    """
    for unit, unit_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
