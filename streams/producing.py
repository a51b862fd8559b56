"""Records to a topic, as fast as librdkafka takes them or at a given rate; every one is on Kafka, or an error says so.

As in `delivery`, only failures are reported, not every record: a flush that comes back empty says that all others are
on Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.cluster import SILENT_LOGGER
from modelstream.streams.settings import BrokerSettings

__all__ = ["DeliveryFailed", "produce_records"]

# Records between two looks at failures, progress and pace: some 10 ms at full speed.
_CHECK_EVERY = 4096
#: Seconds between two reports of progress.
_PROGRESS_EVERY_S = 0.1
#: How long one wait for the producer lasts: it comes back neither when there is room nor when all is delivered, since
#: only failures are reported. At full speed the queue empties in half a second.
_WAIT_S = 0.02
#: Seconds that what was sent may take after Ctrl-C or an error of the input; a broker that is there takes 0.1.
_LAST_FLUSH_S = 10.0

_CONFIG = {
    # Exactly what Java's clients do, so that a key has one partition whoever produces.
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "acks": "all",
    # A file has no hurry, and larger requests cost the broker less.
    "linger.ms": 20,
    "batch.num.messages": 10_000,
    # What waits for the broker: a second's worth, and no more memory than that.
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 128 * 1024,
    # How large a record may be is for the topic to say.
    "message.max.bytes": 1_000_000_000,
    "message.timeout.ms": 30_000,
    "delivery.report.only.error": True,
}

# These are the record's own fault; the next one may well pass.
_RECORD_ERRORS = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
# Said of records that were waiting when nobody answered.
_NO_ANSWER = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})


class DeliveryFailed(ModelStreamError):
    """Kafka refused records; the others are there.

    Parameters
    ----------
    topic : str
        Where they should have gone.
    n_failed, n_records : int
        How many of how many.
    reason : str
        What Kafka said of the first.
    """

    permanent = False

    def __init__(self, topic: str, n_failed: int, n_records: int, reason: str) -> None:
        self.topic = topic
        self.n_failed = n_failed
        super().__init__(f"{n_failed:,} of {n_records:,} records were not delivered to {topic}: {reason}")


def produce_records(
    settings: BrokerSettings,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes]],
    on_progress: Callable[[int], None] | None = None,
    rate: float | None = None,
) -> int:
    """Produce records, in their order, and wait until Kafka has them.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        Where to; it should exist.
    records : iterable of (bytes or None, bytes)
        Key and value of each.
    on_progress : callable, optional
        Takes the number of records that Kafka has confirmed, ten times a second at the most and once at the end, also
        where an error or Ctrl-C is the end.
    rate : float, optional
        Records a second; as fast as possible by default.

    Returns
    -------
    int
        How many records there were; Kafka has them all.

    Raises
    ------
    BrokerUnavailable
        Kafka did not take the records within 30 s.
    DeliveryFailed
        Kafka refused some; where it is their own fault, as with records that are too large, the others are there.
    """
    sender = _Sender(settings, topic, on_progress, rate)
    try:
        sender.send(records)
    except BaseException:
        # The input is broken, or Ctrl-C: what was sent is Kafka's all the same.
        sender.finish(_LAST_FLUSH_S)
        raise
    sender.finish()
    sender.raise_failure()
    return sender.n_sent


class _Sender:
    """One run of `produce_records`."""

    def __init__(
        self,
        settings: BrokerSettings,
        topic: str,
        on_progress: Callable[[int], None] | None,
        rate: float | None,
    ) -> None:
        callbacks = {"on_delivery": self._on_delivery, "error_cb": self._on_error}
        self._producer = Producer({**_CONFIG, **settings.librdkafka(), **callbacks}, logger=SILENT_LOGGER)
        self._bootstrap = settings.bootstrap
        self._topic = topic
        self._on_progress = on_progress
        self._rate = rate
        self._started = self._reported = time.monotonic()
        self._failure: KafkaError | None = None
        self._connection_error: KafkaError | None = None
        self._n_failed = self._n_confirmed = 0
        self._stopped = False
        self.n_sent = 0

    def send(self, records: Iterable[tuple[bytes | None, bytes]]) -> None:
        """Hand the records over, until one fails that tells of all others."""
        produce, topic = self._producer.produce, self._topic
        until_check = 1
        for key, value in records:
            try:
                produce(topic, value, key)
            except BufferError:
                self._produce_when_there_is_room(key, value)
            except KafkaException as error:
                self._on_delivery(error.args[0])
            self.n_sent += 1
            until_check -= 1
            if not until_check:
                until_check = self._check()
                if self._stopped:
                    return

    def _produce_when_there_is_room(self, key: bytes | None, value: bytes) -> None:
        # It ends by itself: where nobody answers, what waits in the queue fails after message.timeout.ms.
        while not self._stopped:
            self._producer.poll(_WAIT_S)
            try:
                self._producer.produce(self._topic, value, key)
                return
            except BufferError:
                if not len(self._producer):
                    raise DeliveryFailed(self._topic, 1, self.n_sent + 1, f"a record of {len(value):,} bytes") from None
        self._n_failed += 1

    def _check(self) -> int:
        """Look around, wait where a rate is set, and return how many records may go before the next look."""
        self._producer.poll(0)
        self._report()
        if self._rate is None:
            return _CHECK_EVERY
        while not self._stopped:
            elapsed_s = time.monotonic() - self._started
            due = int(elapsed_s * self._rate) + 1 - self.n_sent
            if due > 0:
                return min(due, _CHECK_EVERY)
            self._producer.poll(min(self.n_sent / self._rate - elapsed_s, 0.1))
        return 1

    def finish(self, timeout_s: float = float("inf")) -> None:
        """Wait until Kafka has what was sent, and report how much that is."""
        deadline = time.monotonic() + timeout_s
        while not self._stopped and self._producer.flush(0.1) and time.monotonic() < deadline:
            self._report()
        if self._stopped:
            # What still waits would only wait in vain, each record for its own timeout.
            self._producer.purge()
            self._producer.flush(0.1)
        self._report(at_once=True)

    def raise_failure(self) -> None:
        """Say what Kafka did not take."""
        if self._failure is None:
            return
        if self._failure.code() in _NO_ANSWER:
            cause = (self._connection_error or self._failure).str()
            raise BrokerUnavailable(
                self._bootstrap,
                f"{self._n_failed:,} of {self.n_sent:,} records were not delivered to {self._topic}: {cause}",
            )
        raise DeliveryFailed(self._topic, self._n_failed, self.n_sent, self._failure.str())

    def _report(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (at_once or now - self._reported >= _PROGRESS_EVERY_S):
            self._reported = now
            # The producer's length counts errors of the connection too until they are polled: this is what Kafka has
            # at the least, and what it had before it still has.
            self._n_confirmed = max(self._n_confirmed, self.n_sent - self._n_failed - len(self._producer))
            self._on_progress(self._n_confirmed)

    def _on_delivery(self, error: KafkaError | None, _: Message | None = None) -> None:
        if error is not None:
            self._n_failed += 1
            self._failure = self._failure or error
            self._stopped = self._stopped or error.code() not in _RECORD_ERRORS

    def _on_error(self, error: KafkaError) -> None:
        # That all brokers are down is said as well, and tells nothing more.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._connection_error = error
