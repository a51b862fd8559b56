"""The example's year and one of its days, replayed with reports that a browser shows."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from support.browser import Browser
from support.report_pages import see_report
from support.runs import plain_environment

from modelstream.examples.flights.data import CANCELLED, FLIGHTS, encoded_events
from modelstream.streams.replay.result import ReplayResult

PIPELINE = Path(__file__).parents[2] / "examples" / "flights" / "pipeline.yaml"

#: The flights of the first of January.
DAY = 842
SPEED = 600


def replay(folder: Path, n_events: int, *options: str) -> tuple[ReplayResult, Path]:
    events, report, result = (folder / name for name in ("flights.ndjson", "report.html", "result.json"))
    with events.open("wb") as file:
        file.writelines(event + b"\n" for _, event in encoded_events(n_events))
    command = [sys.executable, "-m", "modelstream", "replay", PIPELINE, events, "--broker", "embedded", "--no-progress"]
    command += [*options, "--report", report, "--json", result]
    env = plain_environment()
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return ReplayResult.read(result), report


@pytest.mark.embedded
@pytest.mark.timeout(300)
def test_a_day_at_600_times_its_speed(browser: Browser, tmp_path: Path) -> None:
    result, report = replay(tmp_path, DAY, "--speed", f"{SPEED}x")
    assert (result.events, result.missing, result.duplicates) == (DAY, 0, 0)
    events = [orjson.loads(event) for _, event in encoded_events(DAY)]
    assert result.filtered == sum(event["dep_delay"] is None for event in events)
    assert result.predictions == DAY - result.filtered
    first, last = (datetime.fromisoformat(events[i]["scheduled_departure"]) for i in (0, -1))
    assert result.seconds == pytest.approx((last - first).total_seconds() / SPEED, rel=0.05)
    text = see_report(browser, report)
    assert "842 events at 600x" in text


@pytest.mark.embedded
@pytest.mark.timeout(300)
def test_a_year_as_fast_as_it_goes(browser: Browser, tmp_path: Path) -> None:
    result, report = replay(tmp_path, FLIGHTS, "--speed", "max")
    assert (result.events, result.missing, result.duplicates) == (FLIGHTS, 0, 0)
    assert (result.predictions, result.filtered) == (FLIGHTS - CANCELLED, CANCELLED)
    text = see_report(browser, report)
    assert "336,776 events" in text
