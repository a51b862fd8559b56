"""Dead letters sent back to the source topic, each once.

Records and the markers that say so are written in one Kafka transaction: either both are there, or neither. Whoever
is killed in the middle leaves a transaction that the next redrive, or the broker after 10 s, undoes. All redrives of a
dead-letter topic share one transactional id, so a second one shuts out the first before it looks what is left: two at
once send no letter twice, whatever their filters.

Where the broker gives no transactions, records are confirmed first and markers written after that: who is killed
in between sends those letters again, and none is lost.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.cluster import SILENT_LOGGER
from modelstream.streams.dead_letter_reading import Letter, Place, fetch_letters, marker
from modelstream.streams.headers import own_headers, read_headers, split_own
from modelstream.streams.settings import BrokerSettings

__all__ = ["RedriveStopped", "Redriver"]

# Letters of one transaction. Until it ends, readers of the source topic wait at its first record: some 10 ms.
_CHUNK_LETTERS = 500
_CHUNK_BYTES = 4 * 1024 * 1024
#: Letters in memory at a time. What is more is read in another round over the dead-letter topic.
_ROUND_BYTES = 256 * 1024 * 1024

#: Seconds for one answer of the broker. Also how long the transaction of a redrive that was killed holds up readers.
_TIMEOUT_S = 10
#: Seconds for the coordinator to end a transaction that another redrive left; it may have to be elected first.
_INIT_TIMEOUT_S = 30
#: Whether a transaction whose end was not confirmed was committed is known only by committing it again.
_ATTEMPTS = 3

_CONFIG = {
    # As Java's clients, for records whose partition is no more: a key goes where its new events go.
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    # How large a record may be is for the topic to say.
    "message.max.bytes": 1_000_000_000,
    "message.timeout.ms": _TIMEOUT_S * 1000,
}

# These are a record's own fault; the next one may well pass.
_RECORD_ERRORS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    }
)
# librdkafka may fail a transaction for what happened in the one before, which was undone.
_AFTER_ABORT = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER})
# Another producer has our transactional id.
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


class RedriveStopped(ModelStreamError):
    """Another redrive of this dead-letter topic has taken over; what this one had not committed is the other's."""

    permanent = False

    def __init__(self, topic: str) -> None:
        super().__init__(f"another redrive of {topic} was started; this one sends nothing more")


