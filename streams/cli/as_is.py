"""What `produce` and `replay` share: the option ``--as-is``, which a broken line makes one think of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from modelstream.models.errors import DecodeError
from modelstream.streams.event_lines import BrokenLine

__all__ = ["as_is_option"]


def as_is_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--as-is``, and name it where a line is broken: other commands read lines, and do not have it."""

    @functools.wraps(function)
    def naming_it(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except BrokenLine as error:
            raise DecodeError(f"{error}; with --as-is such lines are sent too, and become dead letters") from None

    help_text = "Send every line of NDJSON as it stands, broken and blank ones too."
    return click.option("--as-is", is_flag=True, help=help_text)(naming_it)
