"""Write `facts.json`, what `features.py` knows of carriers and airports.

``python -m modelstream.examples.flights.facts`` does so. All of it is known before any flight leaves; nothing is
counted or averaged over flights.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from modelstream.examples.flights.data import find_data, read_flights

__all__ = ["build_facts", "format_facts"]


def _airport(lat: float, lon: float, utc_offset_h: int, summer_time: bool) -> dict[str, float | bool]:
    return {"lat": round(lat, 4), "lon": round(lon, 4), "utc_offset_h": utc_offset_h, "summer_time": summer_time}


#: Four airports of `flights.csv` that `airports.csv` lacks, all of them in Puerto Rico and the Virgin Islands.
_CARIBBEAN = {
    "BQN": _airport(18.4949, -67.1294, -4, False),
    "PSE": _airport(18.0083, -66.5630, -4, False),
    "SJU": _airport(18.4394, -66.0018, -4, False),
    "STT": _airport(18.3373, -64.9734, -4, False),
}


def build_facts() -> dict[str, Any]:
    """Return the carriers, in order of their code, and the facts of every airport that the flights touch."""
    with find_data("airlines.csv").open(encoding="utf-8", newline="") as lines:
        carriers = sorted(row["carrier"] for row in csv.DictReader(lines))
    with find_data("airports.csv").open(encoding="utf-8", newline="") as lines:
        known = {
            row["faa"]: _airport(float(row["lat"]), float(row["lon"]), int(row["tz"]), row["dst"] == "A")
            for row in csv.DictReader(lines)
        } | _CARIBBEAN
    flights = read_flights()
    codes = np.union1d(flights["origin"], flights["dest"]).tolist()
    return {"carriers": carriers, "airports": {code: known[code] for code in codes}}


def format_facts(facts: dict[str, Any]) -> str:
    """Return the facts as JSON with one airport a line, so that a change shows as the lines it touches."""
    airports = ",\n".join(f'    "{code}": {json.dumps(airport)}' for code, airport in facts["airports"].items())
    return f'{{\n  "carriers": {json.dumps(facts["carriers"])},\n  "airports": {{\n{airports}\n  }}\n}}\n'


if __name__ == "__main__":
    Path(__file__).with_name("facts.json").write_text(format_facts(build_facts()), encoding="utf-8")
