"""What `replay` and `what-if` share: how fast events come, as the options say it."""

from __future__ import annotations

from typing import Any

import click

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.arrivals import Arrivals, Pace, parse_speed
from modelstream.streams.spec import SourceSpec

__all__ = ["SpeedType", "check_times", "make_pace"]


class SpeedType(click.ParamType):
    """Times faster than recorded, as ``60x``; None for ``max``."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the number of a text."""
        try:
            return parse_speed(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def make_pace(speed: float | None, rate: float | None, arrivals: Arrivals | None, seed: int) -> Pace:
    """Return the pace that the options of the running command say.

    Raises
    ------
    click.UsageError
        They exclude each other.
    """
    context = click.get_current_context()
    is_speed_given = context.get_parameter_source("speed") is not click.core.ParameterSource.DEFAULT
    if rate is not None and is_speed_given:
        raise click.UsageError("--speed and --rate exclude each other")
    if arrivals is not None and rate is None:
        raise click.UsageError("--arrivals needs --rate")
    return Pace(speed=speed, rate_per_s=rate, arrivals=arrivals or "poisson", seed=seed)


def check_times(pace: Pace, source: SourceSpec, has_times: bool, *, instead: str) -> None:
    """Refuse a pace that goes by times which events do not have.

    Parameters
    ----------
    pace : Pace
        How fast events come.
    source : SourceSpec
        How the pipeline reads them.
    has_times : bool
        Whether their records have times.
    instead : str
        Options that go by no times, for the advice.

    Raises
    ------
    ConfigError
        There are no times.
    """
    if pace.needs_times and source.event_time is None and not has_times:
        raise ConfigError("source.event_time", f"the pipeline names none, and the pace goes by it; use {instead}")
