"""Which Python runs which system; Quix Streams pins an older confluent-kafka, so it has an environment of its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import click

__all__ = ["MODULES", "prepare", "python_of"]

#: The module of each system's worker; the command line is the same for all (`systems/common.py`).
MODULES = {
    "loop": "benchmarks.systems.loop",
    "modelstream": "benchmarks.systems.modelstream",
    "modelstream-eos": "benchmarks.systems.modelstream_eos",
    "faust": "benchmarks.systems.faust_stock",
    "quix": "benchmarks.systems.quix",
    "quix-sink": "benchmarks.systems.quix_sink",
}


def python_of(system: str, root: Path) -> Path:
    """Return the interpreter a system runs in."""
    return _quix_folder(root) / "bin" / "python" if _is_quix(system) else Path(sys.executable)


def prepare(system: str, root: Path) -> None:
    """Install what a system needs beyond this environment; nothing where that has been done already.

    Parameters
    ----------
    system : str
        Whose environment.
    root : Path
        The repository.
    """
    if not _is_quix(system):
        return
    lock = root / "benchmarks" / "quix-requirements.lock"
    stamp, digest = _quix_folder(root) / "installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    click.echo(f"installing Quix Streams into {stamp.parent.name}/, once", err=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", stamp.parent], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    subprocess.run([str(python_of(system, root)), *install], check=True)
    stamp.write_text(digest)


def _is_quix(system: str) -> bool:
    return system.startswith("quix")


def _quix_folder(root: Path) -> Path:
    return root / ".venv-quix"
