"""A worker as a child process, for who drives one: the demo, benchmarks, tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError

from modelstream.models.errors import ModelStreamError
from modelstream.streams.embedded import free_port
from modelstream.streams.supervised import SupervisedProcess

__all__ = ["SupervisedWorker", "WorkerFailed", "WorkerProcess"]

# The worker has joined by then, or never will.
_START_TIMEOUT_S = 60.0
# SIGTERM gives it 10 s.
_STOP_TIMEOUT_S = 15.0


class WorkerFailed(ModelStreamError):
    """The worker ended, or does not do what it should.

    Parameters
    ----------
    message : str
        What is wrong.
    code : int, optional
        The exit code of a worker that has ended.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerProcess:
    """A worker started by its command line.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of ``modelstream run``.
    environ : mapping of str to str, optional
        Its environment; that of this process by default.

    Examples
    --------
    ::

        with WorkerProcess(["pipeline.yaml", "--broker", "localhost:9092"]) as worker:
            worker.wait_until_ready()
            ...
            worker.stop()
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self._arguments = list(arguments)
        self._environment = dict(os.environ if environ is None else environ)
        self._port = free_port()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "modelstream", "run", *self._arguments, "--web-port", str(self._port)]

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=self._environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._exit_code() is None:
            self.kill()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port of its web server."""
        return self._port

    def kill(self) -> None:
        """End the worker as a crash would."""
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Wait until the worker has its partitions.

        Raises
        ------
        WorkerFailed
            If it ends instead, or takes too long.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (self._ask("ready") or {}).get("ready"):
            self.check()
            if time.monotonic() > deadline:
                raise WorkerFailed(f"the worker has no partitions after {_START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise if the worker has ended."""
        code = self._exit_code()
        if code is not None:
            raise WorkerFailed(f"the worker ended with code {code}:\n{self.log_tail() or 'it said nothing'}", code)

    def stats(self) -> dict[str, Any]:
        """Return the worker's statistics, nothing while it does not answer."""
        return self._ask("stats") or {}

    def health(self, page: str) -> list[str] | None:
        """Return what is wrong with the worker; None while it does not answer.

        Parameters
        ----------
        page : {"live", "ready"}
            Whether it lives, or whether it does its work.
        """
        found = self._ask(f"health/{page}")
        return None if found is None else list(found["problems"])

    def stop(self) -> None:
        """Let the worker finish and end.

        Raises
        ------
        WorkerFailed
            If it fails, or does not end in time.
        """
        self._terminate()
        code = self._exit_code(_STOP_TIMEOUT_S)
        if code is None:
            raise WorkerFailed(f"the worker did not end within {_STOP_TIMEOUT_S:.0f} s of SIGTERM")
        if code:
            raise WorkerFailed(f"the worker ended with code {code}:\n{self.log_tail()}")

    def _terminate(self) -> None:
        self._process.terminate()

    def _exit_code(self, timeout_s: float = 0.0) -> int | None:
        """Return the exit code; None if the worker still runs after so many seconds."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _ask(self, page: str) -> dict[str, Any] | None:
        found = None
        try:
            with urllib.request.urlopen(f"http://localhost:{self._port}/{page}", timeout=2) as answer:
                found = json.load(answer)
        except HTTPError as error:  # not ready
            with error, contextlib.suppress(ValueError):
                found = json.load(error)
        except (OSError, HTTPException, ValueError):  # not up yet, or it ended within its answer
            return None
        return found if isinstance(found, dict) else None

    def log_tail(self, n_lines: int = 15) -> str:
        """Return the last lines that the worker wrote."""
        self._log.seek(0)
        return "".join(self._log.readlines()[-n_lines:])


class SupervisedWorker(WorkerProcess):
    """A worker that ends with this process, whatever ends that, and that Ctrl-C in the terminal does not reach.

    Parameters
    ----------
    arguments : sequence of str
        As for `WorkerProcess`.
    environ : mapping of str to str, optional
        As for `WorkerProcess`.
    """

    def __enter__(self) -> Self:
        """Start it."""
        self._folder = tempfile.TemporaryDirectory(prefix="modelstream-worker-")
        folder = Path(self._folder.name)
        self._server = SupervisedProcess(
            self._command(), folder=folder, log=folder / "log", env=self._environment, grace_s=_STOP_TIMEOUT_S,
            cwd=Path.cwd(),
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, if it still runs."""
        if self._exit_code() is None:
            self.kill()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._server.pid is None:
            raise WorkerFailed(f"the worker could not be started: {self.log_tail()}")
        return self._server.pid

    def kill(self) -> None:
        """End the worker as a crash would."""
        self._server.kill()

    def log_tail(self, n_lines: int = 15) -> str:
        """Return the last lines that the worker wrote."""
        return self._server.log_tail(n_lines)

    def _terminate(self) -> None:
        # Not by its supervisor, which would keep the exit code to itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _exit_code(self, timeout_s: float = 0.0) -> int | None:
        return self._server.wait(timeout_s)
