"""Types of command-line options that the benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from benchmarks.peers import SYSTEMS
from benchmarks.workloads import WORKLOADS

__all__ = ["Numbers", "Systems", "Workloads"]


class _Names(click.ParamType):
    """Names with commas between, each of which must be known."""

    known: Mapping[str, Any]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the names, each once."""
        names = value if isinstance(value, list) else [name.strip() for name in value.split(",")]
        for name in names:
            if name not in self.known:
                self.fail(f"no {self.name[:-1]} {name!r}; there are {', '.join(self.known)}", param, ctx)
        return list(dict.fromkeys(names))


class Systems(_Names):
    """Names of systems."""

    name = "systems"
    known = SYSTEMS


class Workloads(_Names):
    """Names of workloads."""

    name = "workloads"
    known = WORKLOADS


class Numbers(click.ParamType):
    """Positive numbers with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Return the numbers."""
        if isinstance(value, list):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers", param, ctx)
        if min(numbers) <= 0:
            self.fail("all must be above 0", param, ctx)
        return numbers
