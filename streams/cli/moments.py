"""Moments as options say them: how long ago, or ISO-8601."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

__all__ = ["TimeType"]

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"-?([0-9]{1,9})\s*([smhdw])")


class TimeType(click.ParamType):
    """A moment: how long ago, as ``2h`` or ``-2h``, or ISO-8601; in milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the moment."""
        if match := _AGO.fullmatch(str(value)):
            return int((time.time() - int(match[1]) * _UNITS_S[match[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no time; write how long ago, as 30m, 2h or 7d, or 2026-08-01T12:00:00Z", param, ctx
            )
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
