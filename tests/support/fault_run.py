"""One run of the fault suite: a load, a consumer that watches, workers, and the oracle's verdict at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Self

from support.evidence import AckedLoad, Event, Watcher, known_event, write_afterwards
from support.load import Mark
from support.oracle import Files, Verdict, judge, latencies_ms, quantile, recovery_s
from support.streams import DEADLINE_S, KnownStream, wait_for

from modelstream.streams.worker_process import WorkerProcess


class EnvironWorker(WorkerProcess):
    """A worker with more in its environment."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str]) -> None:
        super().__init__(arguments)
        self._environ = environ

    def _command(self) -> list[str]:
        # `env` becomes the worker: its process id, and so its signals, are the worker's.
        return ["env", *(f"{name}={value}" for name, value in self._environ.items()), *super()._command()]


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a fault."""

    #: Wall clock, in milliseconds.
    at_ms: float
    #: Acknowledged events that the group had not committed, and so may repeat.
    uncommitted: int
    mark: Mark


class FaultRun:
    """A load, a watcher and workers on a stream, for the time of a ``with`` block.

    Parameters
    ----------
    stream : KnownStream
        What the workers run.
    rng : Random
        Decides when and whom a fault hits.
    per_s : float
        Events per second, over all partitions.
    event_of : callable
        Makes the event of a number.
    broker : str, optional
        Address for the workers, where it is another than the load's: a proxy's.
    """

    def __init__(
        self,
        stream: KnownStream,
        rng: Random,
        per_s: float = 1_000,
        event_of: Callable[[int], Event] = known_event,
        broker: str | None = None,
    ) -> None:
        self.stream, self.rng, self.per_s = stream, rng, per_s
        self.broker = broker or stream.bootstrap
        self.files = Files(stream.folder)
        self.load = AckedLoad(stream, self.files, per_s, event_of)
        self.watcher = Watcher(stream, self.files)
        self.moments: list[Moment] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.watcher)
        self._stack.enter_context(self.load)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def worker(self, *options: str, environ: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start a worker; it ends with the run."""
        arguments = [str(self.stream.file), "--broker", self.broker, *options]
        return self._stack.enter_context(EnvironWorker(arguments, environ or {}))

    def workers(self, n_workers: int, *options: str) -> list[WorkerProcess]:
        """Start workers and wait until each has its share and has answered something."""
        found = [self.worker(*options) for _ in range(n_workers)]
        self.wait_for_shares(*found)
        return found

    def workers_without_load(self, n_workers: int, *options: str) -> list[WorkerProcess]:
        """Start workers and wait until each has its share."""
        found = [self.worker(*options) for _ in range(n_workers)]
        self.wait_for_shares(*found, answered=0)
        return found

    def wait_for_shares(self, *workers: WorkerProcess, answered: int = 1) -> None:
        """Wait until the workers have all partitions, in equal shares, and each has answered some events."""
        n_each = len(self.watcher.partitions) // len(workers)

        def fair() -> bool:
            stats = [worker.stats() for worker in workers]
            return all(len(s.get("partitions", ())) == n_each and s.get("predictions", 0) >= answered for s in stats)

        wait_for(fair, f"{len(workers)} workers to have {n_each} partitions each", *workers)

    def note(self) -> Moment:
        """Note the moment of a fault, just before it."""
        mark = Mark.of(self.stream)
        moment = Moment(time.time() * 1000.0, max(self.at_risk(mark), 0), mark)
        self.moments.append(moment)
        return moment

    def wait_until_recovered(self, moment_ms: float, *workers: WorkerProcess, deadline_s: float = DEADLINE_S) -> None:
        """Wait until there are answers after a moment, and nothing that waited then is left."""
        due = self.load.n_acked
        wait_for(
            lambda: self.watcher.last_ms > moment_ms and self.stream.lag() <= max(self.load.n_acked - due, 0),
            "what waited to be answered", *workers, deadline_s=deadline_s, every_s=0.2,
        )  # fmt: skip

    def settle(self, *workers: WorkerProcess, deadline_s: float = DEADLINE_S) -> Verdict:
        """End the load, let the workers finish everything and end, and judge."""
        self.load.stop()
        self.stream.wait_until_committed(*workers, deadline_s=deadline_s)
        for worker in workers:
            worker.stop()
        self.watcher.finish()
        write_afterwards(self.stream, self.files)
        return judge(self.files)

    def recoveries_s(self, moments: Iterable[Moment | float] | None = None) -> list[float]:
        """Return for each fault how long until every partition answered an event sent after it; nan if never."""
        times = [m.at_ms if isinstance(m, Moment) else m for m in (self.moments if moments is None else moments)]
        found = [recovery_s(self.files, at_ms) for at_ms in times]
        return [float("nan") if seconds is None else round(seconds, 1) for seconds in found]

    def p99_ms(self, since_ms: float, until_ms: float) -> float:
        """Return the 99th percentile of the latency of what was sent in between, seen from outside."""
        return round(quantile(latencies_ms(self.files, since_ms, until_ms), 0.99), 1)

    def at_risk(self, mark: Mark) -> int:
        """Return how many events may be answered twice by what goes wrong from a mark until now.

        Those sent until now that were not committed at that mark: a commit in between only makes them fewer.
        """
        return self.load.n_acked - mark.n_committed

    def bound_of_kills(self) -> int:
        """Return how many duplicates the guarantee allows where every moment noted was one worker's kill.

        For each: what was sent and not committed, and a second's more between the look at that and the kill.
        """
        return sum(int(moment.uncommitted + self.per_s) for moment in self.moments)


def now_ms() -> float:
    """Return the wall clock in milliseconds."""
    return time.time() * 1000.0


def pause(seconds: float) -> None:
    """Let a phase of a run last: what happens in it is judged afterwards, nothing waits for it."""
    time.sleep(seconds)
