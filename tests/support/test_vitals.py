"""What is told of a process is what it holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from support.vitals import Vitals, VitalsLog, slope

_GROW = "import sys; held = bytearray(80_000_000); print(flush=True); sys.stdin.read()"


def test_descriptors_and_threads_of_a_process() -> None:
    # Not of this one: clients of earlier tests may still be closing their connections.
    command = [sys.executable, "-c", f"print(flush=True); input(); opened = open({os.devnull!r}); {_GROW}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        before = Vitals.of(process.pid)
        print(file=process.stdin, flush=True)
        process.stdout.readline()
        assert Vitals.of(process.pid).n_descriptors == before.n_descriptors + 1
        assert before.n_threads == 1
        process.stdin.close()
        process.wait(30)


def test_growth_is_seen_also_of_a_process_that_ends() -> None:
    command = [sys.executable, "-c", f"input(); {_GROW}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        with VitalsLog(process.pid, every_s=0.01) as log:
            while not log.found[process.pid]:
                time.sleep(0.01)
            print(file=process.stdin, flush=True)
            process.stdout.readline()
            n_looks = len(log.found[process.pid])
            while len(log.found[process.pid]) < n_looks + 2:
                time.sleep(0.01)
            process.stdin.close()
            process.wait(30)
    assert 70 < log.rss_growth_mb < 200


def test_slope() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2.0)
    assert slope([(3, 1)]) == 0.0
