"""Open-loop load on a micro-batcher and a model, on the real clock: events are there when their time has come."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from benchmarks.batching_jobs import Job, Served
from numpy.typing import NDArray

from modelstream.operators.microbatch import BatchPolicy, MicroBatcher

__all__ = ["LoadRun", "poisson_arrivals", "run_load", "saturate"]

#: As Crayfish: caches, allocator, and what the controller learns.
WARM_UP = 0.25

#: A run ends after so many times its duration: a policy that cannot keep up would take for ever.
_PATIENCE = 1.5

#: Fetches at saturation are of any size up to this. Were they all of one, a cap of that size would never cut a batch,
#: and look better than it is.
_FETCH_ROWS = 2000

#: `time.sleep` oversleeps by about so much; the rest is spent looking at the clock.
_SPIN_S = 0.0002


@dataclass(frozen=True)
class LoadRun:
    """What one run under load measured.

    Parameters
    ----------
    p50_ms, p99_ms : float
        Latency from the intended time of an event to the end of its batch, without the warm-up; what was not answered
        when patience ended counts as answered then.
    mean_rows : float
        Rows of a micro-batch.
    kept_up : bool
        Whether all was answered.
    reasons : dict of str to int
        Micro-batches by close reason.
    """

    p50_ms: float
    p99_ms: float
    mean_rows: float
    kept_up: bool
    reasons: dict[str, int]


def poisson_arrivals(rate_per_s: float, duration_s: float, seed: int) -> NDArray[np.float64]:
    """Return the intended times of events, in seconds from the start."""
    generator = np.random.default_rng(seed)
    n = max(int(rate_per_s * duration_s), 4)
    return np.cumsum(generator.exponential(1 / rate_per_s, n))


def run_load(job: Job, policy: BatchPolicy, arrivals_s: NDArray[np.float64]) -> LoadRun:
    """Offer events at their times, and measure when they are answered.

    Raises
    ------
    WrongOutput
        If one output is not right.
    """
    batcher = MicroBatcher(policy)
    n = len(arrivals_s)
    done_s = np.empty(n)
    served: list[Served] = []
    n_added = n_done = 0
    start = time.perf_counter() + 0.005
    produced_ms = ((time.time() + start - time.perf_counter() + arrivals_s) * 1000).astype(np.int64)
    give_up_s = arrivals_s[-1] * _PATIENCE + 0.1
    while n_done < n and (now_s := time.perf_counter() - start) < give_up_s:
        n_here = int(np.searchsorted(arrivals_s, now_s, side="right"))
        if n_here > n_added:
            for events in job.events(n_added, n_here, produced_ms[n_added:n_here]):
                batcher.add(events)
            n_added = n_here
        batch = batcher.take(drain=n_added == n)
        if batch is None:
            due_s = batcher.due_in_s()
            until_s = now_s + due_s if due_s is not None else np.inf
            _sleep_until(start + min(until_s, arrivals_s[n_added] if n_added < n else np.inf))
            continue
        n_rows, began = len(batch.events), time.perf_counter()
        served.append(job.serve(batch.events))
        ended = time.perf_counter()
        done_s[n_done : n_done + n_rows] = ended - start
        n_done += n_rows
        batcher.finished(batch, n_rows, ended - began)
    done_s[n_done:] = time.perf_counter() - start
    job.check(served)
    latency_ms = (done_s - arrivals_s)[int(n * WARM_UP) :] * 1000
    p50_ms, p99_ms = np.percentile(latency_ms, [50, 99]).tolist()
    reasons = {str(reason): count for reason, count in batcher.statistics.batches.items()}
    return LoadRun(p50_ms, p99_ms, n_done / max(len(served), 1), n_done == n, reasons)


def saturate(job: Job, policy: BatchPolicy, duration_s: float) -> float:
    """Return the events per second where there are always more.

    Raises
    ------
    WrongOutput
        If one output is not right.
    """
    batcher = MicroBatcher(policy)
    served: list[Served] = []
    # All of them are as old as the run: a worker that has fallen behind.
    produced_ms = np.full(_FETCH_ROWS, int(time.time() * 1000), np.int64)
    fetch_rows = np.random.default_rng(0).integers(1, _FETCH_ROWS, 997).tolist()
    n_added = n_done = n_warm = n_fetches = 0
    start = time.perf_counter()
    warm_at = ended = start
    while ended - start < duration_s:
        while batcher.n_rows < max(policy.max_size, _FETCH_ROWS):
            n = fetch_rows[n_fetches % len(fetch_rows)]
            for events in job.events(n_added, n_added + n, produced_ms):
                batcher.add(events)
            n_added += n
            n_fetches += 1
        batch = batcher.take()
        assert batch is not None, "more waits than a batch may have"
        n_rows, began = len(batch.events), time.perf_counter()
        served.append(job.serve(batch.events))
        ended = time.perf_counter()
        batcher.finished(batch, n_rows, ended - began)
        n_done += n_rows
        if n_warm == 0 and ended - start >= duration_s * WARM_UP:
            warm_at, n_warm = ended, n_done
    job.check(served)
    # A test's run may be one batch.
    return (n_done - n_warm) / (ended - warm_at) if ended > warm_at else n_done / (ended - start)


def _sleep_until(moment: float) -> None:
    left_s = moment - time.perf_counter() - _SPIN_S
    if left_s > 0:
        time.sleep(left_s)
    while time.perf_counter() < moment:
        pass
