"""The data plane's way out: a librdkafka producer, and which rows the broker has confirmed.

No callback per message: only failures are reported, and a flush that comes back empty says that everything before it
is on Kafka. So rows are confirmed once per commit, for about 0.5 µs of CPU a row instead of 1.1.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from modelstream.models.errors import BrokerUnavailable
from modelstream.operators.batch import Lineage
from modelstream.streams.headers import Headers
from modelstream.streams.ledger import Ticket
from modelstream.streams.lost_broker import LostBroker

__all__ = ["Delivery", "Outlet", "Output"]

logger = logging.getLogger(__name__)

# How long one wait for room in librdkafka's queue lasts. Some 1,000 records leave the queue in that time.
_FULL_POLL_S = 0.005

# Records produced until librdkafka is told to free those that are on Kafka. It keeps each for its report, which nobody
# is given, until it is asked for reports: without that a second's worth, some 100 MB at full speed.
_FREE_EVERY = 4096


@dataclass(frozen=True, slots=True)
class Output:
    """Records to produce, and the rows that are finished once the broker has them.

    Parameters
    ----------
    topic : str
        Where to.
    keys, values : sequence
        One of each a record.
    owed : list of (Ticket, int)
        The tickets these records are due for, with the number of rows each.
    headers : sequence, optional
        Headers of each record; None where there are none, which is faster.
    lineage : Lineage, optional
        Which record each of these records is due for, its sources in the order of `owed`; needed where there are
        several tickets. Of an output without records, the records that need none.
    """

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | str | None]
    owed: list[tuple[Ticket, int]]
    headers: Sequence[Headers] | None = None
    lineage: Lineage | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is due for any batch whose partition was not given up meanwhile."""
        return any(ticket.live for ticket, _ in self.owed)


class Outlet(Protocol):
    """Where a stage's outputs go."""

    def begin(self, ticket: Ticket) -> None:
        """Note that a batch is worked on from now on; batches of a partition come in their order."""
        ...

    def produce(self, output: Output) -> None:
        """Take an output; one without records says that rows need none."""
        ...


class Delivery:
    """Produces outputs. Used on the data thread only, `stop` excepted.

    Parameters
    ----------
    config : mapping
        librdkafka producer settings.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._bootstrap = str(config["bootstrap.servers"])
        self._config = {**config, "delivery.report.only.error": True, "on_delivery": self._on_failed_delivery}
        self._producer = self._new_producer()
        self._unconfirmed: list[tuple[Ticket, int]] = []
        self._failure: BrokerUnavailable | None = None
        self._topic = ""
        # Records handed to librdkafka, and how many of them were done with when that was last looked at.
        self._n_produced = self._n_done = 0
        self._n_unfreed = 0
        self.lost_broker = LostBroker()
        self._stopping = threading.Event()

    def _new_producer(self) -> Producer:
        return Producer(self._config, logger=logger)

    def begin(self, ticket: Ticket) -> None:
        """Note that a batch is worked on from now on; batches of a partition come in their order."""

    def produce(self, output: Output) -> None:
        """Hand an output to librdkafka; waits while its queue is full. One without records says that rows need none.

        Raises
        ------
        BrokerUnavailable
            If the broker refused a record for good.
        """
        # A batch whose partition was given up meanwhile is another worker's business.
        if not output.is_ours:
            return
        self._topic = output.topic
        self._n_produced += len(output.values)
        try:
            self._produce_records(output)
        except KafkaException as error:
            self._fail(error.args[0], output.topic)
        # Not in a transaction: its commits are so frequent that little is kept, and this would cost it a tenth.
        self._n_unfreed += len(output.values)
        if self._n_unfreed >= _FREE_EVERY:
            self._n_unfreed = 0
            self._producer.poll(0)
        # Who stops waits for room no longer: what found none was not produced.
        if not self._stopping.is_set():
            self._unconfirmed += output.owed
        if self._failure is not None:
            raise self._failure

    def confirm(self, timeout_s: float) -> list[tuple[Ticket, int]]:
        """Flush, and return the rows that have come to be on Kafka since the last time.

        Where the broker does not confirm everything in time the list is empty, and nothing is forgotten.

        Raises
        ------
        BrokerUnavailable
            If the broker refused a record for good: its rows must not be committed.
        """
        remaining = self._producer.flush(timeout_s)
        if self._failure is not None:
            raise self._failure
        self._look_for_broker(remaining)
        if remaining:
            logger.warning("the broker has not confirmed %d records within %.1f s", remaining, timeout_s)
            return []
        rows, self._unconfirmed = self._unconfirmed, []
        return rows

    def _look_for_broker(self, n_remaining: int) -> None:
        n_done = self._n_produced - n_remaining
        if n_done > self._n_done or not n_remaining:
            self.lost_broker.note_life()
        else:
            self.lost_broker.ask(self._producer, self._topic)
        self._n_done = n_done

    def renew(self) -> None:
        """Go on with a new librdkafka client. What was not confirmed will not be: its rows must be read again."""
        lost, self._producer, self._unconfirmed = self._producer, self._new_producer(), []
        self._n_produced = self._n_done = 0
        self.lost_broker.note_life()
        # Nothing may come after what the new one sends. Nobody asks for the reports of failures that this makes.
        lost.purge()

    def stop(self) -> None:
        """Wait for room no longer. Called from any thread."""
        self._stopping.set()

    def _produce_records(self, output: Output) -> None:
        produce, topic = self._producer.produce, output.topic
        if output.headers is None:
            keys, values = iter(output.keys), iter(output.values)
            while True:
                try:
                    # The loop over the records runs in C.
                    deque(map(produce, repeat(topic), values, keys), 0)
                    break
                except BufferError:
                    at = len(output.values) - length_hint(values) - 1
                    self._produce_when_room(output, output.values[at], output.keys[at])
        else:
            for key, value, headers in zip(output.keys, output.values, output.headers, strict=True):
                self._produce_when_room(output, value, key, headers=headers)

    def _produce_when_room(self, output: Output, *record: Any, **options: Any) -> None:
        # librdkafka's queue is the bound on what is under way. An unreachable broker lets the records in it fail after
        # message.timeout.ms, so this ends by itself; sooner where the client is to be replaced, and the batch with it.
        while not self._stopping.is_set():
            try:
                self._producer.produce(output.topic, *record, **options)
                return
            except BufferError:
                if not output.is_ours:
                    return
                self._producer.poll(_FULL_POLL_S)
                self._look_for_broker(len(self._producer))

    def _on_failed_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error, message.topic())

    def _fail(self, error: KafkaError, topic: str | None) -> None:
        if self._failure is None:
            self._failure = BrokerUnavailable(self._bootstrap, f"cannot produce to {topic}: {error.str()}")
