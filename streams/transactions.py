"""The way out under exactly-once: outputs and the offsets of their records in one Kafka transaction.

A transaction has these states::

    closed      outputs are held: between assignments, while a transaction is committed, after a failure
    open        outputs of finished batches are produced                            `open`, from `closed`
    cut         nothing is produced any more; what is in it is told                 `cut`
    committed   by `commit`, with the offsets of just these batches; then `open` again
    failed      `commit` raises, or `cut` does; only `reset` leads on, to `closed`

The data thread hands outputs over; another thread cuts, commits and resets, so that a slow broker or a slow model does
not hold up the other. One lock stands between them, and the committing takes none: nothing is produced meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from faust.types import TP

from modelstream.models.errors import BrokerRefused, BrokerUnavailable
from modelstream.streams.delivery import Delivery, Output
from modelstream.streams.held_outputs import HeldOutputs
from modelstream.streams.ledger import Ticket

__all__ = ["TransactionFailed", "TransactionalDelivery"]

logger = logging.getLogger(__name__)
# librdkafka calls it an error where a transaction is refused, or a coordinator not ready; what matters of it is raised.
logger.addFilter(lambda record: not record.getMessage().startswith(("TXNERR ", "GETPID ")))

# How long between two tries of a call that the broker may take later.
_RETRY_S = 0.05

# How long an abort may take before the producer is replaced instead, which aborts as well.
_ABORT_TIMEOUT_S = 2.0

# The group has gone on without this worker.
_EXPELLED_CODES = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)

# Trying again changes nothing.
_PERMANENT_CODES = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._AUTHENTICATION,
    }
)

# A fatal error is raised by whatever serves callbacks; by the second one after it, Python calls that a SystemError.
_RAISED = (KafkaException, SystemError)

# Of records that an abort has taken back.
_PURGED_CODES = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


class TransactionFailed(BrokerUnavailable):
    """A transaction was not committed, or it is not known whether it was; its batches must be read again."""

    def __init__(self, bootstrap: str, error: KafkaError, doing: str) -> None:
        self.error = error
        super().__init__(bootstrap, f"{doing}: {error.str()}")

    @property
    def is_expelled(self) -> bool:
        """Whether others of the group go on where this worker was: an everyday matter."""
        return self.error.code() in _EXPELLED_CODES

    @property
    def is_permanent(self) -> bool:
        """Whether it would fail again."""
        return self.error.code() in _PERMANENT_CODES


class TransactionalDelivery(Delivery):
    """Produces outputs in transactions.

    Parameters
    ----------
    config : mapping
        librdkafka producer settings, ``transactional.id`` and ``transaction.timeout.ms`` among them.
    max_rows : int
        `on_full` is called where a transaction has so many rows.
    on_full : callable
        Called from any thread, once a transaction.
    """

    def __init__(self, config: Mapping[str, Any], max_rows: int, on_full: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._timeout_s = float(config["transaction.timeout.ms"]) / 1000
        self._max_rows = max_rows
        self._on_full = on_full
        self._lock = threading.Lock()
        self._held = HeldOutputs()
        self._rows: list[tuple[Ticket, int]] = []
        self._n_rows = 0
        self._is_open = False
        self._is_new = True
        self._is_ready = False
        self._has_begun = False
        self._error: TransactionFailed | None = None

    def _new_producer(self) -> Producer:
        # By this module's logger: its filter leaves out what is told by an error already.
        return Producer(self._config, logger=logger)

    def _look_for_broker(self, n_remaining: int) -> None:
        # It would wait while the lock is held, and a transaction without a broker fails by itself.
        pass

    @property
    def n_held(self) -> int:
        """How many records are held back."""
        return self._held.n_records

    @property
    def n_rows(self) -> int:
        """How many rows the open transaction has."""
        return self._n_rows

    # -- on the data thread

    def begin(self, ticket: Ticket) -> None:
        """Note a batch that is worked on from now on; batches of a partition come in their order."""
        with self._lock:
            self._held.begin(ticket)

    def produce(self, output: Output) -> None:
        """Take an output; it is produced once all rows of its batches are through."""
        with self._lock:
            self._held.add(output)
            self._produce_due()

    def _produce_due(self) -> None:
        if not self._is_open or self._error is not None:
            return
        outputs, rows = self._held.take()
        if not rows:
            return
        try:
            self._begin()
            for output in outputs:
                self._produce_records(output)
        except _RAISED as error:
            self._note(_kafka_error(error), "cannot produce")
        was_full = self._n_rows >= self._max_rows
        self._rows += rows
        self._n_rows += sum(n_rows for _, n_rows in rows)
        if self._n_rows >= self._max_rows and not was_full:
            self._on_full()

    def _begin(self) -> None:
        if not self._has_begun:
            self._producer.begin_transaction()
            self._has_begun = True

    # -- on the thread of the transactions

    def open(self) -> None:
        """Let outputs into a transaction, those first that have been held."""
        with self._lock:
            self._is_open = True
            self._produce_due()

    def cut(self, *, even_empty: bool = False) -> list[tuple[Ticket, int]]:
        """End the taking in, and return the rows of the transaction; without any, it goes on.

        Parameters
        ----------
        even_empty : bool
            End it without any rows as well: there are offsets to commit.

        Raises
        ------
        TransactionFailed
            If an output was refused.
        """
        with self._lock:
            # Reports of failures are told by a poll.
            self._serve(lambda: self._producer.poll(0))
            if self._error is not None:
                self._is_open = False
                raise self._error
            if self._rows or even_empty:
                self._is_open = False
            return self._take_rows()

    def _take_rows(self) -> list[tuple[Ticket, int]]:
        rows, self._rows, self._n_rows = self._rows, [], 0
        return rows

    def commit(self, offsets: Mapping[TP, int], metadata: bytes) -> None:
        """Commit the transaction that was cut, with these offsets, in the name of this member of the group.

        One that nothing was produced in commits the offsets alone.

        Raises
        ------
        TransactionFailed
            If it is not committed, or that is not known.
        """
        deadline = monotonic() + self._timeout_s
        places = [TopicPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
        if self._serve(lambda: self._producer.flush(self._timeout_s)):
            self._note(KafkaError(KafkaError._TIMED_OUT), f"outputs not confirmed within {self._timeout_s:.0f} s")
        if self._error is not None:
            raise self._error
        try:
            self._begin()
            self._retried(deadline, lambda s: self._producer.send_offsets_to_transaction(places, metadata, s))
            self._retried(deadline, lambda s: self._producer.commit_transaction(s))
        except _RAISED as error:
            raise self._note(_kafka_error(error), "cannot commit a transaction") from None
        self._has_begun = False

    def reset(self) -> bool:
        """Abort what is open and give up what is held; afterwards `open` leads on. Return whether anything was open.

        Raises
        ------
        TransactionFailed
            If the broker does not answer in time; to be tried again.
        """
        with self._lock:
            self._is_open = False
            self._take_rows()
            self._held.clear()
        had_begun = self._has_begun
        # Where an error came between two transactions there is nothing to abort, and the next would fail as well.
        is_sound = self._has_aborted() if had_begun else self._error is None
        if not (self._is_ready and is_sound):
            self._replace_producer()
        self._has_begun, self._error = False, None
        return had_begun

    def _has_aborted(self) -> bool:
        error = self._error.error if self._error is not None else None
        # After an error of unknown outcome only a new producer of the same id knows: its start ends what is open.
        if error is not None and not error.txn_requires_abort() and error.code() != KafkaError._MSG_TIMED_OUT:
            return False
        try:
            self._producer.abort_transaction(_ABORT_TIMEOUT_S)
        except _RAISED as failed:
            logger.info("a transaction could not be aborted: %s", _kafka_error(failed).str())
            return False
        return True

    def _replace_producer(self) -> None:
        self._is_ready = False
        if not self._is_new:
            self._producer = self._new_producer()
        self._is_new = False
        try:
            self._retried(monotonic() + self._timeout_s, self._producer.init_transactions)
        except _RAISED as error:
            found = _kafka_error(error)
            if found.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                name = self._config["transactional.id"]
                raise BrokerRefused(
                    self._bootstrap,
                    f"the user may not WRITE transactional ids that begin with {name[: name.rindex('-') + 1]!r}; "
                    "an ACL of the broker must allow it",
                ) from None
            raise TransactionFailed(self._bootstrap, found, "cannot begin transactions") from None
        self._is_ready = True

    def close(self) -> None:
        """Abort what is open, if the broker takes that soon: nobody reads past it until then."""
        self.stop()
        if self._is_ready and self._has_begun:
            self._has_aborted()

    def is_fencing(self, metadata: bytes, tp: TP, offset: int) -> bool:
        """Return whether the broker refuses the offset of a member that its group does not have.

        Raises
        ------
        TransactionFailed
            If it does something else.
        """
        try:
            self._begin()
            self._producer.send_offsets_to_transaction(
                [TopicPartition(tp.topic, tp.partition, offset)], metadata, self._timeout_s
            )
        except _RAISED as raised:
            error = _kafka_error(raised)
            if error.code() in _EXPELLED_CODES:
                return True
            raise self._note(error, "cannot commit offsets in a transaction") from None
        finally:
            self.reset()
        return False

    # --

    def _serve(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except _RAISED as error:
            self._note(_kafka_error(error), "cannot go on with a transaction")
            return 0

    def _retried(self, deadline: float, call: Callable[[float], None]) -> None:
        while True:
            try:
                call(max(deadline - monotonic(), _RETRY_S))
                return
            except _RAISED as error:
                if not _kafka_error(error).retriable() or monotonic() >= deadline or self._stopping.wait(_RETRY_S):
                    raise

    def _on_failed_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in _PURGED_CODES:
            self._note(error, f"cannot produce to {message.topic()}")

    def _note(self, error: KafkaError, doing: str) -> TransactionFailed:
        """Keep the first error: those that follow are consequences."""
        if self._error is None:
            self._error = TransactionFailed(self._bootstrap, error, doing)
        return self._error


def _kafka_error(error: Exception) -> KafkaError:
    found = error if isinstance(error, KafkaException) else error.__cause__
    return found.args[0] if isinstance(found, KafkaException) else KafkaError(KafkaError._FATAL)
