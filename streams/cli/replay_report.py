"""``modelstream replay --report``: what a report tells of how its figures came about."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from modelstream.streams.cli.common import read_pipeline
from modelstream.streams.cli.drawing import graph_of
from modelstream.streams.graph_svg import to_svg
from modelstream.streams.replay.difference import Difference
from modelstream.streams.replay.report import Origin, write_difference, write_report
from modelstream.streams.replay.result import ReplayResult

__all__ = ["report_difference", "report_replay"]


def report_replay(path: Path, result: ReplayResult, pipeline: Path, overrides: tuple[str, ...]) -> None:
    """Write the report of a replay."""
    write_report(path, result, _origin(pipeline, overrides))
    click.echo(f"wrote {path}", err=True)


def report_difference(path: Path, difference: Difference, pipeline: Path, overrides: tuple[str, ...]) -> None:
    """Write the report of a comparison."""
    write_difference(path, difference, _origin(pipeline, overrides))
    click.echo(f"wrote {path}", err=True)


def _origin(pipeline: Path, overrides: tuple[str, ...]) -> Origin:
    return Origin(
        command=shlex.join(["modelstream", *sys.argv[1:]]),
        pipeline=pipeline.read_text("utf-8"),
        drawing=to_svg(graph_of(read_pipeline(pipeline, overrides))),
    )
