"""``modelstream what-if``: what other batch sizes, waits and threads would give, without trying them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from modelstream.streams.cli.common import (
    OutputFile,
    RateType,
    ended_by_ctrl_c,
    pipeline_argument,
    read_pipeline,
    set_option,
)
from modelstream.streams.cli.pace_options import SpeedType, check_times, make_pace
from modelstream.streams.cli.replay_offline import outside_costs
from modelstream.streams.event_files import FileFormat
from modelstream.streams.replay.arrivals import Arrivals
from modelstream.streams.replay.calibration import calibrate
from modelstream.streams.replay.costs import measure_costs, read_costs
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.prepared import prepare
from modelstream.streams.replay.report_text import figure
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.sources import open_source
from modelstream.streams.replay.what_if import SETTINGS, Setting, WhatIf, at_full_speed, at_pace, grid
from modelstream.streams.wording import counted

__all__ = ["command"]

#: A prediction's mean batch may differ from the measured one by this share without a remark.
_ROWS_OFF = 0.2

_FILE = click.Path(dir_okay=False, path_type=Path)


class _ChoiceType(click.ParamType):
    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, equals, texts = value.partition("=")
        try:
            numbers = [None if text == "none" else float(text) for text in texts.split(",")]
        except ValueError:
            numbers = []
        if not equals or not numbers:
            self.fail(f"{value!r} is no setting; write NAME=VALUE,VALUE…, as max_size=64,256", param, ctx)
        return name, numbers


@click.command(
    "what-if",
    epilog="""\b
Examples:
  modelstream what-if pipeline.yaml events.ndjson max_size=64,256,1024 max_wait_ms=0,5 --rate 20000/s
  modelstream replay pipeline.yaml events.ndjson --rate 20000/s --broker localhost:9092 --json now.json
  modelstream what-if pipeline.yaml events.ndjson in_flight=1,2 --rate 20000/s --measured now.json
