"""The workload `flights` by hand: the arithmetic of the example's feature function, and its three models.

One record is scored in plain Python, which for one row is several times as fast as NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from benchmarks.systems.common import Job, open_session
from numpy.typing import NDArray

__all__ = ["Features", "open_flights"]

_DAY_MIN = 1_440
_GROUND_MIN, _CRUISE_MI_PER_MIN = np.float32(45), np.float32(7.8)


class Features:
    """Makes the 12 features of departures.

    Parameters
    ----------
    facts : Path
        The example's ``facts.json``: carriers, and where airports are.
    """

    def __init__(self, facts: Path) -> None:
        found = orjson.loads(facts.read_bytes())
        self._carriers = {code: index for index, code in enumerate(found["carriers"])}
        places = [
            (a["lat"], a["lon"], 60 * a["utc_offset_h"], 60 * a["summer_time"]) for a in found["airports"].values()
        ]
        # An airport that is not there: the middle of the country, on Central Time.
        places.append((39.0, -95.0, -360, 60))
        self._places = dict(zip(found["airports"], places, strict=False))
        self._unknown = places[-1]
        self._airports = {code: index for index, code in enumerate(found["airports"])}
        self._table = np.array(places, np.float32)

    def one(self, event: dict[str, Any]) -> list[float]:
        """Return the features of one departure."""
        left_min = int(datetime.fromisoformat(event["scheduled_departure"]).timestamp()) // 60
        sched_dep, sched_arr = _minutes(event["sched_dep"]), _minutes(event["sched_arr"])
        origin = self._places.get(event["origin"], self._unknown)
        dest = self._places.get(event["dest"], self._unknown)
        behind_utc = (left_min - sched_dep) % _DAY_MIN
        ahead_utc = dest[2] + (dest[3] if behind_utc == 240 else 0)
        block = (sched_arr - ahead_utc - sched_dep - behind_utc) % _DAY_MIN
        # In float32, as in the example: a tree may ask for its last bit.
        usual = _GROUND_MIN + np.float32(event["distance"]) / _CRUISE_MI_PER_MIN
        weekday = ((left_min - behind_utc) // _DAY_MIN + 3) % 7
        carrier = self._carriers.get(event["carrier"], -1)
        times = (event["dep_delay"], event["distance"], sched_dep, sched_arr, block, block - float(usual))
        return [*times, weekday, carrier, *origin[:2], *dest[:2]]

    def many(self, events: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        """Return the features of departures, one a row."""
        times = [event["scheduled_departure"][:-1] for event in events]
        left_min = np.array(times, "datetime64[m]").astype(np.int64)
        delay, distance, dep, arr = (
            np.array([event[name] for event in events], np.float32)
            for name in ("dep_delay", "distance", "sched_dep", "sched_arr")
        )
        sched_dep, sched_arr = dep - 40 * (dep // 100), arr - 40 * (arr // 100)
        carrier = np.array([self._carriers.get(event["carrier"], -1) for event in events])
        origin, dest = (
            self._table[[self._airports.get(event[name], -1) for event in events]] for name in ("origin", "dest")
        )
        behind_utc = (left_min - sched_dep.astype(np.int64)) % _DAY_MIN
        ahead_utc = dest[:, 2] + np.where(behind_utc == 240, dest[:, 3], 0)
        block = (sched_arr - ahead_utc - sched_dep - behind_utc) % _DAY_MIN
        slack = block - (_GROUND_MIN + distance / _CRUISE_MI_PER_MIN)
        weekday = ((left_min - behind_utc) // _DAY_MIN + 3) % 7
        columns = (delay, distance, sched_dep, sched_arr, block, slack, weekday, carrier)
        return np.column_stack([*columns, origin[:, :2], dest[:, :2]]).astype(np.float32)


def open_flights(job: Job) -> Any:
    """Return what scores flights; a job's ``--model`` is the folder of the three models."""
    features = Features(job.model.parent / "facts.json")
    delay, late, air = (
        open_session(job.model / name / "1" / "model.onnx").run
        for name in ("arrival_delay", "late_arrival", "air_time")
    )

    def score(records: Sequence[bytes]) -> list[bytes]:
        events = [event for event in map(orjson.loads, records) if event["dep_delay"] is not None]
        if not events:
            return []
        matrix = features.many(events) if len(events) > 1 else np.array([features.one(events[0])], np.float32)
        given = {"features": matrix}
        label, probabilities = late(["label", "probabilities"], given)
        columns = (delay(["value"], given)[0][:, 0], label, probabilities[:, 1], air(["value"], given)[0][:, 0])
        return [
            orjson.dumps({"event_id": event["id"], "value": said})
            for event, said in zip(events, zip(*(column.tolist() for column in columns), strict=True), strict=True)
        ]

    return score


def _minutes(hhmm: int) -> int:
    return hhmm - 40 * (hhmm // 100)
