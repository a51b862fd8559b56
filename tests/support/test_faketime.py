"""A wrong clock is wrong by what it says, jumps, and leaves the monotonic clock alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import faketime
from support.faketime import WrongClock

_READ = "import sys, time\nfor line in sys.stdin: print(time.time(), time.monotonic(), flush=True)"


@pytest.mark.parametrize("by", ["libfaketime", "sitecustomize"])
def test_a_wrong_clock(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "sitecustomize":
        monkeypatch.setattr(faketime, "_LIBRARIES", [])
    clock = WrongClock(tmp_path, -3600.0)
    if clock.by != by:
        pytest.skip("Debian's package libfaketime is not installed")
    command = [sys.executable, "-c", _READ]
    with subprocess.Popen(
        command, env={**os.environ, **clock.environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout

        def offsets() -> tuple[float, float]:
            print(file=process.stdin, flush=True)
            wall, monotonic = map(float, process.stdout.readline().split())
            return wall - time.time(), monotonic - time.monotonic()

        assert offsets() == (pytest.approx(-3600, abs=30), pytest.approx(0, abs=30))
        clock.jump(600.0)
        deadline = time.monotonic() + 30
        while abs(offsets()[0] - 600) > 30:  # it looks at its file once a second
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert offsets()[1] == pytest.approx(0, abs=30)
        process.stdin.close()
