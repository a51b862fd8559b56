"""One run of one system: start its worker, watch it until every output is there, stop it, check, and sum up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from benchmarks.checks import RunFailed, check_outputs, n_due
from benchmarks.cluster import Cluster
from benchmarks.workloads.workload import Workload
from numpy.typing import NDArray

__all__ = ["Run", "Sample", "Worker", "append_rate", "cpu_us_per_event", "measure"]

#: The first tenth of the outputs is warm-up: caches, allocator, the first fetches.
WARM_UP = 0.1

_SAMPLE_EVERY_S = 0.05

#: A worker that brings no output for so long has failed. Start-up and joining the group count as well.
_STALL_S = 60.0

_STOP_S = 30.0


@dataclass(frozen=True)
class Sample:
    """The worker at one moment: monotonic seconds, outputs so far, CPU seconds so far, resident bytes now."""

    time_s: float
    outputs: int
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True)
class Run:
    """What one run measured.

    Parameters
    ----------
    workload, system, round : str, str, int
        Which job, whose run, and which of its runs.
    events : int
        Events in; each had exactly one right output, or none where none is due.
    events_per_s : float
        Outputs after the warm-up over the time in which they were appended.
    cpu_us_per_event : float
        User and system time of the worker over the same stretch, by event.
    peak_rss_mb : float or None
        The most resident memory the worker ever had; None where there is no worker.
    rss_growth_mb : float
        The most resident memory after the warm-up, less that at its end.
    clock : str
        ``log_append_time``, or ``polling`` where the broker does not stamp.
    committed : bool
        Whether the group's committed offsets stood at the end of the input after the worker was stopped.
    exit_code : int or None
        Of the worker after SIGTERM; None where it had to be killed.
    """

    workload: str
    system: str
    round: int
    events: int
    events_per_s: float
    cpu_us_per_event: float
    peak_rss_mb: float | None
    rss_growth_mb: float
    clock: str
    committed: bool
    exit_code: int | None


class Worker:
    """The process under test, with its own process group and a log file."""

    def __init__(self, command: Sequence[str], root: Path, log: Path) -> None:
        self._log = log
        self._out: IO[bytes] = log.open("wb")
        # What a worker leaves in the temporary folder goes with the run.
        environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(log.parent)}
        self._process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=self._out, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._psutil = psutil.Process(self._process.pid)
        self.peak_bytes = 0

    def sample(self, outputs: int) -> Sample:
        """Return how the worker, with whatever children it has, is doing now."""
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise RunFailed(f"the worker ended by itself with exit code {self._process.returncode}:\n{tail}")
        processes = [self._psutil, *self._psutil.children(recursive=True)]
        cpu_s, rss_bytes = 0.0, 0
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s += times.user + times.system
                    rss_bytes += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, rss_bytes)
        return Sample(time.monotonic(), outputs, cpu_s, rss_bytes)

    def watch(self) -> None:
        """See that the worker runs, and how much memory it has."""
        self.sample(0)

    def terminate(self) -> None:
        """Ask the worker to end, as an operator would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)

    def stop(self) -> int | None:
        """End the worker, and return its exit code; None if it had to be killed."""
        try:
            self.terminate()
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None
        finally:
            self._out.close()


def measure(
    cluster: Cluster,
    command: Sequence[str],
    *,
    root: Path,
    workdir: Path,
    system: str,
    round_: int,
    input_topic: str,
    output_topic: str,
    workload: Workload,
    expected: NDArray[np.float32],
) -> Run:
    """Run one worker over the whole input and return what it cost.

    Parameters
    ----------
    cluster : Cluster
        Where the topics are. The output topic is also the worker's group.
    command : sequence
        What starts the worker.
    root, workdir : Path
        Where it runs, and where its log goes.
    system, round_ : str, int
        For the report.
    input_topic, output_topic : str
        One full, one empty.
    workload : Workload
        What the events are.
    expected : ndarray of float32, shape (n_events, n_outputs)
        The right values for each event of the input; NaN where no output is due.

    Raises
    ------
    RunFailed
        The worker ended or stalled; or an output is missing, repeated, or wrong.
    """
    worker = Worker(command, root, workdir / "worker.log")
    exit_code = None
    try:
        samples = _watch(worker, cluster, input_topic, output_topic, len(expected), n_due(expected))
    finally:
        exit_code = worker.stop()
    append_ms = check_outputs(cluster, output_topic, workload, expected).append_ms
    warm = next(sample for sample in samples if sample.outputs >= WARM_UP * n_due(expected))
    end, measured = samples[-1], samples[samples.index(warm) :]
    # A run too short for two samples has no rate by polling; it is not what anybody measures with.
    n_after = max(end.outputs - warm.outputs, 1)
    rate = (
        append_rate(np.sort(append_ms))
        if append_ms is not None
        else n_after / max(end.time_s - warm.time_s, _SAMPLE_EVERY_S)
    )
    return Run(
        workload=workload.name,
        system=system,
        round=round_,
        events=len(expected),
        events_per_s=round(rate, 1),
        cpu_us_per_event=cpu_us_per_event(warm, end),
        peak_rss_mb=round(worker.peak_bytes / 1e6, 1),
        rss_growth_mb=round((max(sample.rss_bytes for sample in measured) - warm.rss_bytes) / 1e6, 1),
        clock="polling" if append_ms is None else "log_append_time",
        committed=cluster.committed(output_topic, input_topic) == len(expected),
        exit_code=exit_code,
    )


def _watch(worker: Worker, cluster: Cluster, source: str, topic: str, n_in: int, n: int) -> list[Sample]:
    """Sample the worker until the broker has all outputs."""
    samples = [worker.sample(0)]
    progress_at = time.monotonic()

    def is_done() -> bool:
        return samples[-1].outputs >= n and (
            not cluster.is_transactional(topic) or cluster.committed(topic, source) == n_in
        )

    while not is_done():
        time.sleep(_SAMPLE_EVERY_S)
        samples.append(worker.sample(cluster.count(topic)))
        if samples[-1].outputs > samples[-2].outputs:
            progress_at = samples[-1].time_s
        elif samples[-1].time_s - progress_at > _STALL_S:
            raise RunFailed(f"no output for {_STALL_S:.0f} s, {samples[-1].outputs} of {n} are there")
    return samples


def append_rate(append_ms: NDArray[np.int64]) -> float:
    """Return outputs per second after the warm-up, from the sorted append times of all outputs."""
    start_ms, end_ms = append_ms[int(WARM_UP * len(append_ms))], append_ms[-1]
    after = len(append_ms) - int(np.searchsorted(append_ms, start_ms, side="right"))
    # At least one in a millisecond: in a test all outputs may come at once.
    return max(after, 1) / max(int(end_ms - start_ms), 1) * 1000


def cpu_us_per_event(first: Sample, last: Sample) -> float:
    """Return the microseconds of user and system time that an output took between two looks at the worker."""
    return round((last.cpu_s - first.cpu_s) / max(last.outputs - first.outputs, 1) * 1e6, 3)
