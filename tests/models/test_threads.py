from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelstream.models.threads import _quotas, cpu_budget


def fake_proc(tmp_path: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write a /proc/self and the groups that it speaks of; ``{dir}`` is where they lie."""
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(mounts.format(dir=tmp_path / "cgroup"))
    return proc


V1 = "31 30 0:28 / /proc rw - proc proc rw\n33 31 0:29 {root} {dir} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "30 23 0:26 {root} {dir} rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_the_budget_is_within_the_affinity_mask() -> None:
    assert 1 <= cpu_budget() <= len(os.sched_getaffinity(0))


def test_pinned_to_one_cpu_the_budget_is_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cpu_budget() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_every_group_above_counts_in_version_2(tmp_path: Path) -> None:
    files = {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n", "cpu.max": "400000 100000\n"}
    proc = fake_proc(tmp_path, "0::/a/b\n", V2.replace("{root}", "/"), files)
    assert list(_quotas(proc)) == [1.5, 4.0]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000"}
    proc = fake_proc(tmp_path, "0::/docker/1f3a\n", V2.replace("{root}", "/docker/1f3a"), files)
    assert list(_quotas(proc)) == [0.5]


def test_a_path_outside_of_the_mount_counts_as_its_root(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, "0::/elsewhere\n", V2.replace("{root}", "/docker/1f3a"), {"cpu.max": "300000 100000"})
    assert list(_quotas(proc)) == [3.0]


@pytest.mark.parametrize(("quota", "expected"), [("200000", [2.0]), ("-1", [])])
def test_version_1(tmp_path: Path, quota: str, expected: list[float]) -> None:
    files = {"job/cpu.cfs_quota_us": f"{quota}\n", "job/cpu.cfs_period_us": "100000\n"}
    groups = "5:memory:/other\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n0::/job\n"
    assert list(_quotas(fake_proc(tmp_path, groups, V1.replace("{root}", "/"), files))) == expected


def test_no_proc_is_no_quota(tmp_path: Path) -> None:
    assert list(_quotas(tmp_path / "none")) == []
