"""Which dead letters a redrive is to send, and why others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelstream.streams.dead_letter_reading import Letter, RecordPlace

__all__ = ["Plan", "plan_redrive"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redrive is to do.

    Parameters
    ----------
    send : list of Letter
        The letters to send, in the order of their origin.
    left : Counter of str
        How many letters stay, by why.
    """

    send: list[Letter] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def plan_redrive(letters: Sequence[Letter], source_topic: str, max_attempts: int, limit: int | None = None) -> Plan:
    """Return which letters are to be sent, and why others stay.

    Parameters
    ----------
    letters : sequence of Letter
        Letters in the order of their origin.
    source_topic : str
        Only letters of this topic's records are sent: others are another pipeline's.
    max_attempts : int
        Letters of events that failed so often stay.
    limit : int, optional
        Send so many at most.

    Examples
    --------
    >>> from modelstream.streams.dead_letter_reading import Place
    >>> failed = RecordPlace("events", 0, 7, 0)
    >>> letter = Letter(Place(0, 1), 0, 9, None, "undecodable", "source", None, 5, failed, ("events", 0, 7))
    >>> plan_redrive([letter], "events", max_attempts=5).left
    Counter({'failed 5 times or more': 1})
    """
    plan = Plan()
    seen: set[RecordPlace] = set()
    for letter in letters:
        why = _why_not(letter, source_topic, max_attempts)
        if why is None and letter.source in seen:
            why = "the same record as another letter"
        if why is not None:
            plan.left[why] += 1
        elif limit is None or len(plan.send) < limit:
            assert letter.source is not None
            seen.add(letter.source)
            plan.send.append(letter)
    return plan


def _why_not(letter: Letter, source_topic: str, max_attempts: int) -> str | None:
    if letter.source is None:
        return "not written by a worker"
    if letter.source.topic != source_topic:
        return f"of topic {letter.source.topic}, not {source_topic}"
    if letter.incomplete is not None:
        return "only a part of the record was kept"
    return f"failed {max_attempts} times or more" if letter.attempts >= max_attempts else None
