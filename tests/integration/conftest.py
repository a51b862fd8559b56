"""Pipelines on Apache Kafka, each with topics and a group of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.streams import KnownStream


@pytest.fixture
def make_stream(kafka: Any, make_topics: Callable[..., list[str]], tmp_path: Path) -> Callable[..., KnownStream]:
    """Make a stream with known answers: ``make_stream(partitions=4)``."""

    def make(partitions: int = 2) -> KnownStream:
        source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=partitions)
        return KnownStream(kafka.bootstrap, tmp_path, source, sink, dead, group=source.replace("events", "group"))

    return make
