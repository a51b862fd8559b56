"""Two versions of a pipeline over the same events: where their answers differ, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

__all__ = ["Difference", "Fate", "FieldDifference", "Flip", "Worst"]


@dataclass(frozen=True, slots=True)
class Flip:
    """So many events had one label in A and another one in B."""

    a: Any
    b: Any
    count: int


@dataclass(frozen=True, slots=True)
class Worst:
    """An event on which the versions differ, with its position among all; ``difference`` is None for labels."""

    position: int
    event_id: str
    a: Any
    b: Any
    difference: float | None


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field of one model's answers.

    Parameters
    ----------
    model, field : str
        The name that the answers stand under, and the field, as ``value``.
    compared, equal, differing : int
        Events in which both have it, and those of them where it is the same, and where it is not.
    only_a, only_b : int
        Events that both predicted and in which only one has it; null is no answer.
    mean_abs, p99_abs, max_abs : float or None
        The absolute differences over all compared events; None for labels and texts.
    flips : list of Flip
        Of labels and texts, how often which became which, the equal ones included; the most frequent first.
    worst : list of Worst
        The events that are furthest apart, the worst first; of labels the first ones.
    histogram : list of (float, int)
        Of numbers, how many differing events lie up to which difference and above the one before; powers of ten.
    """

    model: str
    field: str
    compared: int
    equal: int
    differing: int
    only_a: int
    only_b: int
    mean_abs: float | None
    p99_abs: float | None
    max_abs: float | None
    flips: list[Flip]
    worst: list[Worst]
    histogram: list[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Fate:
    """So many events became the one in A and the other in B: predicted, filtered, dead letter."""

    a: str
    b: str
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What two versions made of the same events.

    Parameters
    ----------
    a, b : str
        The pipelines.
    events, compared : int
        Events, and those of them that both predicted.
    tolerance : float
        Numbers that are no further apart count as equal.
    fates : list of Fate
        What became of the events, the most frequent first.
    reasons_differ : int
        Events that both rejected, at another stage or for another reason.
    versions : dict of str to (list of str, list of str)
        The versions of each model in A and in B, as the predictions name them.
    fields : list of FieldDifference
        Field by field.
    """

    a: str
    b: str
    events: int
    compared: int
    tolerance: float
    fates: list[Fate]
    reasons_differ: int
    versions: dict[str, tuple[list[str], list[str]]]
    fields: list[FieldDifference]

    @property
    def is_equal(self) -> bool:
        """Whether the versions made the same of every event."""
        return (
            all(fate.a == fate.b for fate in self.fates)
            and not self.reasons_differ
            and not any(one.differing or one.only_a or one.only_b for one in self.fields)
        )

    def to_json(self) -> bytes:
        """Return it as one JSON object, indented."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
