"""One replay from its start to its end: send, collect, watch, and wait for the last answer."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from modelstream.models.errors import ModelStreamError
from modelstream.streams.consuming import read_topic
from modelstream.streams.replay.arrivals import Schedule
from modelstream.streams.replay.collecting import Answers, LetterReader, Letters
from modelstream.streams.replay.figures import Usage, UsageReading
from modelstream.streams.replay.live_figures import LiveFigures, Progress
from modelstream.streams.replay.prepared import PreparedEvents
from modelstream.streams.replay.sending import Sending
from modelstream.streams.replay.target import Target
from modelstream.streams.replay.workers import count_of

__all__ = ["Observation", "observe"]

#: Between two looks at the processes, and at what they use.
_LOOK_EVERY_S = 0.1
#: Between two reports of progress.
_REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Observation:
    """What one replay left behind, before anything is computed.

    Parameters
    ----------
    start_us : int
        When the first event could be due, in microseconds since 1970.
    intended_us, sent_us : ndarray of int64, shape (n_sent,)
        When each event was due, and when it was with the producer.
    id_hashes : ndarray of uint64, shape (n_sent,)
        Hashes of the events' ids.
    answers : Answers
        The predictions.
    letters : Letters
        The dead letters.
    usage : Usage or None
        What the workers used; None where they are not ours.
    stats_before, stats_after : list of dict
        What each worker said of itself before the first event and after the last answer; empty where they are not ours.
    ended_by : KeyboardInterrupt, ModelStreamError or None
        What ended it before its end: Ctrl-C, or a process or the broker that failed.
    moved_us : int
        When a look last found something sent, answered or filtered, or Ctrl-C came; 0 where nobody looked.
    """

    start_us: int
    intended_us: NDArray[np.int64]
    sent_us: NDArray[np.int64]
    id_hashes: NDArray[np.uint64]
    answers: Answers
    letters: Letters
    usage: Usage | None
    stats_before: list[dict[str, Any]]
    stats_after: list[dict[str, Any]]
    ended_by: KeyboardInterrupt | ModelStreamError | None
    moved_us: int = 0


def observe(
    target: Target,
    events: PreparedEvents,
    schedule: Schedule,
    *,
    drain_s: float,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Observation:
    """Replay events through a target, and note what comes.

    Ctrl-C ends it early, and so does what fails while events are sent; what came until then is returned.

    Parameters
    ----------
    target : Target
        Topics and workers, ready.
    events : PreparedEvents
        What to send.
    schedule : Schedule
        When.
    drain_s : float
        After the last event, give up when nothing has moved for so many seconds.
    on_progress : callable
        Called some times a second.

    Raises
    ------
    ModelStreamError
        Something has failed before the first event.
    """
    hashes = events.hashes_at(target.spec.source.topic, target.next_offsets)
    first_offsets = target.next_offsets.tolist()

    def position_of(partition: int, offset: int) -> int | None:
        # On topics of others, other events stand between these.
        return None if target.workers is None else events.position_of(partition, offset - first_offsets[partition])

    with Sending(target, events, schedule) as sending:
        run = _Run(target, sending, hashes, Letters(position_of), drain_s, on_progress)
        with _no_garbage_collection():
            ended_by = run.go()
        n_sent = sending.shared.n_sent
        # The idempotent producer has put all of them there, once; after a failure nobody goes on with this target.
        target.next_offsets[:] += np.bincount(events.partitions[:n_sent], minlength=target.partitions)
        return Observation(
            start_us=sending.shared.start_us,
            intended_us=np.array(sending.shared.intended_us[:n_sent]),
            sent_us=np.array(sending.shared.sent_us[:n_sent]),
            id_hashes=hashes[:n_sent],
            answers=run.answers,
            letters=run.letters,
            usage=Usage.of(run.looks),
            stats_before=run.stats_before,
            stats_after=run.stats_after,
            ended_by=ended_by,
            moved_us=run.moved_us,
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector away: a full collection would stop the clock of who measures for tens of milliseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Run:
    """The course of one replay in this process; it ends when every event is accounted for, or nothing moves."""

    def __init__(
        self,
        target: Target,
        sending: Sending,
        hashes: NDArray[np.uint64],
        letters: Letters,
        drain_s: float,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._target, self._sending = target, sending
        self._drain_s, self._on_progress = drain_s, on_progress
        self._n_events = len(hashes)
        self._live = LiveFigures(hashes)
        self.answers, self.letters = Answers(), letters
        self._reader = LetterReader(target.settings, target.spec.sink.dead_letter, self.letters)
        self.looks: list[UsageReading] = []
        self.stats_before: list[dict[str, Any]] = []
        self.stats_after: list[dict[str, Any]] = []
        self._looked_at = self._reported_at = self._moved_at = self._started_at = 0.0
        self._seen: tuple[int, ...] = ()
        self._over = False

    def go(self) -> KeyboardInterrupt | ModelStreamError | None:
        """Run, and return what has ended it before its end."""
        self._sending.wait_until_ready()
        self._reader.start()
        try:
            self._reader.wait_until_started()
            for messages in self._predictions():
                self.answers.add(messages)
            return None
        except (KeyboardInterrupt, ModelStreamError) as why:
            if not self._sending.shared.start_us:
                raise
            return self._end_early(why)
        finally:
            self._reader.end()

    @property
    def moved_us(self) -> int:
        """When something last moved, in microseconds since 1970."""
        return time.time_ns() // 1000 - int((time.monotonic() - self._moved_at) * 1e6)

    def _end_early(self, why: KeyboardInterrupt | ModelStreamError) -> KeyboardInterrupt | ModelStreamError:
        """Have the generator end, and ask the workers a last time; return what ended the run: a failure, if any."""
        failure = why if isinstance(why, ModelStreamError) else None
        if failure is None:
            self._moved_at = time.monotonic()
        for last in (self._sending.stop, self._look_at_workers):
            try:
                last()
            except ModelStreamError as error:
                failure = failure or error
        return failure or why

    def _predictions(self) -> Iterator[list[Message]]:
        topic = self._target.spec.sink.topic
        return read_topic(
            self._target.settings, topic, from_beginning=False, until_end=False, stop=self._is_over,
            on_start=self._begin,
        )  # fmt: skip

    def _begin(self) -> None:
        if self._target.workers is not None:
            self.stats_before = self._target.workers.stats()
        self._look_at_workers(with_stats=False)
        self._started_at = self._moved_at = time.monotonic()
        self._sending.start()

    def _is_over(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look(now)
        return self._over

    def _look(self, now: float) -> None:
        self._sending.check()
        if self._reader.error is not None:
            raise self._reader.error
        self._look_at_workers(with_stats=False)
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._on_progress(self._progress(now))
        if not self._sending.shared.is_done:
            self._moved_at = now
            return
        has_moved = self._has_moved()
        # The workers are only asked when they have nothing else to do, so that the question delays no answer.
        if not has_moved or self.answers.n + self.letters.n >= self._n_events:
            self._look_at_workers()
            self._has_moved()
            self._over = self._is_accounted_for() or now - self._moved_at > self._drain_s
        if self._over:
            self._on_progress(self._progress(now))

    def _has_moved(self) -> bool:
        seen = (self.answers.n, self.letters.n, *(count_of(name, self.stats_after, []) for name in _ENDS))
        before, self._seen = self._seen, seen
        if seen != before:
            self._moved_at = time.monotonic()
        return seen != before

    def _look_at_workers(self, with_stats: bool = True) -> None:
        workers = self._target.workers
        if workers is None:
            return
        workers.check()
        self.looks.append(workers.usage())
        if with_stats:
            self.stats_after = workers.stats()

    def _is_accounted_for(self) -> bool:
        if self._target.workers is None:
            return self.answers.n + self.letters.n >= self._n_events
        counts = {name: count_of(name, self.stats_after, self.stats_before) for name in _ENDS}
        return (
            sum(counts.values()) >= self._sending.shared.n_sent
            and self.answers.n >= counts["predictions"]
            and self.letters.n >= counts["dead_letters"]
        )

    def _progress(self, now: float) -> Progress:
        seconds, n_sent = now - self._started_at, self._sending.shared.n_sent
        n_answered = self.answers.n + self.letters.n
        self._live.look(self.answers)
        p50_ms, p99_ms = self._live.percentiles_ms(self._sending.shared.intended_us)
        return Progress(
            seconds=seconds,
            events=self._n_events,
            sent=n_sent,
            answered=n_answered,
            lag=self._live.lag(n_sent),
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            silent_s=self._live.silent_s(seconds, n_answered, n_sent),
        )


#: What a worker can make of an event.
_ENDS = ("predictions", "dead_letters", "filtered")
