"""A benchmark that is told to end leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

_SCRIPT = """
import sys
from pathlib import Path
from benchmarks.cluster import open_broker
from benchmarks.measurement import Worker

with open_broker("127.0.0.1:1"):
    worker = Worker([sys.executable, "-c", "import time; time.sleep(600)"], Path.cwd(), Path(sys.argv[1]))
    try:
        print("running", flush=True)
        while True:
            worker.watch()
    finally:
        worker.stop()
"""


def test_workers_end_with_a_benchmark_that_is_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "worker.log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            left = [worker for worker in workers if worker.is_running()]
            for worker in left:
                worker.kill()
    assert workers
    assert left == []
