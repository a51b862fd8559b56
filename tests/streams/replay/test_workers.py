"""What workers use, as real processes do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from modelstream.streams.replay.workers import Workers

#: Uses both kinds of time for some of the system's ticks, then nothing.
BUSY = """
import os
while min(os.times()[:2]) < 0.03:
    os.urandom(1 << 16)
    sum(range(20_000))
print("done", flush=True)
input()
"""


@pytest.fixture
def idle_processes() -> Iterator[list[psutil.Process]]:
    """Return two processes that have worked, each for itself and for the system, and do nothing now."""
    command = [sys.executable, "-S", "-c", BUSY]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
    yield [psutil.Process(process.pid) for process in started]
    for process in started:
        process.communicate(b"\n")


def test_usage_is_user_and_system_time_and_memory_of_all(idle_processes: list[psutil.Process]) -> None:
    workers = Workers(2, [], {})
    workers._usage = idle_processes  # stand for workers, which would never be idle for certain
    used = workers.usage()
    times = [process.cpu_times() for process in idle_processes]
    assert min(min(one.user, one.system) for one in times) >= 0.03
    assert used.cpu_s == pytest.approx(sum(one.user + one.system for one in times))
    assert used.rss_bytes == sum(process.memory_info().rss for process in idle_processes)
