"""What the rows share: runs with a load and an oracle, which rows are run, and the table of what was measured.

By environment, as ``make faults ROWS=F03,F12 SEED=7`` sets it:

FAULT_SCALE
    ``ci``, the default: every row. ``quick``: those marked so, in a small version, for ``make test``. ``soak``: F25.
FAULT_ROWS
    Rows to run; all by default.
FAULT_SEED
    Of the random generator that decides when and whom a fault hits.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.fault_run import FaultRun
from support.fault_table import RESULTS, merge, shown
from support.load import slow_down
from support.oracle import Verdict
from support.streams import KnownStream

_MEASURED = pytest.StashKey[list[dict[str, Any]]]()
_SCALE = os.environ.get("FAULT_SCALE") or "ci"
_ROWS = {row.strip().upper() for row in os.environ.get("FAULT_ROWS", "").split(",") if row.strip()}
_SEED = int(os.environ.get("FAULT_SEED") or 5)


def _row_of(item: pytest.Item) -> str:
    found = re.match(r"test_(f\d\d)_", item.name)
    return found.group(1).upper() if found else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rows that are not asked for."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if unknown := _ROWS - {_row_of(item) for item in here}:
        raise pytest.UsageError(f"FAULT_ROWS: there is no row {', '.join(sorted(unknown))}")
    left_out = [item for item in here if not _is_wanted(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_wanted(item: pytest.Item) -> bool:
    if (_row_of(item) == "F25") != (_SCALE == "soak"):
        return False
    if _SCALE == "quick" and item.get_closest_marker("quick") is None:
        return False
    return not _ROWS or _row_of(item) in _ROWS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the seed into the test's id."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", [_SEED], ids=[f"seed={_SEED}"])


@pytest.fixture
def quick() -> bool:
    """Whether this is the small version, for ``make test``."""
    return _SCALE == "quick"


@pytest.fixture
def make_slow_stream(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> Callable[..., KnownStream]:
    """Make a stream with known answers whose batches take a while: ``make_slow_stream(partitions=4, batch_s=0.5)``."""

    def make(partitions: int = 2, batch_s: float = 0.2) -> KnownStream:
        source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=partitions)
        stream = KnownStream(kafka.bootstrap, tmp_path, source, sink, dead, group=source.replace("events", "group"))
        if batch_s:
            slow_down(stream, batch_s)
        return stream

    return make


@pytest.fixture
def make_run(make_slow_stream: Callable[..., KnownStream], seed: int) -> Callable[..., FaultRun]:
    """Make a run on the session's Kafka: ``make_run(partitions=6, batch_s=0.2, per_s=1000)``."""

    def make(partitions: int = 6, batch_s: float = 0.0, **options: Any) -> FaultRun:
        return FaultRun(make_slow_stream(partitions, batch_s), Random(seed), **options)

    return make


@pytest.fixture
def publish(request: pytest.FixtureRequest, seed: int) -> Callable[..., None]:
    """Note the figures of a row: ``publish("SIGTERM x10", verdict, bound=0, recovery_s=[1.5], stop_s=0.7)``."""

    def note(
        fault: str, verdict: Verdict, *, bound: int | None, recovery_s: Any = None, guarantee: str = "at-least-once",
        **more: object,
    ) -> None:  # fmt: skip
        figures = {
            "row": _row_of(request.node), "fault": fault, "guarantee": guarantee, "events": verdict.n_events,
            "lost": len(verdict.lost), "duplicated": verdict.duplicated, "bound": bound, "wrong": len(verdict.wrong),
            "reordered": verdict.reordered, "recovery_s": recovery_s, "more": more, "seed": seed,
        }  # fmt: skip
        request.node.stash.setdefault(_MEASURED, []).append(figures)

    return note


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note figures of a row that has an oracle of its own: ``measured("F17 kill -9 x20", lost=0)``."""

    def note(fault: str, guarantee: str = "exactly-once", **figures: Any) -> None:
        row, _, what = fault.partition(" ")
        known = {"duplicates": "duplicated", "out_of_order": "reordered"}
        named = {known.get(name, name): figure for name, figure in figures.items()}
        columns = ("events", "lost", "duplicated", "bound", "wrong", "reordered", "recovery_s", "seed")
        own = {name: named.pop(name) for name in columns if name in named}
        noted = {"row": row, "fault": what, "guarantee": guarantee, **own, "more": named}
        request.node.stash.setdefault(_MEASURED, []).append(noted)

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Publish the figures of a row that passed; show those of one that failed."""
    report: Any = yield
    rows = item.stash.get(_MEASURED, [])
    if report.when == "call" and rows:
        item.config.stash.setdefault(_MEASURED, []).extend({**row, "passed": report.passed} for row in rows)
        if report.passed and _SCALE != "quick":
            merge(RESULTS, [{**row, "commit": _commit()} for row in rows])
    return report


def _commit() -> str:
    run = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return run.stdout.strip()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the figures, also of tests that passed."""
    if rows := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured under faults")
        for row in rows:
            figures = {name: row[name] for name in row if name not in ("row", "fault", "passed", "more")}
            name = f"{'' if row['passed'] else 'FAILED '}{row['row']} {row['fault']}"
            terminalreporter.write_line(f"{name}: {shown(figures)}, {shown(row['more'])}")
