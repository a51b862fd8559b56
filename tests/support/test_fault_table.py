"""Rows that were not run keep their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.fault_table import merge


def _row(row: str, **figures: Any) -> dict[str, Any]:
    return {"row": row, "fault": "kill", "guarantee": "at-least-once", "seed": 5, **figures}


def test_a_run_replaces_its_rows_and_keeps_the_others(tmp_path: Path) -> None:
    merge(tmp_path, [_row("F03", lost=1, commit="aaa"), _row("F01", lost=0, duplicated=1234, commit="aaa")])
    merge(tmp_path, [_row("F03", lost=0, recovery_s=[1.25, 2.0], more={"stop s": 1}, commit="bbb")])
    lines = (tmp_path / "faults.md").read_text().splitlines()[-2:]
    assert lines == [
        "| F01 | kill | at-least-once |  | 0 | 1,234 |  |  |  |  |  | 5 | aaa |",
        "| F03 | kill | at-least-once |  | 0 |  |  |  |  | 1.2 / 2.0 | stop s 1 | 5 | bbb |",
    ]
