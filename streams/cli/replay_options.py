"""Options of `replay` beyond the pace: other sources of events, what else to do with them, and the report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from modelstream.streams.cli.common import OutputFile
from modelstream.streams.cli.moments import TimeType
from modelstream.streams.replay.capture import CAPTURE_SUFFIXES, is_capture

__all__ = ["ReplayOptions", "replay_options"]

#: Options of the pace and of workers, which not every replay has: by the names of their parameters.
_OF_PACE = frozenset({"speed", "rate", "arrivals", "seed", "warm_up"})
_OF_WORKERS = frozenset({"redis", "workers", "partitions", "live", "drain_s"})
_OF_DIFF = frozenset({"tolerance", "worst"})

_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What the options say; see their help.

    Parameters
    ----------
    topic : str or None
        Where the events are, instead of a file.
    since_ms, until_ms : int or None
        Which of the topic's.
    capture, report : Path or None
        Files to write.
    diff : Path or None
        Another version of the pipeline.
    tolerance : float
        Numbers that are no further apart are equal.
    worst : int
        Events to name for each field that differs.
    offline : bool
        Whether to replay without a broker.
    costs, save_costs : Path or None
        Files to read costs from, and to write them to.
    """

    topic: str | None
    since_ms: int | None
    until_ms: int | None
    capture: Path | None
    report: Path | None
    diff: Path | None
    tolerance: float
    worst: int
    offline: bool = False
    costs: Path | None = None
    save_costs: Path | None = None

    def check(self, file: str | None) -> None:
        """Refuse what does not fit together.

        Raises
        ------
        click.UsageError
            There are too many sources of events, or none, or there is an option that would do nothing.
        """
        if self.capture is not None:
            self._check_capture(file, self.capture)
        elif file is not None and self.topic is not None:
            raise click.UsageError(f"FILE ({file}) and --from-topic were both given; leave one of them out")
        elif file is None and self.topic is None:
            raise click.UsageError("name the events to replay: either FILE or --from-topic TOPIC")
        elif self.topic is None and (self.since_ms is not None or self.until_ms is not None):
            raise click.UsageError("--since and --until are for topics, with --from-topic or --capture")
        if self.offline and (self.capture is not None or self.diff is not None):
            raise click.UsageError("--offline replays one pipeline; leave --capture and --diff out")
        if not self.offline and (self.costs is not None or self.save_costs is not None):
            raise click.UsageError("--costs and --save-costs are for --offline")
        if self.capture is not None:
            others = _OF_PACE | _OF_WORKERS | _OF_DIFF | {"file_format", "as_is", "json_file"}
            _refuse_given(others, "--capture replays nothing")
        elif self.diff is not None:
            _refuse_given(_OF_PACE | _OF_WORKERS, "--diff has no pace and no workers")
        else:
            _refuse_given(_OF_DIFF, "--diff compares, and this replay does not")

    def _check_capture(self, file: str | None, capture: Path) -> None:
        if file is not None:
            raise click.UsageError("--capture reads a topic; leave FILE out, or name the topic with --from-topic")
        if self.report is not None or self.diff is not None:
            raise click.UsageError("--capture replays nothing; leave --report and --diff out")
        if capture.suffix.lower() not in CAPTURE_SUFFIXES:
            raise click.UsageError(f"--capture writes Parquet; call the file {capture.with_suffix('.parquet')}")

    def has_times(self, file: str | None) -> bool:
        """Say whether the records have timestamps, which a file of events has not."""
        return file is None or is_capture(Path(file))


def _refuse_given(names: Set[str], why: str) -> None:
    """Refuse options of the running command that somebody gave."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name in names
        and context.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{why}; leave {', '.join(given)} out")


def replay_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function gets them as one `ReplayOptions`, ``more``."""

    @functools.wraps(function)
    def with_more(
        *args: Any, topic: str | None, since: int | None, until: int | None, capture: Path | None, report: Path | None,
        diff: Path | None, tolerance: float, worst: int, offline: bool, costs: Path | None, save_costs: Path | None,
        **options: Any,
    ) -> Any:  # fmt: skip
        more = ReplayOptions(
            topic, since, until, capture, report, diff, tolerance, worst, offline, costs, save_costs
        )  # fmt: skip
        return function(*args, more=more, **options)

    decorators = [
        click.option("--from-topic", "topic", metavar="TOPIC", help="Replay what a topic holds, instead of FILE."),
        click.option(
            "--since", type=TimeType(), metavar="TIME", help="The topic's records since: 30m, 2h, 7d ago, or ISO-8601."
        ),
        click.option("--until", type=TimeType(), metavar="TIME", help="And before."),
        click.option("--report", type=OutputFile(), metavar="HTML", help="Write a page with figures and plots there."),
        click.option(
            "--capture", type=OutputFile(), metavar="PARQUET", help="Replay nothing: write the source topic to a file."
        ),
        click.option(
            "--diff", type=_FILE, metavar="PIPELINE_B",
            help="Replay on no broker: compare what PIPELINE and PIPELINE_B say of the same events.",
        ),
        click.option(
            "--tolerance", type=click.FloatRange(min=0), default=0.0, metavar="X",
            help="With --diff: numbers that are no further apart are equal  [default: 0]",
        ),
        click.option(
            "--worst", type=click.IntRange(min=0), default=5, show_default=True, metavar="N",
            help="With --diff: events to name for each field that differs.",
        ),
        click.option(
            "--offline", is_flag=True,
            help="Replay on no broker, under a virtual clock that goes by what the work costs: the same every time.",
        ),
        click.option("--costs", type=_FILE, metavar="JSON", help="With --offline: what work costs, if not measured."),
        click.option(
            "--save-costs", type=OutputFile(), metavar="JSON", help="With --offline: keep the costs for --costs."
        ),
    ]  # fmt: skip
    return functools.reduce(lambda decorated, decorate: decorate(decorated), reversed(decorators), with_more)
