"""``modelstream replay --capture``: a topic's records to a file."""

from __future__ import annotations

from pathlib import Path

import click

from modelstream.streams.cli.common import broker_settings, read_pipeline
from modelstream.streams.cli.dlq_text import utc
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.cli.replay_options import ReplayOptions
from modelstream.streams.replay.capture import write_capture
from modelstream.streams.replay.sources import TopicSource
from modelstream.streams.wording import counted

__all__ = ["capture_topic"]


def capture_topic(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    more: ReplayOptions,
    limit: int | None,
    progress: bool,
) -> None:
    """Write the source topic of a pipeline, or another one, to a Parquet file, and say what it holds."""
    assert more.capture is not None
    spec = read_pipeline(pipeline, overrides).spec
    topic = more.topic or spec.source.topic
    source = TopicSource(broker_settings(broker, spec.broker), topic, more.since_ms, more.until_ms)
    with show_progress("captured", progress) as advance:
        summary = write_capture(
            more.capture, topic, source.batches(limit),
            on_progress=lambda n_records: advance(n_records, source.share_of(n_records)),
        )  # fmt: skip
    span = ""
    if summary.first_ms is not None and summary.last_ms is not None:
        span = f", from {utc(summary.first_ms)} to {utc(summary.last_ms)}"
    size = f"{summary.n_bytes / 1e6:,.1f} MB"
    click.echo(f"captured {counted(summary.n_records, 'record')} of {topic}{span}: {more.capture}, {size}", err=True)
