"""The workers of a replay: started for it, asked what they did, and stopped as an operator would."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, Self

import psutil

from modelstream.operators.cache_counters import CacheCounters
from modelstream.streams.replay.figures import UsageReading
from modelstream.streams.replay.result import StageFigures
from modelstream.streams.worker_process import SupervisedWorker, WorkerFailed

__all__ = ["Workers", "count_of", "stage_figures"]

#: Every worker has joined, and a rebalance takes some seconds, on the embedded broker more.
_SHARED_TIMEOUT_S = 60.0

#: Kinds of processor time that are not idle, as far as the system tells them apart. What other machines took (steal)
#: was there for nobody here.
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")

#: What each worker says of itself on its page ``/stats``.
Stats = Sequence[Mapping[str, Any]]


class Workers:
    """Worker processes of one group.

    Parameters
    ----------
    n_workers : int
        How many.
    arguments : sequence of str
        Arguments of ``modelstream run``.
    environ : mapping of str to str
        Their environment.
    """

    def __init__(self, n_workers: int, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._processes = [SupervisedWorker(arguments, environ) for _ in range(n_workers)]
        self._usage: list[psutil.Process] = []
        self._said: list[dict[str, Any]] = [{} for _ in self._processes]
        self._stack = ExitStack()

    def __len__(self) -> int:
        return len(self._processes)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for process in self._processes:
                stack.enter_context(process)
            self._usage = [psutil.Process(process.pid) for process in self._processes]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def wait_until_ready(self, n_partitions: int) -> None:
        """Wait until the workers have shared the partitions, and read them.

        Parameters
        ----------
        n_partitions : int
            Of the topic that they read.

        Raises
        ------
        WorkerFailed
            One ends instead, or it takes too long.
        """
        for process in self._processes:
            process.wait_until_ready()
        # When the first one was ready the last one had not joined: what it has may be moving now.
        deadline = time.monotonic() + _SHARED_TIMEOUT_S
        while not self._have_shared(n_partitions):
            self.check()
            if time.monotonic() > deadline:
                raise WorkerFailed(f"the workers have not shared the partitions after {_SHARED_TIMEOUT_S:.0f} s")
            time.sleep(0.05)

    def _have_shared(self, n_partitions: int) -> bool:
        parts = [stats.get("partitions", []) for stats in self.stats()]
        n_busy = min(len(parts), n_partitions)
        return (
            sum(map(len, parts)) == len(set().union(*parts)) == n_partitions
            and sum(map(bool, parts)) >= n_busy
            and all(process.health("ready") == [] for process in self._processes)
        )

    def check(self) -> None:
        """Raise WorkerFailed if one has ended."""
        for process in self._processes:
            process.check()

    def stats(self) -> list[dict[str, Any]]:
        """Return what each says of itself; of one that does not answer now, what it said last."""
        self._said = [process.stats() or said for process, said in zip(self._processes, self._said, strict=True)]
        return self._said

    def usage(self) -> UsageReading:
        """Return what all together have used until now.

        Raises
        ------
        WorkerFailed
            One has ended.
        """
        cpu_s, rss_bytes = 0.0, 0
        try:
            for process in self._usage:
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s += times.user + times.system
                    rss_bytes += process.memory_info().rss
        except psutil.NoSuchProcess:
            self.check()
            raise WorkerFailed("a worker has ended") from None
        return UsageReading(time.time_ns() // 1000, cpu_s, rss_bytes, _machine_cpu_s())

    def stop(self) -> None:
        """Let all finish and end; raise WorkerFailed if one does not."""
        for process in self._processes:
            process.stop()


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, kind, 0.0) for kind in _BUSY))


def count_of(name: str, after: Stats, before: Stats) -> int:
    """Return by how much a counter has grown between two looks, over all workers.

    Examples
    --------
    >>> count_of("filtered", [{"filtered": 5}, {"filtered": 2}], [{"filtered": 1}, {}])
    6
    """
    return sum(int(stats.get(name, 0)) for stats in after) - sum(int(stats.get(name, 0)) for stats in before)


def stage_figures(after: Stats, before: Stats) -> tuple[StageFigures, ...]:
    """Return what became of the micro-batches between two looks, stage by stage, over all workers.

    Parameters
    ----------
    after, before : sequence of mapping
        The statistics of each worker.
    """
    steps = dict.fromkeys(step_id for stats in after for step_id in stats.get("batches", {}))
    return tuple(_stage(step_id, after, before) for step_id in steps)


def _stage(step_id: str, after: Stats, before: Stats) -> StageFigures:
    now = [stats.get("batches", {}).get(step_id, {}) for stats in after]
    then = [stats.get("batches", {}).get(step_id, {}) for stats in before]
    reasons = _less(_added(part.get("batches", {}) for part in now), _added(part.get("batches", {}) for part in then))
    sizes = _less(_added(part.get("sizes", {}) for part in now), _added(part.get("sizes", {}) for part in then))
    batches, rows = sum(reasons.values()), count_of("rows", now, then)
    return StageFigures(
        step_id=step_id,
        batches=batches,
        rows=rows,
        mean_rows=round(rows / batches, 2) if batches else None,
        sizes={int(bound): sizes[bound] for bound in sorted(sizes, key=int)},
        close_reasons=reasons,
        mean_queued_ms=_mean_ms("queued_us_total", batches, now, then),
        mean_service_ms=_mean_ms("service_us_total", batches, now, then),
        cache=_cache(step_id, after, before),
    )


def _mean_ms(name: str, batches: int, now: Stats, then: Stats) -> float | None:
    return round(count_of(name, now, then) / batches / 1000, 4) if batches else None


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _less(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in grown.items() if count}


def _cache(step_id: str, after: Stats, before: Stats) -> CacheCounters | None:
    now = [stats["cache"][step_id] for stats in after if step_id in stats.get("cache", {})]
    then = [stats["cache"][step_id] for stats in before if step_id in stats.get("cache", {})]
    if not now:
        return None
    values: dict[str, Any] = {}
    for item in fields(CacheCounters):
        # Not the types of the fields: of booleans and texts the last word counts.
        is_count = type(item.default) is int
        values[item.name] = count_of(item.name, now, then) if is_count else now[-1].get(item.name, item.default)
    return CacheCounters(**values)
