"""Apache Kafka for tests: one KRaft node as a child process, from jars that Maven resolves once.

By hand: ``python tests/support/kafka_server.py --port 9092`` runs one until Ctrl-C (``make kafka``).
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

from modelstream.streams.embedded import broker_answers, free_port
from modelstream.streams.supervised import SupervisedProcess

POM = Path(__file__).parents[1] / "kafka" / "pom.xml"
#: A start takes about 3 s on two idle cores; a loaded CI machine is given twenty times that.
START_DEADLINE_S = 60.0
#: Maven fetches 44 MB the first time.
RESOLVE_DEADLINE_S = 600.0


class KafkaUnavailable(Exception):
    """Something that Apache Kafka needs is missing here; the message says what."""


def kafka_version() -> str:
    """Return the Kafka version that the pom names."""
    pom = ElementTree.parse(POM)
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    version = pom.findtext(".//m:dependency[m:groupId='org.apache.kafka']/m:version", namespaces=namespace)
    assert version, f"{POM} names no Kafka version"
    return version


def resolve_jars() -> Path:
    """Return the folder of Kafka's jars, resolved by Maven into the user's cache where it is not there yet.

    Raises
    ------
    KafkaUnavailable
        If Java or Maven is missing, or Maven fails.
    """
    if shutil.which("java") is None:
        raise KafkaUnavailable("Apache Kafka needs Java 17 or newer; there is no `java` on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelstream"
    # Named by the whole pom: another jar in it is another folder.
    jars = cache / f"kafka-{kafka_version()}-{sha256(POM.read_bytes()).hexdigest()[:8]}"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise KafkaUnavailable("Apache Kafka's jars are resolved by Maven; there is no `mvn` on the PATH")
    cache.mkdir(parents=True, exist_ok=True)
    # Filled aside and renamed: whoever sees the folder sees all of it.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        filled = Path(scratch, "jars")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={filled}"]
        try:
            _run(["mvn", "-q", "-B", "-f", str(POM), *goal], timeout_s=RESOLVE_DEADLINE_S)
        except RuntimeError as error:
            raise KafkaUnavailable(str(error)) from None
        try:
            filled.rename(jars)
        except OSError:
            if not jars.is_dir():  # else another process was quicker
                raise
    return jars


def _run(command: list[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(command, check=True, timeout=timeout_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout.decode(errors="replace")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = (error.output or b"").decode(errors="replace")[-4000:]
        raise RuntimeError(f"{error}\n{output}".rstrip()) from None


#: Of the JVM of a broker, and of Kafka's tools.
_HEAP = ("-Xmx1g",)


class ApacheKafka:
    """One broker and controller in one process, with its data in a folder of its own.

    It keeps its address and its data over `kill` and `restart`, as a crashed broker does.

    Parameters
    ----------
    port : int, optional
        Port to listen on; a free one by default.
    settings : mapping of str to str, optional
        Lines for ``server.properties`` beyond, or instead of, those that one small node needs.
    heap : sequence of str
        Options of the broker's JVM for its heap.
    """

    def __init__(
        self,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        heap: Sequence[str] = _HEAP,
    ) -> None:
        self._jars = resolve_jars()
        self._heap = heap
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="modelstream-kafka-"))
        self.log = self.folder / "kafka.log"
        self._properties = self.folder / "server.properties"
        self._process: SupervisedProcess | None = None
        lines = _server_properties(self.port, free_port(), self.folder / "data") | dict(settings or {})
        self._data = Path(lines["log.dirs"])
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    @property
    def bootstrap(self) -> str:
        """Address for Kafka clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM, for signals."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Start the broker, on the data it left where it ran before, and wait until it answers."""
        if not self._data.exists():
            # 16 random bytes, written as Kafka's own `random-uuid` would, without starting a JVM for it.
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            self.run_tool("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._properties))
        self._process = SupervisedProcess(
            self._java("kafka.Kafka", str(self._properties), heap=self._heap),
            folder=self.folder,
            log=self.log,
            env=os.environ,
            grace_s=10.0,
        )
        deadline = time.monotonic() + START_DEADLINE_S
        while not broker_answers(self.bootstrap):
            if time.monotonic() > deadline or not self._process.running:
                self._process.stop()
                raise RuntimeError(f"Apache Kafka did not start on {self.bootstrap}\n{self.log_tail()}")
            time.sleep(0.1)
        return self

    def run_tool(self, main: str, *arguments: str) -> str:
        """Run one of Kafka's command-line tools, named by its Java class, and return its output."""
        return _run(self._java(main, *arguments), START_DEADLINE_S)

    def _java(self, main: str, *arguments: str, heap: Sequence[str] = _HEAP) -> list[str]:
        options = [*heap, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self._jars}/*"]
        return ["java", *options, main, *arguments]

    def kill(self) -> None:
        """Kill the broker with SIGKILL. Its data stays for `restart`."""
        if self._process:
            self._process.kill()

    def restart(self) -> None:
        """Start the broker again on its address and its data, ended first where it still runs."""
        if self._process:
            self._process.stop()
        self.start()

    def stop(self) -> None:
        """End the broker within 10 s, by SIGKILL if need be, and remove its data."""
        if self._process:
            self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, n_lines: int = 40) -> str:
        """Return the last lines that the broker wrote."""
        return self._process.log_tail(n_lines) if self._process else ""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


def _server_properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A topic that nobody created is a mistake that a test should see.
        "auto.create.topics.enable": "false",
        # Records of the past, as tests and recorded streams have them, would be deleted at some check of the broker.
        "log.retention.ms": "-1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "3",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "3",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        # Tests wait for rebalances and for dead members; the defaults are 3 s and 6 s.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A killed broker may not register again before its old session ends; by default after 9 s.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
    }


def main() -> None:
    """Run one broker until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=f"Run Apache Kafka {kafka_version()} until Ctrl-C; its data goes with it."
    )
    parser.add_argument("--port", type=int, default=9092, help="port on 127.0.0.1 (default: 9092)")
    port = parser.parse_args().port
    if broker_answers(f"127.0.0.1:{port}"):
        raise SystemExit(f"a Kafka broker already answers on 127.0.0.1:{port}")
    try:
        with ApacheKafka(port) as kafka:
            print(f"Apache Kafka {kafka_version()} on {kafka.bootstrap}; Ctrl-C ends it", flush=True)
            while kafka.running:
                time.sleep(0.5)
            raise SystemExit(f"Apache Kafka ended by itself\n{kafka.log_tail()}")
    except (KafkaUnavailable, RuntimeError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
