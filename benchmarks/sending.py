"""What happens beside the workers while records are sent: the process that sends them, and the wait for outputs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.checks import RunFailed
from benchmarks.cluster import Cluster

__all__ = ["Generator", "Sent", "generating", "wait_for_outputs"]

_LOOK_S = 0.05

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sent:
    """What the generator says of itself.

    Parameters
    ----------
    start_s : float
        When the first record was due, in seconds since 1970.
    late_ms : float
        How late the latest record was handed to the producer.
    sent_per_s : float
        Records over the time from there until the broker had acknowledged all.
    """

    start_s: float
    late_ms: float
    sent_per_s: float


class Generator:
    """The generator's process, as `generating` starts it."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def check(self) -> None:
        """Raise `RunFailed` if it failed."""
        if self._process.poll():
            self._errors.seek(0)
            said = self._errors.read().splitlines()[-1:] or ["it said nothing"]
            raise RunFailed(f"the generator ended with exit code {self._process.returncode}: {said[0]}")

    def wait(self, watch: Callable[[], object], timeout_s: float) -> Sent:
        """Return what it says at its end; `watch` is called all the while.

        Raises
        ------
        RunFailed
            It failed, or is not done in time.
        """
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise RunFailed(f"the generator was not done within {timeout_s:.0f} s")
            watch()
            time.sleep(_LOOK_S)
        self.check()
        assert self._process.stdout is not None
        return Sent(**json.loads(self._process.stdout.read()))


@contextmanager
def generating(
    address: str, topic: str, workload: str, *, first: int, n: int, rate_per_s: float, linger_ms: float
) -> Iterator[Generator]:
    """Send `n` records from number `first` on, in a process of their own that ends with the block at the latest."""
    arguments = (address, topic, workload, first, n, rate_per_s, linger_ms)
    command = [sys.executable, "-m", "benchmarks.generator", *map(str, arguments)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Generator(process, errors)
        finally:
            process.kill()


def wait_for_outputs(cluster: Cluster, topic: str, n: int, stall_s: float, watch: Callable[[], object]) -> None:
    """Wait until a topic has so many outputs; `watch` is called all the while.

    Raises
    ------
    RunFailed
        Nothing more came for `stall_s` seconds.
    """
    seen, deadline = -1, time.monotonic() + stall_s
    while (there := cluster.count(topic)) < n:
        if there > seen:
            seen, deadline = there, time.monotonic() + stall_s
        elif time.monotonic() > deadline:
            raise RunFailed(f"no output for {stall_s:.0f} s, {there} of {n} are there")
        watch()
        time.sleep(_LOOK_S)
