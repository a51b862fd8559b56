"""How many CPUs this process may use: those that it is pinned to, and no more than its control group pays for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["cpu_budget"]


def cpu_budget() -> int:
    """Return how many threads may calculate at once: the CPUs of the affinity mask, within the cgroup's quota.

    A quota of 1.5 CPUs counts as 1: two busy threads would use it up before its period ends, and the kernel then stops
    every thread of the process, those that answer Kafka's heartbeats too.

    Returns
    -------
    int
        At least 1.

    References
    ----------
    ``cpu.max`` in https://docs.kernel.org/admin-guide/cgroup-v2.html, ``cpu.cfs_quota_us`` in
    https://docs.kernel.org/scheduler/sched-bwc.html

    Examples
    --------
    >>> cpu_budget() >= 1
    True
    """
    # macOS has no affinity masks.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([usable, *map(int, _quotas(Path("/proc/self")))]))


def _quotas(proc: Path) -> Iterator[float]:
    """Yield the CPUs that each control group above a process allows, as ``/proc/self`` tells."""
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:  # no Linux, or /proc is hidden
        return
    # 4:cpu,cpuacct:/path in version 1, 0::/path in version 2; machines have one of them, or both.
    paths = {kinds: path for _, kinds, path in (line.split(":", 2) for line in groups)}
    for mount in mounts:
        own, _, told = mount.partition(" - ")
        _, _, _, root, point, *_ = own.split()
        system, _, options = told.split(" ", 2)
        if system == "cgroup2" and "" in paths:
            yield from _above(paths[""], root, Path(point), version=2)
        elif system == "cgroup" and "cpu" in options.split(" ")[-1].split(","):
            for kinds, path in paths.items():
                if "cpu" in kinds.split(","):
                    yield from _above(path, root, Path(point), version=1)


def _above(path: str, root: str, point: Path, version: int) -> Iterator[float]:
    """Yield the quota of a group and of each one above it, up to where the hierarchy is mounted."""
    # A container often sees its own group mounted as the root, and its path as the host tells it.
    inner = PurePosixPath(path)
    below = inner.relative_to(root) if inner.is_relative_to(root) else PurePosixPath()
    for group in (below, *below.parents):
        quota = _quota(point / group, version)
        if quota is not None:
            yield quota


def _quota(group: Path, version: int) -> float | None:
    """Return the CPUs that a group allows; None where it sets no limit."""
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{key}_us").read_text() for key in ("quota", "period"))
        # Without a limit version 2 says "max", version 1 says -1.
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
