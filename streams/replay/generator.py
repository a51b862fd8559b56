"""The process that sends: each event when it is due, whatever becomes of those before it.

It waits for no answer, so that a slow pipeline cannot slow down its own load (coordinated omission). Everything is
ready before the start: records are mapped files, times an array. Run as ``python -m
modelstream.streams.replay.generator FOLDER TOPIC BROKER``; how Kafka lets it in comes by the environment, as for every
command.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ormsgpack
from confluent_kafka import KafkaError, KafkaException, Producer
from numpy.typing import NDArray

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.cluster import SILENT_LOGGER
from modelstream.streams.headers import Headers
from modelstream.streams.replay.prepared import HEADERS, KEYS, RECORDS, VALUES
from modelstream.streams.replay.shared import Shared
from modelstream.streams.settings import BrokerSettings

__all__ = ["INTENDED_HEADER", "Cells", "main", "send_when_due", "unpack_headers"]

#: Header of each event: when it was due, in microseconds since 1970.
INTENDED_HEADER = "modelstream-intended-us"

#: Events that are handed over together at the most: a millisecond's worth, which is how precise `sent_us` is.
_SLICE = 256
#: What is due next is not looked at more often: a thread that wakes for every event takes the CPU from the workers.
_LEAST_SLEEP_S = 0.0002
#: How long a request to stop may stay unheard.
_LONGEST_SLEEP_S = 0.1
#: Between two looks for room in the producer's queue.
_FULL_POLL_S = 0.005
#: What was sent is on Kafka by then, or never will be.
_FLUSH_S = 30.0

_CONFIG = {
    "enable.idempotence": True,  # without it a repeated request could change the order of offsets
    "acks": "all",
    # 0 would be a request for every few events, which starves the broker; more would be latency of the generator's.
    "linger.ms": 1,
    "batch.num.messages": 10_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 512 * 1024,
    "message.max.bytes": 1_000_000_000,
    "message.timeout.ms": 30_000,
    "delivery.report.only.error": True,
}


def send_when_due(
    n_events: int,
    due_us: NDArray[np.int64] | None,
    send: Callable[[int, int], None],
    *,
    elapsed_us: Callable[[], int],
    sleep: Callable[[float], None],
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Send events in slices, each event once it is due and in order; what is late is sent at once.

    The schedule never moves: after a pause, all that has become due in it follows at once.

    Parameters
    ----------
    n_events : int
        How many there are.
    due_us : ndarray of int64, shape (n_events,), or None
        When each is due, in microseconds after the start, never falling; None for at once.
    send : callable
        Sends the events from a position up to before another.
    elapsed_us : callable
        Returns the microseconds since the start, less than 0 before it.
    sleep : callable
        Waits for so many seconds, or a little longer.
    is_stopped : callable
        Asked before each slice; true ends it.

    Examples
    --------
    >>> now_us, sent = [0], []
    >>> def sleep(seconds):
    ...     now_us[0] += round(seconds * 1e6)
    >>> def send(first, last):
    ...     sent.append((now_us[0], first, last))
    >>> send_when_due(3, np.array([0, 0, 900]), send, elapsed_us=lambda: now_us[0], sleep=sleep)
    >>> sent
    [(0, 0, 2), (900, 2, 3)]
    """
    first = 0
    while first < n_events and not is_stopped():
        last = min(first + _SLICE, n_events)
        now_us = elapsed_us()
        wait_us = -now_us
        if due_us is not None:
            last = first + int(np.searchsorted(due_us[first:last], now_us, "right"))
            wait_us = int(due_us[first]) - now_us
        if wait_us <= 0:
            send(first, last)
            first = last
        else:
            sleep(min(max(wait_us / 1e6, _LEAST_SLEEP_S), _LONGEST_SLEEP_S))


