"""Event times, a batch at once: from ISO-8601 text or epoch milliseconds, and back to text."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from operator import sub
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = ["FIRST_MS", "LAST_MS", "format_times", "parse_time_ms", "parse_times"]

#: What both `datetime` and four digits of a year can say, in milliseconds since 1970.
FIRST_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMPY_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

#: The usual spellings of one instant, by length: the lowest and the highest character at every place, a line feed after
#: them, and how many characters numpy is to read. Their lengths differ, and they hold no line feed inside.
_FORMS: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8], int]] = {}
for _fraction in ("", ".999", ".999999"):
    for _zone in ("", "Z", "+00:00"):
        _high = f"9999-99-99T99:99:99{_fraction}".encode()
        _low, _end = _high.replace(b"9", b"0"), f"{_zone}\n".encode()
        _FORMS[len(_high + _end) - 1] = (
            np.frombuffer(_low + _end, np.uint8),
            np.frombuffer(_high + _end, np.uint8),
            min(len(_high), len("9999-99-99T99:99:99.999")),
        )


#: To look for equal ones among so few takes longer than to write each (measured).
_FEW_TIMES = 100


def parse_times(values: list[Any]) -> NDArray[np.datetime64]:
    """Return event times, where all of them are of one usual form; see `parse_time_ms` for what a time may be.

    Parameters
    ----------
    values : list
        What the events hold: one of them at least.

    Returns
    -------
    ndarray of datetime64[ms], shape (n_rows,)
        The times in UTC, cut to milliseconds.

    Raises
    ------
    TypeError, ValueError
        If one value is no time, or their forms differ: then they are to be read one by one.

    Examples
    --------
    >>> parse_times(["2013-01-01T10:15:00Z", "2013-01-01T10:16:00Z"]).tolist()[1]
    datetime.datetime(2013, 1, 1, 10, 16)
    """
    times = _parse_texts(values) if isinstance(values[0], str) else _parse_numbers(values)
    ms = times.view(np.int64)
    if ms.min() < FIRST_MS or ms.max() > LAST_MS:
        raise ValueError("a time is out of range")
    return times


def _parse_texts(values: list[str]) -> NDArray[np.datetime64]:
    low, high, length = _FORMS[len(values[0])] if len(values[0]) in _FORMS else _FORMS[19]
    codes = np.frombuffer(("\n".join(values) + "\n").encode(), np.uint8)
    rows = codes.reshape(len(values), len(low))
    # Line feeds stand at the end of a row and nowhere else, so every row is one value. And numpy sees digits only: it
    # would take 'now' and 'NaT' too, and warn of offsets.
    if not ((rows >= low) & (rows <= high)).all():
        raise ValueError("a time has another form")
    return np.ascontiguousarray(rows[:, :length]).view(f"S{length}").ravel().astype("datetime64[ms]")


def _parse_numbers(values: list[float]) -> NDArray[np.datetime64]:
    if not set(map(type, values)) <= {int, float}:
        raise TypeError("a time is not a number")
    ms = np.floor(np.array(values, np.float64))
    if not (ms.min() >= FIRST_MS and ms.max() <= LAST_MS):
        raise ValueError("a time is out of range")
    return ms.astype("datetime64[ms]")


def parse_time_ms(value: Any) -> int:
    """Return one event time in milliseconds since 1970.

    Parameters
    ----------
    value : object
        ISO-8601 text (UTC where it names no offset), or a number: milliseconds since 1970.

    Returns
    -------
    int
        The time, cut to milliseconds.

    Raises
    ------
    ValueError
        If the value is no time of the years 1 to 9999.

    Examples
    --------
    >>> parse_time_ms("1970-01-01T01:00:01+01:00"), parse_time_ms(-1)
    (1000, -1)
    """
    if isinstance(value, str):
        time = datetime.fromisoformat(value)
        ms = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        ms = math.floor(value)
    else:
        raise ValueError("neither ISO-8601 text nor milliseconds since 1970")
    if not FIRST_MS <= ms <= LAST_MS:
        raise ValueError("not in the years 1 to 9999")
    return ms


def format_times(times: NDArray[np.datetime64]) -> list[str]:
    """Return event times as ISO-8601 text in UTC; a fraction of a second is there only where it is not zero.

    Parameters
    ----------
    times : ndarray of datetime64[ms], shape (n_rows,)
        Times of the years 1 to 9999, one at least.

    Examples
    --------
    >>> format_times(np.array(["2013-01-01T10:15", "2013-01-01T10:15:00.25"], "datetime64[ms]"))
    ['2013-01-01T10:15:00Z', '2013-01-01T10:15:00.250000Z']
    """
    if len(times) < _FEW_TIMES:
        return _format_each(times)
    starts = [0, *((times[1:] != times[:-1]).nonzero()[0] + 1).tolist()]
    # Times come in runs: brokers stamp milliseconds, schedules have minutes. Below two a run it does not pay.
    if len(starts) * 2 > len(times):
        return _format_each(times)
    lengths = map(sub, [*starts[1:], len(times)], starts)
    return list(chain.from_iterable(map(repeat, _format_each(times[starts]), lengths)))


def _format_each(times: NDArray[np.datetime64]) -> list[str]:
    try:
        return orjson.dumps(times, option=_NUMPY_JSON)[2:-2].decode().split('","')
    except TypeError:
        # orjson's range ends a day before the year 9999 does. Each by itself: a text must not depend on neighbours.
        if len(times) > 1:
            return [text for i in range(len(times)) for text in _format_each(times[i : i + 1])]
        seconds, _, fraction = str(times[0]).partition(".")
        return [f"{seconds}Z" if fraction == "000" else f"{seconds}.{fraction}000Z"]
