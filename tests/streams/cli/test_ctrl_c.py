"""Ctrl-C in commands that compute in their own process: a line says what is left, and the exit code is 130."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.onnx_factory import affine, write_model

PIPELINE = """\
pipeline: trial
source: {topic: trial.events, event_id: id}
stages: [{id: slow, filter: "slow:wait"}, {id: score, infer: {models: [triple]}}]
sink: {topic: trial.predictions, dead_letter: trial.dead}
"""
#: It says by a file that it is under way, and would take minutes.
SLOW = """\
import time
from pathlib import Path

import numpy as np


def wait(batch):
    Path(__file__).with_name("under-way").touch()
    time.sleep(0.05 * len(batch))
    return np.ones(len(batch), bool)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a pipeline that is slow, and its events."""
    write_model(tmp_path / "models", "triple", affine([3.0]), '[inputs.x]\nfields = ["seq"]\n')
    (tmp_path / "trial.yaml").write_text(PIPELINE)
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "events.ndjson").write_bytes(b"".join(b'{"id": "e%d", "seq": %d}\n' % (i, i) for i in range(5000)))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "options", "left"),
    [
        ("batch", ["out.ndjson"], "nothing is written to out.ndjson"),
        (
            "batch",
            ["-", "--dead-letters", "dead.ndjson"],
            "standard output has a part of the predictions, and nothing is written to dead.ndjson",
        ),
        ("replay", ["--offline", "--save-costs", "costs.json", "--json", "result.json"], "nothing is written"),
        ("replay", ["--diff", "trial.yaml", "--json", "result.json"], "nothing is written"),
        ("what-if", ["max_size=8", "--rate", "100/s", "--json", "result.json"], "nothing is written"),
    ],
)
def test_it_says_in_one_line_what_is_left(
    start: Callable[..., subprocess.Popen[bytes]], folder: Path, command: str, options: list[str], left: str
) -> None:
    process = start(command, "trial.yaml", "events.ndjson", *options, cwd=folder)
    while not (folder / "under-way").exists():
        assert process.poll() is None
        time.sleep(0.02)
    before = {path.name for path in folder.iterdir() if not path.name.endswith((".part", "__pycache__"))}
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.decode().splitlines()[-1] == f"modelstream: stopped before the end; {left}"
    assert b"Traceback" not in stderr
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before
