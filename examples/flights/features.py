"""Features of a departure, known at gate-out: `extract: features:departure` in the pipeline file beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column, EventBatch

__all__ = ["FEATURES", "departure"]

#: What the columns of the `features` vector are, in their order.
FEATURES = (
    "dep_delay_min",
    "distance_mi",
    "sched_dep_min",  # since midnight, on New York's clock
    "sched_arr_min",  # since midnight, on the destination's clock
    "sched_block_min",  # gate to gate
    "block_slack_min",  # what the schedule allows beyond the time such a distance takes
    "weekday",  # Monday is 0
    "carrier",  # index in facts.json, -1: not there
    "origin_lat",
    "origin_lon",
    "dest_lat",
    "dest_lon",
)

_FACTS = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))
_CARRIER = {code: index for index, code in enumerate(_FACTS["carriers"])}
_AIRPORT = {code: index for index, code in enumerate(_FACTS["airports"])}
#: One row an airport: latitude, longitude, minutes ahead of UTC in winter, minutes more in summer. An airport that
#: facts.json lacks takes the last row: the middle of the country, on Central Time.
_AIRPORTS = np.array(
    [(a["lat"], a["lon"], 60 * a["utc_offset_h"], 60 * a["summer_time"]) for a in _FACTS["airports"].values()]
    + [(39.0, -95.0, -360, 60)],
    np.float32,
)
_DAY_MIN = 1_440
#: Rough gate-to-gate time of a jet: taxiing, climb and approach, then cruise.
_GROUND_MIN, _CRUISE_MI_PER_MIN = 45, 7.8


def departure(batch: EventBatch) -> Mapping[str, Column]:
    """Return the features of departures whose `dep_delay` is known.

    Parameters
    ----------
    batch : EventBatch
        Flights as `data.py` describes them; the event time is the scheduled departure.

    Returns
    -------
    mapping of str to Column
        `features`, ndarray of float32, shape (n_rows, 12): see `FEATURES`.
    """
    events = batch.events
    dep_delay, distance = (_numbers(events, name) for name in ("dep_delay", "distance"))
    sched_dep, sched_arr = (_minutes(_numbers(events, name)) for name in ("sched_dep", "sched_arr"))
    carrier = _codes(events, "carrier", _CARRIER)
    origin = _AIRPORTS[_codes(events, "origin", _AIRPORT)]
    dest = _AIRPORTS[_codes(events, "dest", _AIRPORT)]
    # New York is 300 minutes behind UTC in winter, 240 in summer: its clock against the event time tells which.
    departure_min = batch.event_times.astype("datetime64[m]").astype(np.int64)
    behind_utc = (departure_min - sched_dep.astype(np.int64)) % _DAY_MIN
    summer = behind_utc == 240
    dest_ahead_utc = dest[:, 2] + np.where(summer, dest[:, 3], 0)
    # Modulo a day: an arrival after midnight has a smaller HHMM, and no flight here takes 24 hours.
    block = (sched_arr - dest_ahead_utc - sched_dep - behind_utc) % _DAY_MIN
    slack = block - (_GROUND_MIN + distance / _CRUISE_MI_PER_MIN)
    # Day 0 of datetime64 was a Thursday.
    weekday = ((departure_min - behind_utc) // _DAY_MIN + 3) % 7
    columns = (dep_delay, distance, sched_dep, sched_arr, block, slack, weekday, carrier)
    features = np.column_stack([*columns, origin[:, :2], dest[:, :2]])
    return {"features": np.ascontiguousarray(features, np.float32)}


def _numbers(events: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float32]:
    return np.fromiter(map(itemgetter(name), events), np.float32, len(events))


def _codes(events: Sequence[Mapping[str, Any]], name: str, known: Mapping[str, int]) -> NDArray[np.int32]:
    return np.fromiter(map(known.get, map(itemgetter(name), events), repeat(-1)), np.int32, len(events))


def _minutes(hhmm: NDArray[np.float32]) -> NDArray[np.float32]:
    return hhmm - 40 * (hhmm // 100)
