"""The machine and the versions that a replay's figures belong to."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import confluent_kafka
import psutil

import modelstream
from modelstream.models.threads import cpu_budget
from modelstream.streams.replay.result import Environment

__all__ = ["describe_environment"]

_PACKAGES = ("confluent-kafka", "faust-streaming", "numpy", "onnxruntime", "orjson", "pysimdjson")


def describe_environment(broker: str) -> Environment:
    """Return where this process runs.

    Parameters
    ----------
    broker : str
        What to say of the broker.
    """
    versions = {"modelstream": modelstream.__version__, "librdkafka": confluent_kafka.libversion()[0]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Environment(
        cpu=_cpu_name(),
        # What the workers may use: a container may have fewer than the machine.
        cpus=cpu_budget(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        broker=broker,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
