"""How far `modelstream what-if` is from what replays measure, on the flights.

The pipeline as it is is replayed at the rate and at full speed. Other settings are predicted from these two replays
and nothing else, and then replayed too, all in turn in each round. A prediction starts from the rounds with the median
p99 and the median rate, and is compared with the medians. The share by which each figure is off is printed; exit code 1
says that one is off by more than ``--bound``.

Usage: ``python -m benchmarks.what_if --rate 8000 --seconds 10 --json FILE``; some six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.cluster import open_broker

from modelstream.examples.flights.data import encoded_events
from modelstream.streams.replay.result import ReplayResult

__all__ = ["main"]

PIPELINE = Path(__file__).parent.parent / "examples" / "flights" / "pipeline.yaml"
STAGE = 2

#: Compared with what is measured. The first is the pipeline as it is.
SETTINGS: tuple[dict[str, int], ...] = ({}, {"max_size": 64}, {"max_wait_ms": 5}, {"in_flight": 2})

#: Events of a replay at full speed: some seconds.
_FULL_SPEED_EVENTS = 300_000


def main(arguments: list[str] | None = None) -> int:
    """Measure, predict, compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="kafka", help="kafka, embedded, or HOST:PORT")
    parser.add_argument("--rate", type=int, default=8_000, help="events per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each replay at the rate")
    parser.add_argument("--rounds", type=int, default=3, help="replays of each setting, at the rate and at full speed")
    parser.add_argument("--bound", type=float, default=0.20, help="share that a figure may be off")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with open_broker(options.broker) as address, tempfile.TemporaryDirectory() as folder:
        rows = _Comparison(address, Path(folder), options.rate, options.seconds).rows(options.rounds)
    for row in rows:
        print(_line(row))
    if options.json is not None:
        options.json.write_text(json.dumps({"rate_per_s": options.rate, "settings": rows}, indent=2) + "\n")
    worst = max(abs(row["off"][name]) for row in rows for name in row["off"])
    print(f"the worst is off by {worst:.0%}")
    return 0 if worst <= options.bound else 1


class _Comparison:
    def __init__(self, address: str, folder: Path, rate: int, seconds: float) -> None:
        self._address, self._folder, self._rate = address, folder, rate
        self._events = folder / "flights.ndjson"
        self._n_events = int(rate * seconds)
        with self._events.open("wb") as file:
            n_events = max(self._n_events, _FULL_SPEED_EVENTS)
            file.writelines(value + b"\n" for _, value in islice(encoded_events(n_events), n_events))

    def rows(self, n_rounds: int) -> list[dict[str, Any]]:
        # A broker that has just been started compiles for some seconds, on the processors that the worker needs.
        for is_paced in (False, True):
            self._replay({}, paced=is_paced)
        paced = self._rounds(n_rounds, paced=True)
        full = self._rounds(n_rounds, paced=False)
        known = _middle(paced[0], "p99_ms"), _middle(full[0], "full_speed_per_s")
        return [
            _compare(setting, self._predict(setting, *known), *measured)
            for setting, *measured in zip(SETTINGS, paced, full, strict=True)
        ]

    def _rounds(self, n_rounds: int, *, paced: bool) -> list[tuple[dict[str, Any], ...]]:
        """Return the replays of each setting."""
        rounds = [[self._replay(setting, paced=paced) for setting in SETTINGS] for _ in range(n_rounds)]
        return list(zip(*rounds, strict=True))

    def _replay(self, setting: dict[str, int], *, paced: bool) -> dict[str, Any]:
        out = self._folder / f"measured-{len(list(self._folder.iterdir()))}.json"
        sets = [f"--set=stages[{STAGE}].infer.batch.{name}={value}" for name, value in setting.items()]
        pace = (
            ["--rate", str(self._rate), "--limit", str(self._n_events)]
            if paced
            else ["--limit", str(_FULL_SPEED_EVENTS)]
        )
        _modelstream(
            "replay", str(PIPELINE), str(self._events), *pace, "--partitions", "2", "--no-progress",
            "--broker", self._address, "--json", str(out), *sets,
        )  # fmt: skip
        result = ReplayResult.read(out)
        told = {name: getattr(result, name) for name in ("p50_ms", "p99_ms", "full_speed_per_s", "p99_send_delay_ms")}
        print(f"measured {setting or 'as it is'}: {told}", flush=True)
        return told | {"path": str(out)}

    def _predict(self, setting: dict[str, int], paced: dict[str, Any], full: dict[str, Any]) -> dict[str, Any]:
        out = self._folder / "predicted.json"
        choices = [f"{name}={value}" for name, value in (setting or {"max_size": 1024}).items()]
        _modelstream(
            "what-if", str(PIPELINE), str(self._events), *choices, "--rate", f"{self._rate}/s",
            "--limit", str(self._n_events), "--measured", paced["path"], "--measured", full["path"],
            "--json", str(out),
        )  # fmt: skip
        found: dict[str, Any] = json.loads(out.read_bytes())["settings"][0]
        return found


def _middle(runs: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    return sorted(runs, key=lambda run: float(run[name]))[len(runs) // 2]


def _median(runs: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.median([run[name] for run in runs]))


def _modelstream(*arguments: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELSTREAM_")}
    subprocess.run(
        [sys.executable, "-m", "modelstream", *arguments], check=True, env=kept, stdout=subprocess.DEVNULL, timeout=300
    )


def _compare(
    setting: dict[str, int],
    predicted: dict[str, Any],
    paced: Sequence[dict[str, Any]],
    full: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    figures = {
        "p50_ms": (predicted["p50_ms"], _median(paced, "p50_ms")),
        "p99_ms": (predicted["p99_ms"], _median(paced, "p99_ms")),
        "throughput_per_s": (predicted["throughput_per_s"], _median(full, "full_speed_per_s")),
    }
    return {
        "setting": setting,
        "predicted": {name: round(one, 3) for name, (one, _) in figures.items()},
        "measured": {name: other for name, (_, other) in figures.items()},
        "off": {name: round(one / other - 1, 4) for name, (one, other) in figures.items()},
    }


def _line(row: dict[str, Any]) -> str:
    setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items()) or "as it is"
    figures = [
        f"{name} {row['predicted'][name]:,.1f} for {row['measured'][name]:,.1f} ({row['off'][name]:+.0%})"
        for name in row["off"]
    ]
    return f"{setting:16} {'; '.join(figures)}"


if __name__ == "__main__":
    sys.exit(main())