""",
)
@pipeline_argument
@click.argument("file")
@click.argument("choices", nargs=-1, required=True, metavar="NAME=VALUE,VALUE…", type=_ChoiceType())
@set_option
@click.option("--speed", type=SpeedType(), metavar="1x|60x", help="Times faster than the event times say.")
@click.option("--rate", type=RateType(), metavar="N/s", help="Events per second in the mean, instead of a speed.")
@click.option("--arrivals", type=click.Choice(get_args(Arrivals)), help="How events come at a rate  [default: poisson]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random arrivals.")
@click.option("--limit", type=click.IntRange(min=1), default=100_000, show_default=True, metavar="N")
@click.option("--costs", type=_FILE, metavar="JSON", help="What work costs, if not measured: by replay --save-costs.")
@click.option(
    "--measured", type=_FILE, multiple=True, metavar="JSON",
    help="A replay's result at the pipeline's own settings, to go by: one at the rate, one at full speed, or both.",
)  # fmt: skip
@click.option("--format", "file_format", type=click.Choice(get_args(FileFormat)), help="What FILE holds.")
@click.option("--json", "json_file", type=OutputFile(), help="Write all of it there.")
@ended_by_ctrl_c("nothing is written")
def command(
    pipeline: Path,
    file: str,
    choices: tuple[tuple[str, list[float | None]], ...],
    overrides: tuple[str, ...],
    speed: float | None,
    rate: float | None,
    arrivals: Arrivals | None,
    seed: int,
    limit: int,
    costs: Path | None,
    measured: tuple[Path, ...],
    file_format: FileFormat | None,
    json_file: Path | None,
) -> None:
    """Predict p50, p99 and throughput of PIPELINE for other settings, at the pace of the events of FILE.

    The events' arrivals go through the worker's own batcher under a virtual clock, and no model is asked: what work
    costs is measured once, on this machine while nothing else uses it. With --measured, a replay of the pipeline as it
    is, predictions start from what it measured; that is what to trust. Settings are max_size, max_wait_ms,
    target_p99_ms and in_flight of all stages that infer, and threads; `none` takes one away.
    """
    pace = make_pace(speed, rate, arrivals, seed)
    if pace.kind == "max":
        raise click.UsageError("say how fast events come: either --rate or --speed")
    settings = grid(dict(choices))
    described = read_pipeline(pipeline, overrides)
    built = described.build()
    path = None if file == "-" else Path(file)
    source = open_source(path, file_format, described.spec.source, as_is=False)
    check_times(pace, described.spec.source, source.has_times, instead="--rate N/s")
    records = list(islice(source.some_records(), limit))
    with tempfile.TemporaryDirectory() as folder:
        times_ms = prepare(iter(records), described.spec.source, 1, Path(folder)).times_ms
    keys, values = [record[0] for record in records], [record[1] for record in records]
    due_us = pace.schedule(len(records), times_ms).due_us
    if costs is not None:
        known = read_costs(costs, [stage.step_id for stage in built.stages])
    else:
        known = measure_costs(built, values, keys).model_copy(update=outside_costs(described.spec))
    results = [ReplayResult.read(one) for one in measured]
    paced = partial(at_pace, built, values, due_us)
    full = partial(at_full_speed, built, values)
    calibration = calibrate(
        known, partial(paced, {}), partial(full, {}), results, pace, described.spec, len(records)
    )  # fmt: skip
    _say_other_machines(results)
    now, *found = (
        calibration.what_if(setting, paced(setting, calibration.paced), full(setting, calibration.full))
        for setting in ({}, *settings)
    )
    _print(now, found, str(pace), results)
    if json_file is not None:
        said = {
            "pace": str(pace),
            "costs": calibration.paced.model_dump(mode="json"),
            "full_costs": calibration.full.model_dump(mode="json"),
            "tail_ms": calibration.tail_ms,
            "most_per_s": calibration.most_per_s,
            "now": now,
            "settings": found,
        }
        json_file.write_bytes(orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _say_other_machines(results: list[ReplayResult]) -> None:
    here = describe_environment("")
    others = {(one.environment.cpu, one.environment.cpus) for one in results} - {(here.cpu, here.cpus)}
    for cpu, cpus in sorted(others):
        click.echo(
            f"note: measured on another machine ({cpu}, {counted(cpus, 'processor')}), and what work costs was "
            "measured here; replay here before you believe the figures",
            err=True,
        )


def _print(now: WhatIf, found: list[WhatIf], pace: str, results: list[ReplayResult]) -> None:
    names = [name for name in SETTINGS if name in found[0].setting]
    title = f"at {pace}, one worker; events/s at the most, rows of a batch in the mean"
    table = Table(box=None, title=title, title_justify="left", pad_edge=False)
    for name in (*names, "p50 ms", "p99 ms", "events/s", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    rows = [_predicted_figures(one) for one in found]
    _, p99s, rates, _ = zip(*rows, strict=True)
    least = _marks("least p99", p99s, p99s[np.argmin([one.p99_ms for one in found])])
    most = _marks("most events/s", rates, rates[np.argmax([one.throughput_per_s for one in found])])
    full = next((result for result in results if result.arrivals == "max"), None)
    paced = next((result for result in results if result.arrivals != "max"), None)
    table.add_row(*_first("as it is", names), *_predicted_figures(now), "")
    if results:
        off = _rows_off(now, paced)
        table.add_row(*_first("measured", names), *_measured_figures(full, paced), "other rows" if off else "")
    for one, row, *marks in zip(found, rows, least, most, strict=True):
        table.add_row(*(_text(one.setting, name) for name in names), *row, ", ".join(filter(None, marks)))
    Console().print(table)
    if paced is not None and _rows_off(now, paced):
        click.echo(
            f"A measured micro-batch has {paced.mean_batch:,.1f} rows, a predicted one {now.mean_batch:,.1f}: more "
            f"than {_ROWS_OFF:.0%} apart. p50 and p99 as it is are fitted; of other settings they are less certain."
        )
    if not results:
        click.echo("Compare the rows with each other only: figures are relative until calibrated with --measured.")
    elif full is None:
        click.echo("Compare events/s with each other only: a replay at full speed would tell how much work takes here.")
    elif paced is None:
        click.echo("Compare p50 and p99 with each other only: a replay at the rate would tell the way through Kafka.")


def _marks(text: str, shown: Sequence[str], best: str) -> list[str]:
    """Return the text for each row that shows the best figure, else nothing; where all show the same none is best."""
    return [text if one == best and len(set(shown)) > 1 else "" for one in shown]


def _rows_off(now: WhatIf, paced: ReplayResult | None) -> bool:
    if paced is None or not paced.mean_batch:
        return False
    return abs(now.mean_batch - paced.mean_batch) > _ROWS_OFF * paced.mean_batch


def _first(text: str, names: list[str]) -> list[str]:
    return [text, *[""] * (len(names) - 1)]


def _predicted_figures(one: WhatIf) -> tuple[str, ...]:
    return _figures(one.p50_ms, one.p99_ms, one.throughput_per_s, one.mean_batch)


def _measured_figures(full: ReplayResult | None, paced: ReplayResult | None) -> tuple[str, ...]:
    p50_ms, p99_ms, mean_batch = (paced.p50_ms, paced.p99_ms, paced.mean_batch) if paced else (None, None, None)
    return _figures(p50_ms, p99_ms, full.full_speed_per_s if full else None, mean_batch)


def _figures(
    p50_ms: float | None, p99_ms: float | None, per_s: float | None, mean_batch: float | None
) -> tuple[str, ...]:
    p50, p99, rows = ("" if one is None else f"{one:,.1f}" for one in (p50_ms, p99_ms, mean_batch))
    return p50, p99, "" if per_s is None else figure(per_s), rows


def _text(setting: Setting, name: str) -> str:
    value = setting[name]
    return "none" if value is None else f"{value:g}"
