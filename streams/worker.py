"""Running an app as a worker process: from start to an exit code, with one message where it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from types import FrameType

import faust
from aiokafka.errors import KafkaError

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.app import App
from modelstream.streams.client_log import ClientLogFilter
from modelstream.streams.event_loop import new_event_loop

__all__ = ["exit_process", "log_to_stderr", "run_worker", "stop_quietly"]

logger = logging.getLogger(__name__)

# How long threads may go on computing after the worker has stopped: a model that hangs must not keep the process.
_THREADS_GRACE_S = 1.0

# How long a worker may take to end after a signal, draining included; 10 s is when Kubernetes and Compose kill.
_STOP_TIMEOUT_S = 9.0


def _give_up_stopping() -> None:
    logger.error(
        "the worker has not ended within %.0f s of the signal; what was not committed is read again", _STOP_TIMEOUT_S
    )
    logging.shutdown()
    os._exit(1)


# Parts of messages of Faust's: of a crash, and of a commit that waits for a broker, or a model, that takes its time.
_NOISE = ("Crashed reason=", "We experienced a crash", "is overlapping (interval=")


class _NoiseFilter(logging.Filter):
    """Drops what Faust's services say of their lives, and their reports of a crash with several tracebacks.

    `run_worker` raises the one error that ended the worker.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if text.startswith("[^") and record.levelno <= logging.INFO:
            return False
        # asyncio's report of a task of aiokafka's that failed; by what, `Health` tells.
        if record.name == "asyncio" and record.exc_info and isinstance(record.exc_info[1], KafkaError):
            return False
        return not any(noise in text for noise in _NOISE)


def log_to_stderr(level: str) -> None:
    """Log on standard error; the libraries below only from warnings on, unless the level is ``debug``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if level != "debug":
        handler.addFilter(_NoiseFilter())
        handler.addFilter(ClientLogFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    libraries = logging.DEBUG if level == "debug" else logging.WARNING
    for name in ("faust", "mode", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(libraries)
    # To aiokafka a rebalance, which is an everyday matter, is a warning, and every attempt to reach a broker that is
    # away an error. `Health` tells of outages, and ends the worker by what aiokafka cannot get over.
    logging.getLogger("aiokafka").setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


class _Worker(faust.Worker):
    """Faust's worker without its output, its waits and its way to end the process."""

    def run(self) -> None:
        """Run until stopped by a signal; raise what went wrong."""
        self._starting_fut = asyncio.ensure_future(self.start(), loop=self.loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self.loop.run_until_complete(self._starting_fut)
        finally:
            self._starting_fut.cancel()
            self.stop_and_shutdown()

    def _on_sigint(self) -> None:
        self._schedule_shutdown(signal.SIGINT)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if not self._signal_stop_time:
            # Faust waits without end for a broker that does not answer.
            deadline = threading.Timer(_STOP_TIMEOUT_S, _give_up_stopping)
            deadline.daemon = True
            deadline.start()
        super()._schedule_shutdown(signal)

    async def _sentinel_task(self) -> None:
        """Do not wait another second before the loop is closed."""


def run_worker(app: App) -> None:
    """Run the app until SIGTERM or SIGINT; returns then, with everything finished committed.

    Raises
    ------
    ModelStreamError
        If the worker failed. What was not confirmed is not committed.
    """
    asyncio.set_event_loop(new_event_loop())
    worker = _Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None
    # Where a right was taken away meanwhile, it matters whose.
    who = f" (as {app.settings.principal})" if app.settings.has_login else ""
    try:
        worker.run()
    except BrokerUnavailable as error:
        raise BrokerUnavailable(error.bootstrap, f"{error.problem}{who}") from error
    except ModelStreamError:
        raise
    except Exception as error:
        raise ModelStreamError(f"the worker ended by {type(error).__name__}: {error}{who}") from error


def exit_process(code: int) -> None:
    """End the process now if a thread is still busy; otherwise let Python end it.

    Python joins all threads at its end, however long they take: the data thread with a model that hangs, or one of
    Faust's that two signals at once have caught at its start.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(_THREADS_GRACE_S)
            if thread.is_alive():
                os._exit(code)


def stop_quietly(signum: int, frame: FrameType | None) -> None:
    """End the process as asked, where there is nothing to finish yet."""
    sys.exit(0)