class Redriver:
    """Sends letters back. Entering it shuts out every other redrive of the dead-letter topic.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    dead_topic : str
        Where the letters are.
    source_topic, n_partitions : str, int
        Where they came from, and its partitions.
    transactions : bool
        Whether to use transactions, where the broker gives them.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        dead_topic: str,
        source_topic: str,
        n_partitions: int,
        *,
        transactions: bool = True,
    ) -> None:
        self._settings = settings
        self._dead_topic = dead_topic
        self._source_topic = source_topic
        self._n_partitions = n_partitions
        self._transactions = transactions
        self._in_transaction = False
        self._refused: dict[Place, KafkaError] = {}
        self._failure: KafkaError | None = None
        #: Letters that are back in the source topic.
        self.n_sent = 0
        #: Letters that were to be sent and are not, by why.
        self.left: Counter[str] = Counter()
        #: Why there are no transactions, None where there are.
        self.no_transactions: str | None = None if transactions else "not wanted"

    def __enter__(self) -> Self:
        options: dict[str, Any] = {
            "transactional.id": f"modelstream-redrive-{self._dead_topic}",
            "transaction.timeout.ms": _TIMEOUT_S * 1000,
        }
        if self._transactions:
            self._producer = self._connect(options)
            try:
                self._producer.init_transactions(_INIT_TIMEOUT_S)
                return self
            except KafkaException as error:
                self.no_transactions = error.args[0].str()
                self._transactions = False
        self._producer = self._connect({})
        return self

    def _connect(self, options: dict[str, Any]) -> Producer:
        config = {**_CONFIG, **self._settings.librdkafka(), **options}
        return Producer(config, logger=SILENT_LOGGER)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abort()
        self._producer.purge()
        self._producer.flush(0.1)

    def send(self, letters: Sequence[Letter], on_progress: Callable[[int], None] = lambda n_sent: None) -> None:
        """Send letters in their order; what became of them stands in `n_sent` and `left`.

        Parameters
        ----------
        letters : sequence of Letter
            Letters of the source topic, all of them complete.
        on_progress : callable
            Gets the number of letters sent so far.

        Raises
        ------
        BrokerUnavailable
            The broker does not answer, or refuses them all.
        RedriveStopped
            Another redrive was started.
        """
        for some in _stretches(letters, len(letters), _ROUND_BYTES):
            records = fetch_letters(self._settings, self._dead_topic, [letter.place for letter in some])
            there = [letter for letter in some if letter.place in records]
            if len(there) < len(some):
                self.left["gone from the dead-letter topic"] += len(some) - len(there)
            for chunk in _stretches(there, _CHUNK_LETTERS, _CHUNK_BYTES):
                self._send([(letter, records[letter.place]) for letter in chunk])
                on_progress(self.n_sent)

    def _send(self, chunk: Sequence[tuple[Letter, Message]]) -> None:
        refused = self._write(chunk)
        if not (refused and self._transactions):
            self.n_sent += len(chunk) - len(refused)
        if len(chunk) == 1:
            self.left.update(f"refused ({error.str()})" for error in refused.values())
        elif refused:
            # A broker refuses a request as a whole. One by one shows which letter it is, and keeps the order.
            for letter, record in chunk:
                if self._transactions or letter.place in refused:
                    self._send([(letter, record)])

    def _write(self, chunk: Sequence[tuple[Letter, Message]]) -> dict[Place, KafkaError]:
        """Write records and their markers, and return what was refused; in a transaction that undoes all of it."""
        for attempt in itertools.count(1):
            self._refused, self._failure = {}, None
            try:
                self._write_once(chunk)
                return self._refused
            except KafkaException as error:
                cause = error.args[0]
                self._abort()
            except SystemError:
                # Of a fatal error confluent-kafka tells while it calls back, which Python cannot take.
                cause = self._abort() or KafkaError(KafkaError._FATAL)
            if not (self._transactions and cause.code() in _AFTER_ABORT and attempt < _ATTEMPTS):
                raise self._problem(cause)
        raise AssertionError

    def _write_once(self, chunk: Sequence[tuple[Letter, Message]]) -> None:
        if self._transactions:
            self._producer.begin_transaction()
            self._in_transaction = True
        self._produce((letter, self._record(letter, record)) for letter, record in chunk)
        if not self._transactions:
            self._flush()
        self._produce((one, self._marker(one)) for one, _ in chunk if one.place not in self._refused)
        self._flush()
        if self._refused:
            self._abort()
        elif self._transactions:
            self._commit()

    def _record(self, letter: Letter, record: Message) -> dict[str, Any]:
        source = letter.source
        assert source is not None
        _, headers = split_own(read_headers([record])[0] or ())
        said: dict[str, str | int | None] = {
            "attempts": letter.attempts,
            "origin": "/".join(map(str, letter.origin)),
            "redriven_from": f"{self._dead_topic}/{letter.place}",
            # Not as the record's own timestamp: a topic that keeps records for a week would drop an older one at once.
            "timestamp_ms": source.timestamp_ms or None,
        }
        options = {"partition": source.partition} if source.partition < self._n_partitions else {}
        return {
            "topic": self._source_topic,
            "key": record.key(),
            "value": record.value(),
            "headers": headers + own_headers(said),
            **options,
        }

    def _marker(self, letter: Letter) -> dict[str, Any]:
        return {"topic": self._dead_topic, "partition": letter.place.partition, "headers": marker(letter)}

    def _produce(self, records: Iterable[tuple[Letter, dict[str, Any]]]) -> None:
        for letter, record in records:
            on_delivery = partial(self._on_delivery, letter.place)
            try:
                self._producer.produce(**record, on_delivery=on_delivery)
            except KafkaException as error:
                on_delivery(error.args[0])
            if self._failure is not None or (self._refused and self._transactions):
                return

    def _on_delivery(self, place: Place, error: KafkaError | None, _: Message | None = None) -> None:
        if error is None:
            return
        if error.code() in _RECORD_ERRORS:
            self._refused[place] = error
        else:
            self._failure = self._failure or error

    def _flush(self) -> None:
        left = self._producer.flush(_TIMEOUT_S)
        if self._refused and self._transactions:
            return  # what else failed did so with it
        if self._failure is not None or left:
            raise KafkaException(self._failure or KafkaError(KafkaError._TIMED_OUT))

    def _commit(self) -> None:
        for attempt in itertools.count(1):
            try:
                self._producer.commit_transaction(_TIMEOUT_S)
                self._in_transaction = False
                return
            except KafkaException as error:
                if not error.args[0].retriable() or attempt == _ATTEMPTS:
                    raise

    def _abort(self) -> KafkaError | None:
        """Undo the transaction, if there is one; return what is in the way: the broker does it then."""
        if self._in_transaction:
            self._in_transaction = False
            try:
                self._producer.abort_transaction(_TIMEOUT_S)
                self._producer.flush(_TIMEOUT_S)
            except KafkaException as error:
                found: KafkaError = error.args[0]
                return found
        return None

    def _problem(self, error: KafkaError) -> ModelStreamError:
        if error.code() in _FENCED:
            return RedriveStopped(self._dead_topic)
        return BrokerUnavailable(
            self._settings.bootstrap,
            f"stopped after {self.n_sent:,} letters, since it did not take the next: {error.str()}",
        )


def _stretches(letters: Sequence[Letter], max_letters: int, max_bytes: int) -> Iterator[list[Letter]]:
    """Yield letters in their order, so many and so large together at most, and one at least."""
    stretch: list[Letter] = []
    n_bytes = 0
    for letter in letters:
        if stretch and (len(stretch) == max_letters or n_bytes + letter.n_bytes > max_bytes):
            yield stretch
            stretch, n_bytes = [], 0
        stretch.append(letter)
        n_bytes += letter.n_bytes
    if stretch:
        yield stretch
