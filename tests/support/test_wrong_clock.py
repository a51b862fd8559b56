"""A wrong clock is wrong by what it says, jumps, and leaves the monotonic clock alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.wrong_clock import WrongClock

_READ = "import sys, time\nfor line in sys.stdin: print(time.time(), time.time_ns(), time.monotonic(), flush=True)"


def test_a_wrong_clock(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path, -3600.0)
    with subprocess.Popen(
        [sys.executable, "-c", _READ],
        env={**os.environ, **clock.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for offset_s in (-3600.0, 600.0):
            clock.jump(offset_s)
            print(file=process.stdin, flush=True)
            wall, wall_ns, monotonic = map(float, process.stdout.readline().split())
            assert wall - time.time() == pytest.approx(offset_s, abs=60)
            assert wall_ns / 1e9 - time.time() == pytest.approx(offset_s, abs=60)
            assert monotonic - time.monotonic() == pytest.approx(0, abs=60)
        process.stdin.close()


def test_a_clock_that_runs_too_fast(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path, rate=1000.0)
    before = time.time()
    time.sleep(0.05)
    code = "import time; print(time.time())"
    shown = float(subprocess.check_output([sys.executable, "-c", code], env={**os.environ, **clock.environ}))
    assert shown - before > 40
