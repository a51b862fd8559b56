"""What the commands share: their options, and how errors end them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from modelstream.models.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    DependencyError,
    ModelLoadError,
    ModelStreamError,
)
from modelstream.streams.pipeline import Pipeline, load_pipeline
from modelstream.streams.settings import BrokerSettings

__all__ = [
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "OutputFile",
    "RateType",
    "broker_option",
    "broker_settings",
    "ended_by_ctrl_c",
    "pipeline_argument",
    "read_pipeline",
    "redis_option",
    "run_command",
    "set_option",
]

EXIT_FAILED = 1
EXIT_CONFIG = 2

# 128 + SIGINT and 128 + SIGTERM, as shells have it.
EXIT_INTERRUPTED, _EXIT_TERMINATED = 130, 143

F = TypeVar("F", bound=Callable[..., Any])

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:/s)?")


class RateType(click.ParamType):
    """Events per second, as ``5000`` or ``5000/s``."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of a text."""
        match = _RATE.fullmatch(str(value))
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no rate; write events per second, as 5000 or 5000/s", param, ctx)
        return float(match[1])


class OutputFile(click.Path):
    """A file to write in the end: refused at the start where its folder is not there."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of a text.

        Raises
        ------
        ConfigError
            There is no such folder.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            raise ConfigError(param.opts[-1] if param else "", f"no folder {path.parent}")
        return path


def pipeline_argument(function: F) -> F:
    """Add the argument PIPELINE."""
    return click.argument("pipeline", type=click.Path(path_type=Path))(function)


def broker_option(function: F) -> F:
    """Add the option ``--broker``."""
    return click.option(
        "--broker", metavar="HOST:PORT", help="Kafka bootstrap address  [default: $MODELSTREAM_BROKER, then the file]"
    )(function)


def redis_option(function: F) -> F:
    """Add the option ``--redis``."""
    return click.option(
        "--redis", metavar="URL", help="Redis of stages with a cache  [default: $MODELSTREAM_REDIS, then the file]"
    )(function)


def set_option(function: F) -> F:
    """Add the option ``--set``."""
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a key of the pipeline file, as sink.topic=other; may be given several times.",
    )(function)


def read_pipeline(path: Path, overrides: tuple[str, ...] = ()) -> Pipeline:
    """Return the pipeline of a file, with ``--set`` applied."""
    return load_pipeline(path, overrides)


def broker_settings(option: str | None, in_file: str | None) -> BrokerSettings:
    """Return where Kafka is: the option, the environment, the pipeline file, in this order."""
    return BrokerSettings.resolve(option=option, in_file=in_file, environ=os.environ)


@contextmanager
def ended_by_ctrl_c(left: str) -> Iterator[None]:
    """End the command on Ctrl-C in this block, with its exit code and one line.

    Parameters
    ----------
    left : str
        What there is then, for the line.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"modelstream: stopped before the end; {left}", err=True)
        sys.exit(EXIT_INTERRUPTED)


def run_command(group: click.Group) -> None:
    """Run the command line; every failure ends in one message and an exit code, never in a traceback."""
    terminated = False

    def interrupt(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    # What Ctrl-C cleans up, `timeout` and a service manager should not leave behind. A worker has its own way to end.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        _run(group)
    except SystemExit as end:
        sys.exit(_EXIT_TERMINATED if terminated and end.code == EXIT_INTERRUPTED else end.code)


def _run(group: click.Group) -> None:
    try:
        code = group.main(prog_name="modelstream", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModelStreamError as error:
        _say_error(error)
        sys.exit(EXIT_CONFIG if isinstance(error, ConfigError | ModelLoadError) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _say_error(error: ModelStreamError) -> None:
    hint = ""
    if isinstance(error, BrokerRefused):
        pass  # it says what to mend
    elif isinstance(error, BrokerUnavailable):
        hint = "\nIs Kafka running there? Name another with --broker HOST:PORT or MODELSTREAM_BROKER."
    elif isinstance(error, DependencyError):
        hint = "\nIt may be back soon; start again then."
    click.echo(f"modelstream: error: {error}{hint}", err=True)
