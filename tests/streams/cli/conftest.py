"""The command line as a person runs it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runs import plain_environment

#: Far more than any command takes here; one that hangs fails its test, not the session.
DEADLINE_S = 60.0

PIPELINE = """
pipeline: trial
source: {{topic: {source}, key: tail, event_id: id}}
stages:
  - {{id: delay, infer: {{models: [arrival_delay]}}}}
sink: {{topic: {sink}, dead_letter: {dead}}}
broker: {broker}
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment of commands, without what the tests' own may say of brokers and terminals."""
    kept = plain_environment()
    return kept | {"PYTHONWARNINGS": "error", "COLUMNS": "100"}


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``modelstream ARGUMENTS`` with pipes for its output; killed afterwards where it still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start_command(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "modelstream", *map(str, arguments)]
        started.append(subprocess.Popen(command, **{**pipes, "env": environment, **options}))
        return started[-1]

    yield start_command
    for process in started:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            pipe.close()


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``modelstream ARGUMENTS`` to its end: ``run("produce", file, "-", input=b"…")``."""

    def run_command(*arguments: object, input: bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "modelstream", *map(str, arguments)]
        done = subprocess.run(
            command, input=input, capture_output=True, timeout=DEADLINE_S, env=environment | environ, check=False
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(command, done.returncode, stdout, stderr)

    return run_command


@pytest.fixture
def trial(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> dict[str, Any]:
    """A pipeline file on topics of its own: ``trial["file"]``, ``["source"]``, ``["sink"]``, ``["dead"]``."""
    source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=2)
    file = tmp_path / "trial.yaml"
    file.write_text(PIPELINE.format(source=source, sink=sink, dead=dead, broker=kafka.bootstrap))
    return {"file": file, "source": source, "sink": sink, "dead": dead, "broker": kafka.bootstrap}


@pytest.fixture
def nowhere_file(tmp_path: Path) -> Path:
    """A pipeline file that names no broker."""
    file = tmp_path / "nowhere.yaml"
    text = PIPELINE.format(source="events", sink="predictions", dead="dead", broker="x")
    file.write_text(text.replace("broker: x\n", ""))
    return file
