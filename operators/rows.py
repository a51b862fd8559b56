"""A batch at a time, and row by row only around a row that does not fit."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from modelstream.operators.batch import Fault
from modelstream.operators.paths import Unfit

__all__ = ["SURPRISES", "convert_rows"]

_Row = TypeVar("_Row")
_Converted = TypeVar("_Converted")

#: What work on a whole batch may raise where one row does not fit.
SURPRISES = (Unfit, LookupError, TypeError, ValueError, OverflowError, struct.error)

#: Rows that are tried together once the whole batch has failed. One by one they take several times as long, so a
#: stretch should rarely hold a bad one; at 1 % of bad rows one in four does. Shorter ones cost more calls.
_STRETCH = 32


def convert_rows(
    rows: Sequence[_Row],
    convert_all: Callable[[Sequence[_Row]], list[_Converted]],
    convert_one: Callable[[_Row], _Converted],
    filler: _Converted,
    stage: str,
    faults: dict[int, Fault],
) -> list[_Converted]:
    """Return what becomes of every row, the filler where it does not fit.

    Parameters
    ----------
    rows : sequence
        What to convert.
    convert_all : callable
        Converts many rows fast; raises one of `SURPRISES` where it cannot.
    convert_one : callable
        Converts one row, to the same; raises `Unfit` where it does not fit.
    filler : object
        What stands for a row that does not fit.
    stage : str
        Step id for the faults.
    faults : dict of int to Fault
        Gets what is wrong with such rows, by row; the first fault of a row counts.

    Examples
    --------
    >>> from modelstream.operators.paths import look_up
    >>> faults = {}
    >>> rows, each = [{"x": {"y": 1}}, {"x": 5}], lambda row: look_up(row, "x.y")
    >>> convert_rows(rows, lambda some: [row["x"]["y"] for row in some], each, 0, "step", faults)
    [1, 0]
    >>> faults[1].detail
    "field 'x.y': 5 has no field 'y'"
    """
    try:
        return convert_all(rows)
    except SURPRISES:
        pass  # some row does not fit; which one, and why, is found below
    converted: list[_Converted] = []
    for start in range(0, len(rows), _STRETCH):
        stretch = rows[start : start + _STRETCH]
        try:
            converted += convert_all(stretch)
        except SURPRISES:
            for number, row in enumerate(stretch, start):
                try:
                    converted.append(convert_one(row))
                except Unfit as unfit:
                    faults.setdefault(number, Fault(stage, unfit.reason, unfit.detail))
                    converted.append(filler)
    return converted
