"""``modelstream replay --diff``: where two versions of a pipeline differ, as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from modelstream.streams.cli.common import broker_settings, ended_by_ctrl_c, read_pipeline
from modelstream.streams.cli.dlq_text import printable
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.cli.replay_options import ReplayOptions
from modelstream.streams.cli.replay_report import report_difference
from modelstream.streams.cli.replay_setting import ReplaySetting
from modelstream.streams.replay.comparing import compare
from modelstream.streams.replay.difference import Difference, FieldDifference
from modelstream.streams.replay.report_text import figure
from modelstream.streams.wording import counted

__all__ = ["compare_versions"]

#: Characters of a line that goes to a file or a pipe.
_PLAIN_WIDTH = 140
#: Rows of a table of labels: beyond them, only the JSON has all.
_MOST_FLIPS = 12


def compare_versions(setting: ReplaySetting, more: ReplayOptions, json_file: Path | None) -> None:
    """Run the events of a setting through its pipeline and another one, and say where they differ."""
    assert more.diff is not None
    difference = _compared(setting, more, more.diff)
    _print(difference)
    if json_file is not None:
        json_file.write_bytes(difference.to_json())
    if more.report is not None:
        report_difference(more.report, difference, setting.pipeline, setting.overrides)


@ended_by_ctrl_c("nothing is written")
def _compared(setting: ReplaySetting, more: ReplayOptions, other: Path) -> Difference:
    pipeline = read_pipeline(setting.pipeline, setting.overrides)
    spec = pipeline.spec
    built_a, built_b = pipeline.build(), read_pipeline(other).build()
    source = setting.open_file(spec) or setting.open_topic(broker_settings(setting.broker, spec.broker))
    with show_progress("compared", setting.progress) as advance:
        return compare(
            built_a, built_b, islice(source.some_records(), setting.limit),
            names=(str(setting.pipeline), str(other)), tolerance=more.tolerance, n_worst=more.worst,
            on_progress=lambda n_events: advance(n_events, source.share_read()),
        )  # fmt: skip


def _print(difference: Difference) -> None:
    # What events hold is no markup. Where nobody looks at once, lines may be longer.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PLAIN_WIDTH)
    console.print(f"A  {difference.a}\nB  {difference.b}\n")
    console.print(_table(["EVENTS", "IN A", "IN B"], _fates(difference), right={0}))
    if difference.reasons_differ:
        console.print(f"\n{counted(difference.reasons_differ, 'dead letter')} differ in their stage or reason")
    if difference.fields:
        console.print()
        console.print(_table(_COLUMNS, map(_row, difference.fields), right=set(range(1, len(_COLUMNS)))))
    for one in difference.fields:
        if one.differing:
            console.print(f"\n{_name(one)}")
            if flips := [(f"{flip.count:,}", _shown(flip.a), _shown(flip.b)) for flip in one.flips if flip.a != flip.b]:
                console.print(_table(["EVENTS", "IN A", "IN B"], flips[:_MOST_FLIPS], right={0}))
            worst = [(printable(w.event_id), _shown(w.a), _shown(w.b), figure(w.difference)) for w in one.worst]
            console.print(_table(["WORST EVENTS", "A", "B", "APART"], worst, right={3}))
    if difference.is_equal:
        console.print("\nno difference")


_COLUMNS = ["FIELD", "COMPARED", "EQUAL", "DIFFERING", "ONLY A", "ONLY B", "MEAN", "P99", "MAX"]


def _row(one: FieldDifference) -> tuple[str, ...]:
    counts = (one.compared, one.equal, one.differing, one.only_a, one.only_b)
    return _name(one), *(f"{n:,}" for n in counts), *map(figure, (one.mean_abs, one.p99_abs, one.max_abs))


def _name(one: FieldDifference) -> str:
    return f"{one.model}.{one.field}"


def _fates(difference: Difference) -> Iterator[tuple[str, ...]]:
    for fate in difference.fates:
        yield f"{fate.count:,}", fate.a, fate.b


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return printable(text if len(text) <= 40 else f"{text[:39]}…")


def _table(heads: list[str], rows: Any, right: set[int]) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