class _Sender:
    """Hands records to a producer, and notes when."""

    def __init__(self, folder: Path, topic: str, settings: BrokerSettings) -> None:
        self.shared = Shared.open(folder)
        self._topic, self._bootstrap = topic, settings.bootstrap
        self._failure: KafkaError | None = None
        config: dict[str, Any] = {**_CONFIG, **settings.librdkafka(), "on_delivery": self._on_delivery}
        self._producer = Producer(config, logger=SILENT_LOGGER)
        table = np.load(folder / RECORDS)
        self._n_records = len(table)
        self._partitions = table["partition"].copy()
        self._values, self._keys = Cells(folder / VALUES, table["n_value"]), Cells(folder / KEYS, table["n_key"])
        # Files have none, and what nobody has should cost nothing.
        has_headers = bool((table["n_headers"] >= 0).any())
        self._headers = Cells(folder / HEADERS, table["n_headers"]) if has_headers else None

    def connect(self) -> None:
        """Wait until the broker answers, so that the first event does not wait for it."""
        try:
            self._producer.list_topics(self._topic, timeout=10.0)
        except KafkaException as error:
            raise BrokerUnavailable(self._bootstrap, f"the generator: {error.args[0].str()}") from None

    def send(self, first: int, last: int) -> None:
        """Hand over a slice. Where there is no schedule, now is when it is due."""
        shared = self.shared
        if shared.due_us is None:
            shared.intended_us[first:last] = time.time_ns() // 1000
        sent = first
        while sent < last:  # a slice may end the file, and begin it anew
            record = sent % self._n_records
            n = min(last - sent, self._n_records - record)
            self._produce(record, record + n, shared.intended_us[sent : sent + n])
            sent += n
        shared.sent_us[first:last] = time.time_ns() // 1000
        shared.n_sent = last
        self._producer.poll(0)
        if self._failure is not None:
            raise BrokerUnavailable(self._bootstrap, f"{self._topic} does not take events: {self._failure.str()}")

    def _produce(self, first: int, last: int, intended_us: NDArray[np.int64]) -> None:
        rows = zip(
            self._values.part(first, last), self._keys.part(first, last), self._partitions[first:last].tolist(),
            (intended_us // 1000).tolist(), self._headers_of(first, intended_us.tolist()), strict=True,
        )  # fmt: skip
        produce, topic = self._producer.produce, self._topic
        for value, key, partition, stamp_ms, headers in rows:
            try:
                produce(topic, value, key, partition, timestamp=stamp_ms, headers=headers)
            except BufferError:
                self._produce_when_there_is_room(value, key, partition, stamp_ms, headers)

    def _headers_of(self, first: int, intended_us: list[int]) -> Iterable[Headers]:
        intended: Iterable[Headers] = ([(INTENDED_HEADER, b"%d" % us)] for us in intended_us)
        if self._headers is None:
            return intended
        packed = self._headers.part(first, first + len(intended_us))
        return (unpack_headers(own) + new if own else new for own, new in zip(packed, intended, strict=True))

    def _produce_when_there_is_room(
        self, value: bytes | None, key: bytes | None, partition: int, stamp_ms: int, headers: Headers
    ) -> None:
        # It ends: where nobody answers, what waits in the queue fails after message.timeout.ms.
        while self._failure is None:
            self._producer.poll(_FULL_POLL_S)
            try:
                self._producer.produce(self._topic, value, key, partition, timestamp=stamp_ms, headers=headers)
                return
            except BufferError:
                continue

    def finish(self) -> None:
        """Wait until Kafka has all."""
        deadline = time.monotonic() + _FLUSH_S
        while self._producer.flush(0.05) and self._failure is None and time.monotonic() < deadline:
            pass
        if self._failure is not None or len(self._producer):
            problem = self._failure.str() if self._failure else f"no confirmation for {_FLUSH_S:.0f} s"
            raise BrokerUnavailable(self._bootstrap, f"{self._topic} does not take events: {problem}")

    def _on_delivery(self, error: KafkaError | None, _: Any) -> None:
        self._failure = self._failure or error


def unpack_headers(packed: bytes) -> Headers:
    """Return headers that were written for the generator, without the mark of a replay that they were recorded in."""
    return [(name, value) for name, value in ormsgpack.unpackb(packed) if name != INTENDED_HEADER]


class Cells:
    """Values of a mapped file, one after the other."""

    def __init__(self, path: Path, lengths: NDArray[np.int64]) -> None:
        self._lengths = lengths.copy()
        self._ends = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))])
        with path.open("rb") as file:
            # Nothing can be mapped where there is nothing.
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._ends[-1] else b""

    def part(self, first: int, last: int) -> list[bytes | None]:
        """Return some of the values."""
        ends = self._ends[first : last + 1].tolist()
        found: list[bytes | None] = [self._bytes[start:end] for start, end in pairwise(ends)]
        for row in np.flatnonzero(self._lengths[first:last] < 0).tolist():
            found[row] = None
        return found


def _generate(folder: Path, topic: str, bootstrap: str) -> None:
    settings = BrokerSettings.resolve(option=bootstrap, in_file=None, environ=os.environ)
    sender = _Sender(folder, topic, settings)
    shared = sender.shared
    sender.connect()
    gc.freeze()
    gc.disable()
    shared.is_ready = True
    while not shared.start_us and not shared.stop:
        time.sleep(0.001)
    start_us = shared.start_us
    due_us = shared.due_us
    if due_us is not None:
        shared.intended_us[:] = start_us + due_us
    send_when_due(
        len(shared.sent_us), due_us, sender.send,
        elapsed_us=lambda: time.time_ns() // 1000 - start_us, sleep=time.sleep, is_stopped=lambda: shared.stop,
    )  # fmt: skip
    sender.finish()
    shared.is_done = True


def main() -> None:
    """Send, as the arguments say."""
    folder, topic, bootstrap = sys.argv[1:]
    try:
        _generate(Path(folder), topic, bootstrap)
    except ModelStreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
