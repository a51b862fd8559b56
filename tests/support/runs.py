"""What a command is given, how it ended, and whether it told what was wrong as every command must."""

from __future__ import annotations

import os
from typing import NamedTuple


def plain_environment() -> dict[str, str]:
    """Return the environment without what the tests' own may say of brokers and settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MODELSTREAM_")}


class Run(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def assert_told(run: Run, code: int, *named: str) -> None:
    """Assert that a command ended with this code and one message, which names all of these."""
    assert run.code == code, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr, run.stderr
    assert run.stderr.count("modelstream: error: ") == 1, run.stderr
    message = run.stderr.partition("modelstream: error: ")[2]
    for part in named:
        assert part in message, run.stderr
