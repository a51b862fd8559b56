"""Streams whose batches take a while, and a summary of what was measured under each fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.load import slow_down
from support.streams import KnownStream

_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def make_slow_stream(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> Callable[..., KnownStream]:
    """Make a stream with known answers whose batches take a while: ``make_slow_stream(partitions=4, batch_s=0.5)``."""

    def make(partitions: int = 2, batch_s: float = 0.2) -> KnownStream:
        source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=partitions)
        stream = KnownStream(kafka.bootstrap, tmp_path, source, sink, dead, group=source.replace("events", "group"))
        slow_down(stream, batch_s)
        return stream

    return make


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note figures for the summary at the end: ``measured("F01", lost=0, recovery_s=[6.1, 6.4])``."""

    def note(fault: str, **figures: object) -> None:
        text = ", ".join(f"{name} {_shown(figure)}" for name, figure in figures.items())
        request.config.stash.setdefault(_MEASURED, []).append(f"{fault}: {text}")

    return note


def _shown(figure: object) -> str:
    if isinstance(figure, list):
        return "/".join(map(_shown, figure))
    return f"{figure:.1f}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else str(figure)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the figures, also of tests that passed."""
    if lines := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured under faults")
        for line in lines:
            terminalreporter.write_line(line)
