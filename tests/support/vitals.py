"""What a process holds: memory, descriptors, threads; read from /proc."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a process holds at a moment."""

    at_s: float
    rss_mb: float
    n_descriptors: int
    n_threads: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """Look at a process; it must live."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            time.monotonic(),
            int(status["VmRSS"].split()[0]) / 1024,
            sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            int(status["Threads"]),
        )


class VitalsLog(threading.Thread):
    """Notes the vitals of processes until it is left; those that end meanwhile are left out from then on."""

    def __init__(self, *pids: int, every_s: float = 0.5) -> None:
        super().__init__(name="vitals", daemon=True)
        self._every_s = every_s
        self._done = threading.Event()
        self.found: dict[int, list[Vitals]] = {pid: [] for pid in pids}

    def run(self) -> None:
        while True:
            for pid, found in self.found.items():
                try:
                    found.append(Vitals.of(pid))
                except (OSError, KeyError):  # ended, or a zombie without memory
                    continue
            if self._done.wait(self._every_s):
                return

    @property
    def rss_growth_mb(self) -> float:
        """By how much the process that grew most has grown, from the first look to its peak."""
        return max(max(v.rss_mb for v in found) - found[0].rss_mb for found in self.found.values() if found)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line through points.

    Examples
    --------
    >>> slope([(0, 1), (1, 3), (2, 5)])
    2.0
    """
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
