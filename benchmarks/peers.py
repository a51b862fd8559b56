"""Which systems there are, in which Python each runs, and how what it needs beyond this environment is installed."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

__all__ = ["SYSTEMS", "System", "Unavailable", "onnxruntime_of", "prepare", "python_of"]


class Unavailable(RuntimeError):
    """A system that cannot run here; the message is one line that says what is missing."""


@dataclass(frozen=True)
class System:
    """One system under test.

    Parameters
    ----------
    module : str
        Its worker; the command line is the same for all (`systems/common.py`).
    part : int
        It gets one in so many of the events: a slow system's run shall take about as long as a fast one's.
    environment : str or None
        The environment of its own that its Python packages need: locked in ``requirements/ENVIRONMENT.lock``, installed
        into ``.venv-ENVIRONMENT/``. None where it runs in the same one as the benchmark.
    jars : str or None
        The Maven project below ``java/`` that fetches, and builds, the jars that it needs.
    vectors_only : bool
        Whether it scores vectors only, and so not the workload ``flights``.
    is_ours : bool
        Whether it is one that the others are compared with: it runs in every round, and may never fail.
    is_quick : bool
        Whether the quick suite measures it.
    is_transactional : bool
        Whether it writes its outputs in transactions.
    """

    module: str
    part: int = 1
    environment: str | None = None
    jars: str | None = None
    vectors_only: bool = False
    is_ours: bool = False
    is_quick: bool = True
    is_transactional: bool = False


SYSTEMS = {
    "loop": System("benchmarks.systems.loop", is_ours=True),
    "loop-own": System("benchmarks.systems.loop_own", is_ours=True, is_quick=False),
    "loop-own-out": System("benchmarks.systems.loop_own_out", is_ours=True, is_quick=False),
    "bare-ort": System("benchmarks.bare", is_ours=True),
    "modelstream": System("benchmarks.systems.modelstream", is_ours=True),
    "modelstream-eos": System(
        "benchmarks.systems.modelstream_eos", is_ours=True, is_quick=False, is_transactional=True
    ),
    "faust": System("benchmarks.systems.faust_stock", part=25),
    "quix": System("benchmarks.systems.quix", part=4, environment="quix"),
    "quix-sink": System("benchmarks.systems.quix_sink", part=2, environment="quix", is_quick=False),
    "bytewax": System("benchmarks.systems.bytewax_flow", environment="bytewax"),
    "pyflink": System(
        "benchmarks.systems.pyflink_table",
        environment="pyflink",
        jars="pyflink",
        vectors_only=True,
        is_quick=False,  # 900 MB to install, and half a minute to start
    ),
    "mlserver": System("benchmarks.systems.mlserver_calls", environment="mlserver", vectors_only=True),
    "kafka-streams": System("benchmarks.systems.kafka_streams", jars="kafka-streams", vectors_only=True),
    "kafka-streams-batch": System("benchmarks.systems.kafka_streams_batch", jars="kafka-streams", vectors_only=True),
}

#: pip and Maven fetch some hundred megabytes the first time.
_INSTALL_S = 1200


def python_of(system: str, root: Path) -> Path:
    """Return the interpreter a system's worker runs in."""
    environment = SYSTEMS[system].environment
    return root / f".venv-{environment}" / "bin" / "python" if environment else Path(sys.executable)


def prepare(system: str, root: Path) -> None:
    """Install what a system needs beyond this environment; nothing where that has been done already.

    Parameters
    ----------
    system : str
        Whose environment.
    root : Path
        The repository.

    Raises
    ------
    Unavailable
        Something that it needs is missing here, or cannot be installed.
    """
    needs = SYSTEMS[system]
    if needs.jars:
        _build_jars(root / "benchmarks" / "java" / needs.jars)
    if needs.environment:
        _install(needs.environment, root)


def onnxruntime_of(system: str) -> str:
    """Return the version of ONNX Runtime that a system has: by its lock file, its Maven project, or this process."""
    needs, here = SYSTEMS[system], Path(__file__).parent
    if needs.environment:
        found = re.search(r"^onnxruntime==(\S+)", (here / f"requirements/{needs.environment}.lock").read_text(), re.M)
    elif needs.jars:
        pom = (here / "java" / needs.jars / "pom.xml").read_text()
        found = re.search(r"<artifactId>onnxruntime</artifactId>\s*<version>([^<]+)", pom)
    else:
        return version("onnxruntime")
    return found[1] if found else "unknown"


def _install(environment: str, root: Path) -> None:
    """Fill a virtual environment from its lock file."""
    lock = root / "benchmarks" / "requirements" / f"{environment}.lock"
    folder = root / f".venv-{environment}"
    if _is_done(folder / "installed", lock):
        return
    click.echo(f"installing {environment} into {folder.name}/, once", err=True)
    python = str(folder / "bin" / "python")
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([python, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)])
    (folder / "installed").write_text(_digest(lock))


def _build_jars(project: Path) -> None:
    """Fill ``target/`` of a Maven project: its own jar, where it has code, and in ``jars/`` all that it depends on."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        raise Unavailable("it needs Java 17 or newer and Maven, and `java` or `mvn` is not on the PATH")
    sources = [project / "pom.xml", *sorted(project.glob("src/**/*.java"))]
    if len(sources) > 1 and shutil.which("javac") is None:
        raise Unavailable("its worker is compiled, and there is a Java runtime here but no `javac`, so no JDK")
    stamp = project / "target" / "installed"
    if _is_done(stamp, *sources):
        return
    click.echo(f"fetching and building the jars of {project.name}, once", err=True)
    _run(["mvn", "--quiet", "--batch-mode", "--file", str(project / "pom.xml"), "clean", "package"])
    stamp.write_text(_digest(*sources))


def _is_done(stamp: Path, *sources: Path) -> bool:
    return stamp.is_file() and stamp.read_text() == _digest(*sources)


def _digest(*sources: Path) -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"`{' '.join(command)}` did not end within {_INSTALL_S} s") from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["it said nothing"]
        raise Unavailable(f"`{' '.join(command)}` failed: {said[0]}")
