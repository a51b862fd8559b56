"""The published table of the fault suite: figures of the last run of each row, in JSON, and from it Markdown.

A run replaces the figures of the rows that passed in it; those of other rows stay as they are, with their own commit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

_HEAD = """\
# Faults

What was lost, duplicated, wrong and out of order under each fault, measured by `make faults` on Apache Kafka and Redis
as child processes; what a row does, and what the columns mean, stands in `docs/delivery.md`, section *Fault suite*.
Made from `faults.json`: a run replaces the rows that passed in it, the others keep the figures of their own run.

"""
_COLUMNS = {
    "row": "row", "fault": "fault", "guarantee": "guarantee", "events": "events", "lost": "lost",
    "duplicated": "duplicated", "bound": "bound", "wrong": "wrong", "reordered": "reordered",
    "recovery_s": "recovery s", "more": "more", "seed": "seed", "commit": "commit",
}  # fmt: skip
_NUMBERS = {"events", "lost", "duplicated", "bound", "wrong", "reordered", "recovery_s", "seed"}


def merge(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows into the table, in place of those of the same row and fault."""
    file = folder / "faults.json"
    known = orjson.loads(file.read_bytes()) if file.exists() else []
    by_name = {(row["row"], row["fault"]): row for row in [*known, *rows]}
    merged = [by_name[name] for name in sorted(by_name)]
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(orjson.dumps(merged, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    (folder / "faults.md").write_text(_HEAD + markdown(merged), encoding="utf-8")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [" | ".join(_COLUMNS.values()), " | ".join("--:" if name in _NUMBERS else "---" for name in _COLUMNS)]
    lines += [" | ".join(shown(row.get(name, "")) for name in _COLUMNS) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def shown(figure: Any) -> str:
    """Return a figure as people read it.

    Examples
    --------
    >>> shown(12345), shown([6.123, 7]), shown({"stop s": 1.25, "modes": "two"}), shown(None)
    ('12,345', '6.1 / 7', 'stop s 1.2, modes two', '')
    """
    if figure is None or (isinstance(figure, float) and math.isnan(figure)):
        return ""
    if isinstance(figure, Mapping):
        return ", ".join(f"{name} {shown(value)}" for name, value in figure.items())
    if isinstance(figure, (list, tuple)):
        return " / ".join(map(shown, figure))
    if isinstance(figure, float):
        return f"{figure:,.1f}"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
