"""How far a long command is: a bar on a terminal, a plain line every few seconds elsewhere; on standard error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["Advance", "rounded_rate", "show_progress"]

#: Takes the events so far, and which share of all that is, from 0 to 1, where it is known.
Advance = Callable[[int, float | None], None]

# Seconds between two plain lines: few enough for a log.
_LINE_EVERY_S = 5.0


def rounded_rate(n_events: int, seconds: float) -> str:
    """Return events per second as a person reads it: three digits count, and one where there are less than one.

    Examples
    --------
    >>> rounded_rate(336_776, 3.1234), rounded_rate(5, 0), rounded_rate(1, 10)
    ('108,000', '0', '0.1')
    """
    per_s = n_events / seconds if seconds > 0 else 0.0
    if 0 < per_s < 0.95:
        return f"{per_s:.1f}" if per_s >= 0.05 else "<0.1"
    return f"{float(f'{per_s:.3g}'):,.0f}"


@contextlib.contextmanager
def show_progress(verb: str, enabled: bool = True) -> Iterator[Advance]:
    """Show how far a command is while the block runs.

    Parameters
    ----------
    verb : str
        What is being done with the events, as ``produced``.
    enabled : bool
        False shows nothing.
    """
    console = Console(stderr=True)
    if not enabled:
        yield lambda n_events, share: None
    elif console.is_terminal:
        with _bar(console, verb) as advance:
            yield advance
    else:
        yield _lines(verb)


@contextlib.contextmanager
def _bar(console: Console, verb: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.fields[text]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    # Drawn when there is something new: a thread that draws would take its time from the work.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=None, text=f"{verb} 0 events")

        def advance(n_events: int, share: float | None) -> None:
            total = None if share is None else 1.0
            progress.update(task, completed=share or 0.0, total=total, text=f"{verb} {n_events:,} events", refresh=True)

        yield advance


def _lines(verb: str) -> Advance:
    started = last = time.monotonic()

    def advance(n_events: int, share: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            part = "" if share is None else f" ({share:.0%})"
            click.echo(f"{verb} {n_events:,} events{part}, {rounded_rate(n_events, now - started)} events/s", err=True)

    return advance
