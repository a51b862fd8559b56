"""Pipelines on Apache Kafka, each with topics and a group of its own."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runs import Run
from support.streams import KnownStream

from modelstream.streams.cli.main import main


@pytest.fixture
def make_stream(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> Callable[..., KnownStream]:
    """Make a stream with known answers: ``make_stream(partitions=4)``."""

    def make(partitions: int = 2) -> KnownStream:
        source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=partitions)
        return KnownStream(kafka.bootstrap, tmp_path, source, sink, dead, group=source.replace("events", "group"))

    return make


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Run]]:
    """Run ``modelstream run`` in this process, where it ends before it would start a worker; or another ``command``."""
    root = logging.getLogger()
    level, handlers, on_sigterm = root.level, root.handlers[:], signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, command: str = "run") -> Run:
        monkeypatch.setattr(sys, "argv", ["modelstream", *command.split(), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Run(ended.value.code, *capfd.readouterr())

    monkeypatch.delenv("MODELSTREAM_BROKER", raising=False)
    yield run
    signal.signal(signal.SIGTERM, on_sigterm)
    root.handlers[:], root.level = handlers, level
