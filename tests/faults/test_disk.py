"""F15: the disk of the broker is full; nothing counts as sent, or as finished, that is not on it."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_server import ApacheKafka
from support.kafka_tools import create_topic
from support.load import committed_and_repeated, require_bite, slow_down, wait_until_biting
from support.streams import KnownStream, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

DISK_MB = 256


class SmallDisk:
    """A folder on a file system of its own, or, where none can be mounted, processes that may write no large files."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted

    @property
    def how(self) -> str:
        """How it is small."""
        return f"tmpfs of {DISK_MB} MB" if self.mounted else "RLIMIT_FSIZE"

    def fill(self, broker: int) -> None:
        """Leave no room."""
        if not self.mounted:
            resource.prlimit(broker, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            return
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for n_bytes in (1_000_000, 1_000):  # to the last page, since the broker writes too
                with suppress(OSError):
                    while True:
                        file.write(bytes(n_bytes))

    def free(self) -> None:
        """Give the room back. A limit goes with the process that it was set for."""
        (self.folder / "filler").unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a tmpfs on a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield SmallDisk(folder, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_f15_the_brokers_disk_is_full(
    tmp_path: Path, start_kafka: Callable[..., ApacheKafka], publish: Callable[..., None], seed: int
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        kafka = start_kafka(settings={"log.dirs": str(disk.folder / "logs"), "log.segment.bytes": "4000000"})
        for topic in ("events", "predictions", "dead"):
            create_topic(kafka.bootstrap, topic, 6)
        stream = KnownStream(kafka.bootstrap, tmp_path, "events", "predictions", "dead", group="group")
        slow_down(stream, 0.2)
        with FaultRun(stream, Random(seed)) as run:
            workers = run.workers(2)
            wait_until_biting(*workers)
            moment = run.note()
            assert kafka.pid is not None
            disk.fill(kafka.pid)
            # A broker whose only disk fails ends itself.
            wait_for(lambda: not kafka.running, "the broker to find its disk full", *workers)
            n_acked = run.load.n_acked
            pause(8)
            bound = run.at_risk(moment.mark)
            require_bite(run.load.n_acked == n_acked, "events were acknowledged without a broker")
            require_bite(run.load.count > n_acked, "no event had to wait")
            disk.free()
            freed_ms = now_ms()
            kafka.restart()
            open_ms = now_ms()
            run.wait_until_recovered(open_ms, *workers)
            verdict = run.settle(*workers)  # the workers have lived through it
        repeated = committed_and_repeated(stream, moment.mark)
    publish(
        f"the broker's disk full ({disk.how}), 8 s", verdict, bound=bound,
        recovery_s=run.recoveries_s([open_ms]), broker_start_s=(open_ms - freed_ms) / 1000,
        refused=run.load.n_refused,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= bound
    assert repeated == 0
