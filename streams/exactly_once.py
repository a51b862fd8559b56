"""Exactly-once: when a worker's transactions are committed, with which offsets, and what follows where one fails.

A transaction holds the outputs of whole batches, and is committed with the offsets that the ledger gives for just
these. Kafka refuses the offsets of a worker whose group has gone on without it, and its outputs with them. Whatever
goes wrong otherwise, the transaction is aborted, what is under way given up, and all of it read again from the
committed offsets, as another worker would.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from faust.types import TP

from modelstream.models.errors import BrokerUnavailable, ConfigError
from modelstream.streams.group import Expulsions
from modelstream.streams.group_metadata import group_metadata, require_known_layout
from modelstream.streams.transactions import TransactionalDelivery, TransactionFailed

if TYPE_CHECKING:
    from modelstream.streams.app import App

__all__ = ["ExactlyOnce"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Kafka looks for transactions that took too long only so often (transaction.abort.timed.out.transaction.cleanup.
# interval.ms), and a partition's offset cannot be told while one that contains it is open.
_ABORT_CHECK_S = 15.0

# How long one question for the committed offsets may take, and so how long the worker's end waits for it.
_ASK_S = 2.0
_RENEW_S = 8.0

# How long until a transaction is tried again; doubled up to the second one, and jittered.
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 2.0

# How long the last transaction may take to be aborted at the worker's end.
_CLOSE_TIMEOUT_S = 2.5

# The coordinator is being found, or loads its state; or a transaction with these offsets is open.
_ASK_AGAIN_CODES = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError._ALL_BROKERS_DOWN,
    }
)


class ExactlyOnce:
    """The transactions of a worker. Used on the event loop.

    Parameters
    ----------
    app : App
        The app.
    delivery : TransactionalDelivery
        Its way out.
    """

    def __init__(self, app: App, delivery: TransactionalDelivery) -> None:
        self._n_committed = self._n_aborted = 0
        self._app = app
        self._delivery = delivery
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="modelstream-transactions")
        self._lock = asyncio.Lock()
        #: As whom the partitions assigned last are read, and as whom those were that the open transaction is of.
        self._assigned_as = self._reads_as = b""
        self._is_closed = False
        #: Since when no transaction has succeeded, and how many have failed in a row.
        self._failing_since: float | None = None
        self._n_failures = 0
        self._expulsions = Expulsions(app.settings, app.conf.id)

    def stats(self) -> dict[str, int]:
        """Return how many transactions this worker has committed and aborted, and the rows of the open one."""
        return {
            "committed": self._n_committed,
            "aborted": self._n_aborted,
            "open_rows": self._delivery.n_rows,
        }

    # -- before reading

    def check(self, source: str) -> None:
        """Find out whether broker and libraries can do it. Blocks.

        Parameters
        ----------
        source : str
            The topic that is read.

        Raises
        ------
        ConfigError
            They cannot.
        BrokerUnavailable
            The broker does not answer, or refuses.
        """
        require_known_layout()
        self._delivery.reset()
        tp = TP(source, 0)
        # The committed offset: where a broker takes it from just anybody, nothing changes.
        offset = self._ask([tp], _ABORT_CHECK_S).get(tp) or 0
        nobody = group_metadata(self._app.conf.id, 1, "nobody")
        if not self._delivery.is_fencing(nobody, tp, offset):
            raise ConfigError(
                "delivery",
                f"exactly_once is not possible with the broker {self._app.settings.bootstrap}: it accepts offsets of "
                "workers that are not in their group; use Apache Kafka 2.5 or newer, or at_least_once",
            )

    async def start(self) -> None:
        """Check, as `check` does, that nothing but the pipeline's own stages writes or keeps state."""
        app = self._app
        own = {agent.name for agent in app.stage_agents}
        if others := sorted({*app.agents, *app.tables} - own):
            raise ConfigError(
                "delivery",
                f"exactly_once covers the stages of a pipeline only, and the app has {', '.join(others)} besides; run "
                "that in an app of its own, or choose at_least_once",
            )
        [source] = app.batch_topic_names
        await self._run(self.check, source)

    # -- an assignment's life

    def assigned(self, generation: int, member_id: str, instance_id: str | None) -> None:
        """Note as whom the partitions assigned now are read.

        When it comes to a commit that may be another: a worker that was expelled, and has joined again since, must not
        commit what it read before.
        """
        self._assigned_as = group_metadata(self._app.conf.id, generation, member_id, instance_id)
        self._failing_since, self._n_failures = None, 0

    async def begin_reading(self, tps: set[TP]) -> dict[TP, int | None]:
        """Abort what an earlier assignment left, and return where to read these partitions from."""
        reads_as = self._assigned_as
        async with self._lock:
            await self._reset_until_it_works()
            self._reads_as = reads_as
            if not tps:
                return {}
            # Longer than any transaction lasts that might hold these offsets, and than a broker may be away.
            longest_s = self._app.transaction_timeout_s + _ABORT_CHECK_S
            return await self._run(self._ask, tps, max(longest_s, self._app.limits.delivery_timeout_s))

    async def open(self) -> None:
        """Take outputs from now on."""
        async with self._lock:
            await self._run(self._delivery.open)

    def _ask(self, tps: Iterable[TP], patience_s: float) -> dict[TP, int | None]:
        """Return the committed offsets, those of transactions under way awaited."""
        places = [TopicPartition(tp.topic, tp.partition) for tp in tps]
        deadline = monotonic() + patience_s
        while True:
            # After the death of a broker a consumer that had found its coordinator may look for it in vain, so one is
            # not kept for long.
            found = self._ask_one_consumer(places, min(deadline, monotonic() + _RENEW_S), deadline)
            if found is not None:
                return found

    def _ask_one_consumer(
        self, places: list[TopicPartition], until: float, deadline: float
    ) -> dict[TP, int | None] | None:
        # Read_committed asks for stable offsets; a commit shows in others only a moment after it returned.
        consumer = Consumer(self._app.data_plane_config() | {"isolation.level": "read_committed"}, logger=logger)
        try:
            while True:
                try:
                    found = consumer.committed(places, timeout=_ASK_S)
                    for place in found:
                        if place.error is not None:
                            raise KafkaException(place.error)
                    return {TP(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}
                except KafkaException as error:
                    if self._app.should_stop:
                        return {}
                    if error.args[0].code() not in _ASK_AGAIN_CODES or monotonic() > deadline:
                        raise BrokerUnavailable(
                            self._app.settings.bootstrap, f"cannot read the group's offsets: {error.args[0].str()}"
                        ) from None
                    if monotonic() > until:
                        logger.info("waiting for the group's offsets: %s", error.args[0].str())
                        return None
        finally:
            consumer.close()

    # -- transactions

    async def commit(self) -> bool:
        """Commit what is finished, if anything; what fails is read again, and no error.

        Raises
        ------
        BrokerUnavailable
            Trying again would change nothing, or has not for too long.
        """
        return await asyncio.shield(asyncio.ensure_future(self._commit()))

    async def _commit(self) -> bool:
        async with self._lock:
            consumer = self._app.consumer
            if self._is_closed:
                return False
            try:
                # A gap in the records has an offset to commit, and no rows.
                is_due = bool(self._committable())
                rows = await self._run(self._delivery.cut, even_empty=is_due)
                if not rows and not is_due:
                    return False
                if not all(ticket.live for ticket, _ in rows):
                    # The drain took too long; the group has these partitions back.
                    await self._reset_until_it_works()
                    return False
                for ticket, n_rows in rows:
                    consumer.ledger.finish(ticket, n_rows)
                offsets = self._committable()
                await self._run(self._delivery.commit, offsets, self._reads_as)
            except TransactionFailed as error:
                await self._fail(error)
                return False
            for tp, offset in offsets.items():
                consumer.ledger.confirm(tp, offset)
            self._n_committed += 1
            self._failing_since, self._n_failures = None, 0
            self._expulsions.forget()
            await self._run(self._delivery.open)
            return True

    def _committable(self) -> dict[TP, int]:
        ledger = self._app.consumer.ledger
        return {tp: offset for tp in ledger.partitions if (offset := ledger.committable(tp)) is not None}

    async def _fail(self, error: TransactionFailed) -> None:
        epoch = self._app.consumer.give_up()
        # First: a transaction that stays open holds up whoever reads committed records.
        await self._reset_until_it_works()
        if error.is_expelled:
            self._expulsions.note(error.problem)
        self._require_hope(error)
        if error.is_expelled:
            # The group tells the worker by itself; should it not, that was another's doing.
            logger.info("the transaction was aborted, since the group has gone on without this worker")
            delay_s = self._app.limits.session_timeout_s
        else:
            logger.warning("the transaction was aborted and its events are read again: %s", error)
            delay_s = self._backoff_s()
        self._app.consumer.read_again(epoch, delay_s)

    async def _reset_until_it_works(self) -> None:
        while True:
            try:
                self._n_aborted += await self._run(self._delivery.reset)
                return
            except TransactionFailed as error:
                if self._app.should_stop:
                    return
                self._require_hope(error)
                logger.warning("%s; trying again", error)
                await asyncio.sleep(self._backoff_s())

    def _require_hope(self, error: TransactionFailed) -> None:
        """Raise an error that does not go away by trying again, or has not within the time for a delivery."""
        if error.is_permanent:
            raise error
        if error.is_expelled:
            return
        now = monotonic()
        self._failing_since = self._failing_since or now
        self._n_failures += 1
        patience_s = self._app.limits.delivery_timeout_s
        if now - self._failing_since > patience_s:
            raise BrokerUnavailable(
                error.bootstrap, f"no transaction has succeeded for {patience_s:.0f} s: {error.problem}"
            )

    def _backoff_s(self) -> float:
        longest = min(_FIRST_RETRY_S * 2.0**self._n_failures, _LAST_RETRY_S)
        return random.uniform(longest / 2, longest)

    # -- the end

    async def abandon(self) -> None:
        """Abort a transaction of partitions that another worker has now."""
        async with self._lock:
            if not self._is_closed:
                await self._reset_until_it_works()

    async def close(self) -> None:
        """Abort what is open, within a moment."""
        self._is_closed = True
        await asyncio.wait({asyncio.ensure_future(self._run(self._delivery.close))}, timeout=_CLOSE_TIMEOUT_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))
