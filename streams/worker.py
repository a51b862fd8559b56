"""Running an app as a worker process: from start to an exit code, with one message where it fails."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from types import FrameType

import faust
import mode

from modelstream.models.errors import ModelStreamError
from modelstream.streams.app import App

__all__ = ["free_web_port", "log_to_stderr", "run_worker"]

logger = logging.getLogger(__name__)

# How long threads may go on computing after the worker has stopped: a model that hangs must not keep the process.
_THREADS_GRACE_S = 1.0

# Ports to try from the first one on; more workers than this on one host name their port.
_WEB_PORTS = 100


def free_web_port(first: int = 6066, host: str = "localhost") -> int:
    """Return the first free port, so that several workers run on one host.

    Examples
    --------
    >>> 6066 <= free_web_port() < 6166
    True
    """
    for port in range(first, first + _WEB_PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    return 0


class _NoiseFilter(logging.Filter):
    """Drops what Faust's services say of their lives, and their reports of a crash with several tracebacks.

    `run_worker` raises the one error that ended the worker.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if text.startswith("[^") and record.levelno <= logging.INFO:
            return False
        return "Crashed reason=" not in text and "We experienced a crash" not in text


def log_to_stderr(level: str) -> None:
    """Log on standard error; the libraries below only from warnings on, unless the level is ``debug``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if level != "debug":
        handler.addFilter(_NoiseFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    libraries = logging.DEBUG if level == "debug" else logging.WARNING
    for name in ("faust", "mode", "aiokafka", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(libraries)


class _Worker(faust.Worker):
    """Faust's worker without its waits and its output."""

    def _on_sigint(self) -> None:
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(mode.worker.signal.SIGINT)

    async def _sentinel_task(self) -> None:
        """Do not wait another second before the loop is closed."""


def run_worker(app: App) -> None:
    """Run the app until SIGTERM or SIGINT; returns then, with everything finished committed.

    Raises
    ------
    ModelStreamError
        If the worker failed. What was not confirmed is not committed.
    """
    worker = _Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit:
        # Faust's way to say that it has come to an end; which one, the app knows.
        logger.debug("the worker has ended", exc_info=True)
    failure = app.crash_reason or worker.crash_reason
    if isinstance(failure, ModelStreamError):
        raise failure
    if failure is not None:
        raise ModelStreamError(f"the worker ended by {type(failure).__name__}: {failure}") from failure


def exit_process(code: int) -> None:
    """End the process now if a thread is still computing; otherwise let Python end it.

    Python joins the threads of a pool at its end, however long they take.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for thread in threading.enumerate():
        if thread.name.startswith("modelstream-compute"):
            thread.join(_THREADS_GRACE_S)
            if thread.is_alive():
                os._exit(code)


def stop_quietly(signum: int, frame: FrameType | None) -> None:
    """End the process as asked, where there is nothing to finish yet."""
    sys.exit(0)
