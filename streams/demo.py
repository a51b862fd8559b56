"""The demo: the flights example as a person would run it, with every prediction counted.

A worker in a process of its own reads topics made for this run, on the embedded broker or a given one. The events are
produced and the predictions consumed here, side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Message
from numpy.typing import NDArray

from modelstream.models.errors import ModelStreamError
from modelstream.streams.cluster import Cluster
from modelstream.streams.consuming import read_topic
from modelstream.streams.producing import produce_records
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.worker_process import WorkerProcess

__all__ = ["DemoFailed", "Progress", "Summary", "Tally", "run_demo"]

# Without any progress for so long something is broken: say so instead of waiting.
_STALL_TIMEOUT_S = 60.0
_PARTITIONS = 4


class DemoFailed(ModelStreamError):
    """The demo did not come to its end."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of the events; the object that ``demo --json`` writes.

    Parameters
    ----------
    events : int
        Events produced.
    filtered : int
        Events that the worker says a business rule took out.
    predictions, dead_letters : int
        Records on the output topics.
    missing : int
        Events that were due a prediction and have none.
    duplicates : int
        Predictions beyond the first of an event.
    out_of_order : int
        Predictions that came after one of a later event of the same key.
    events_per_s : float
        Events from the first produced to the last prediction.
    p50_ms, p99_ms : float
        From an event's production to its prediction on Kafka, waiting in Kafka included.
    seconds : float
        From the first event produced to the last prediction.
    cache_hits, cache_misses : int
        Events whose answers the cache had, or another event of their batch, and the others; 0 without a cache.
    """

    events: int
    filtered: int
    predictions: int
    dead_letters: int
    missing: int
    duplicates: int
    out_of_order: int
    events_per_s: float
    p50_ms: float
    p99_ms: float
    seconds: float
    cache_hits: int = 0
    cache_misses: int = 0

    def problems(self) -> list[str]:
        """Return what is not as promised."""
        checks = {
            "events without a prediction": self.missing,
            "predictions more than once": self.duplicates,
            "predictions out of order": self.out_of_order,
            "dead letters": self.dead_letters,
            "events unaccounted for": self.events - self.filtered - self.predictions - self.dead_letters,
        }
        return [f"{count:,} {what}" for what, count in checks.items() if count]

    def to_json(self) -> bytes:
        """Return the summary as one JSON object."""
        return orjson.dumps(asdict(self))


class Tally:
    """Counts predictions against the events that they are due for.

    Parameters
    ----------
    ids : sequence of str
        Ids of all events in the order in which they are produced.
    due : ndarray of bool, shape (n_events,)
        Whether the event is due a prediction.
    """

    def __init__(self, ids: Sequence[str], due: NDArray[np.bool_]) -> None:
        self._position = {event_id: i for i, event_id in enumerate(ids)}
        self._due = due
        self._copies = np.zeros(len(ids), np.int32)
        self._last_of_key: dict[bytes | None, int] = {}
        self.sent_at_ms = np.zeros(len(ids), np.int64)
        self.arrived_at_ms = np.zeros(len(ids), np.int64)
        self.out_of_order = 0
        self.unknown = 0
        self.values: dict[str, Any] = {}

    def add(self, messages: Sequence[Message], keep_values: bool = False) -> None:
        """Count predictions in the order of their partition."""
        for message in messages:
            prediction = orjson.loads(message.value())
            position = self._position.get(prediction["event_id"])
            if position is None:
                self.unknown += 1
                continue
            self._copies[position] += 1
            self.arrived_at_ms[position] = message.timestamp()[1]
            key = message.key()
            if key is not None:
                self.out_of_order += self._last_of_key.get(key, -1) > position
                self._last_of_key[key] = max(position, self._last_of_key.get(key, -1))
            if keep_values:
                self.values[prediction["event_id"]] = prediction["predictions"]

    @property
    def predictions(self) -> int:
        """How many predictions there are, duplicates included."""
        return int(self._copies.sum()) + self.unknown

    @property
    def missing(self) -> int:
        """How many events have no prediction that are due one."""
        return int((self._due & (self._copies == 0)).sum())

    @property
    def duplicates(self) -> int:
        """How many predictions there are beyond the first of an event, or for an event that is due none."""
        return self.predictions - int((self._due & (self._copies > 0)).sum())

    def latencies_ms(self) -> NDArray[np.int64]:
        """Return the time from production to prediction of every predicted event, in milliseconds."""
        seen = self._copies > 0
        return self.arrived_at_ms[seen] - self.sent_at_ms[seen]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the demo is, for who shows it."""

    produced: int
    filtered: int
    predictions: int


class _Producing(threading.Thread):
    """Produces the events, and notes when."""

    def __init__(self, settings: BrokerSettings, topic: str, records: list[Any], sent_at_ms: NDArray[np.int64]) -> None:
        super().__init__(name="modelstream-demo-producer", daemon=True)
        self._settings, self._topic, self._records, self._sent_at_ms = settings, topic, records, sent_at_ms
        self.produced = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            produce_records(self._settings, self._topic, self._noting_time())
        except BaseException as error:
            self.error = error

    def _noting_time(self) -> Iterator[tuple[bytes | None, bytes]]:
        for position, record in enumerate(self._records):
            # To the millisecond, as Kafka's own timestamps.
            self._sent_at_ms[position] = time.time_ns() // 1_000_000
            self.produced = position + 1
            yield record


