"""``modelstream run``: a worker."""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.streams.app import worker_app
from modelstream.streams.cli.common import (
    EXIT_CONFIG,
    EXIT_FAILED,
    broker_option,
    pipeline_argument,
    read_pipeline,
    redis_option,
    set_option,
)
from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker import exit_process, log_to_stderr, run_worker, stop_quietly

__all__ = ["command"]

logger = logging.getLogger("modelstream")


@click.command(
    "run",
    epilog="""\b
Examples:
  modelstream run examples/flights/pipeline.yaml --broker localhost:9092
  modelstream run pipeline.yaml --set sink.topic=trial --without-web
""",
)
@pipeline_argument
@broker_option
@redis_option
@set_option
@click.option("--web-port", type=int, help="Port of the web server  [default: the first free one from 6066 on]")
@click.option("--web-bind", default="localhost", show_default=True, help="Address that the web server listens on.")
@click.option("--without-web", is_flag=True, help="Run no web server.")
@click.option(
    "--group-instance-id",
    envvar="MODELSTREAM_GROUP_INSTANCE_ID",
    metavar="NAME",
    help="Name of this worker in its group, each its own: a restart within the session timeout then moves no "
    "partitions  [default: $MODELSTREAM_GROUP_INSTANCE_ID, else none]",
)
@click.option(
    "--session-timeout",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Without a heartbeat for so long, a worker's partitions go to others.  [default: 6]",
)
@click.option(
    "--stall-timeout",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Without progress for so long, partitions are read anew; for as long again, the worker ends.  [default: 60]",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(
    pipeline: Path,
    broker: str | None,
    redis: str | None,
    overrides: tuple[str, ...],
    web_port: int | None,
    web_bind: str,
    without_web: bool,
    group_instance_id: str | None,
    session_timeout: float | None,
    stall_timeout: float | None,
    log_level: str,
) -> None:
    """Run a worker on PIPELINE until SIGTERM or Ctrl-C.

    Start as many as there are partitions to share; Kafka spreads them. What is under way at the end is finished and
    committed first. Exit code 0 after a signal, 1 if it failed at run time, 2 if the configuration is wrong.
    """
    signal.signal(signal.SIGTERM, stop_quietly)
    log_to_stderr(log_level)
    limits = EngineLimits()
    if session_timeout is not None:
        limits = replace(limits, session_timeout_s=session_timeout)
    if stall_timeout is not None:
        limits = replace(limits, stall_timeout_s=stall_timeout)
    app = worker_app(
        read_pipeline(pipeline, overrides), pipeline, redis=redis, broker=broker, limits=limits,
        group_instance_id=group_instance_id, always_asks=True,
    )  # fmt: skip
    app.conf.web_enabled = not without_web
    app.conf.web_bind = web_bind
    if web_port is not None:
        app.conf.web_port, app.web_port_is_chosen = web_port, True
    code = 0
    try:
        run_worker(app)
    except ModelStreamError as error:
        click.echo(f"modelstream: error: {error}", err=True)
        code = EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED
    counters = app.counters
    logger.info(
        "%s has ended: %d events, %d filtered, %d predictions, %d dead letters", app.conf.id, counters.events,
        counters.filtered, counters.predictions, counters.dead_letters,
    )  # fmt: skip
    exit_process(code)
    sys.exit(code)
