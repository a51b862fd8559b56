"""How a command ended, and whether it told what was wrong as every command must."""

from __future__ import annotations

from typing import NamedTuple


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