def run_demo(
    settings: BrokerSettings,
    pipeline: Path,
    records: list[tuple[bytes | None, bytes]],
    on_progress: Callable[[Progress], None],
    *,
    worker_options: Sequence[str] = (),
    worker_environ: Mapping[str, str] | None = None,
    keep_values: bool = False,
) -> tuple[Summary, Tally]:
    """Run the flights through a worker and count what comes out.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is; topics are made for this run, and deleted at its end.
    pipeline : Path
        The pipeline file of the flights example.
    records : list of (bytes or None, bytes)
        Keys and values of the events.
    on_progress : callable
        Called some times a second.
    worker_options : sequence of str
        Further options of ``modelstream run``.
    worker_environ : mapping of str to str, optional
        Its environment; that of this process by default.
    keep_values : bool
        Whether the tally keeps every prediction's values.

    Raises
    ------
    DemoFailed
        If the worker fails, or nothing moves for a minute.
    BrokerUnavailable
        If the broker is away.
    """
    events = [orjson.loads(value) for _, value in records]
    tally = Tally([event["id"] for event in events], np.array([event["dep_delay"] is not None for event in events]))
    name = f"modelstream-demo-{time.time_ns() // 1_000_000:x}"
    topics = {role: f"{name}.{role}" for role in ("events", "predictions", "dead")}
    cluster = Cluster(settings)
    cluster.create_topics(dict.fromkeys(topics.values(), _PARTITIONS))
    overrides = {
        "pipeline": name,
        "source.topic": topics["events"],
        "sink.topic": topics["predictions"],
        "sink.dead_letter": topics["dead"],
    }
    options = [f"--set={key}={value}" for key, value in overrides.items()]
    arguments = [str(pipeline), "--broker", settings.bootstrap, *options, *worker_options]
    try:
        with WorkerProcess(arguments, worker_environ) as worker:
            worker.wait_until_ready()
            producing = _Producing(settings, topics["events"], records, tally.sent_at_ms)
            stats = _follow(settings, topics["predictions"], worker, producing, tally, on_progress, keep_values)
            dead_letters = sum(map(len, read_topic(settings, topics["dead"], from_beginning=True, until_end=True)))
            worker.stop()
    finally:
        cluster.delete(topics.values(), group=name)
    return _summary(tally, len(records), stats, dead_letters), tally


def _follow(
    settings: BrokerSettings,
    topic: str,
    worker: WorkerProcess,
    producing: _Producing,
    tally: Tally,
    on_progress: Callable[[Progress], None],
    keep_values: bool,
) -> dict[str, Any]:
    """Produce, and count predictions until the worker has accounted for every event. Return its statistics."""
    stats: dict[str, Any] = {}
    watch = _Watch(worker, producing, tally, on_progress, stats)
    producing.start()
    for messages in read_topic(settings, topic, from_beginning=True, until_end=False, stop=watch.is_over):
        tally.add(messages, keep_values)
        watch.is_over()
    return stats


class _Watch:
    """Looks now and then at the worker, and knows when all is done or nothing moves."""

    _EVERY_S = 0.1

    def __init__(
        self,
        worker: WorkerProcess,
        producing: _Producing,
        tally: Tally,
        on_progress: Callable[[Progress], None],
        stats: dict[str, Any],
    ) -> None:
        self._worker, self._producing, self._tally, self._on_progress = worker, producing, tally, on_progress
        self._stats = stats
        self._looked_at = self._moved_at = time.monotonic()
        self._seen: Progress | None = None
        self._over = False

    def is_over(self) -> bool:
        now = time.monotonic()
        if not self._over and now - self._looked_at >= self._EVERY_S:
            self._looked_at = now
            self._look(now)
        return self._over

    def _look(self, now: float) -> None:
        if self._producing.error is not None:
            raise self._producing.error
        self._worker.check()
        self._stats.update(self._worker.stats())
        progress = Progress(self._producing.produced, self._stats.get("filtered", 0), self._tally.predictions)
        self._on_progress(progress)
        if progress != self._seen:
            self._seen, self._moved_at = progress, now
        elif now - self._moved_at > _STALL_TIMEOUT_S:
            raise DemoFailed(f"nothing has moved for {_STALL_TIMEOUT_S:.0f} s: {progress}")
        accounted = sum(self._stats.get(name, 0) for name in ("filtered", "predictions", "dead_letters"))
        done = not self._producing.is_alive() and accounted >= self._producing.produced
        self._over = done and self._tally.predictions >= self._stats["predictions"]


def _summary(tally: Tally, n_events: int, stats: dict[str, Any], dead_letters: int) -> Summary:
    latencies = tally.latencies_ms()
    caches = stats.get("cache", {}).values()
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if len(latencies) else (0.0, 0.0)
    seconds = (int(tally.arrived_at_ms.max()) - int(tally.sent_at_ms[0])) / 1000 if len(latencies) else 0.0
    return Summary(
        events=n_events,
        filtered=stats.get("filtered", 0),
        predictions=tally.predictions,
        dead_letters=dead_letters,
        missing=tally.missing,
        duplicates=tally.duplicates,
        out_of_order=tally.out_of_order,
        events_per_s=round(n_events / seconds, 1) if seconds else 0.0,
        p50_ms=round(p50, 1),
        p99_ms=round(p99, 1),
        seconds=round(seconds, 3),
        cache_hits=sum(counters["hits"] + counters["duplicates"] + counters["coalesced"] for counters in caches),
        cache_misses=sum(counters["misses"] + counters["bypassed"] for counters in caches),
    )
