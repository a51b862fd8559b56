"""The committing half of the consumer: which offsets are committed, and how what is under way is drained first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from modelstream.streams.exactly_once import ExactlyOnce
from modelstream.streams.ledger import Ledger
from modelstream.streams.membership import ConsumerThread

__all__ = ["CommittingConsumer"]

logger = logging.getLogger(__name__)

# While draining, how long to wait before looking again whether the last batches are through.
_DRAIN_POLL_S = 0.02


class CommittingConsumer(driver.Consumer):
    """Faust's consumer, which commits for the batch topics what the ledger has as finished."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger: Ledger[TP] = Ledger()
        self.limits = self.app.limits
        self._exactly_once: ExactlyOnce | None = self.app.exactly_once
        self._stop_deadline: float | None = None
        self._has_given_up = False

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _is_batch(self, tp: TP) -> bool:
        return tp.topic in self.app.batch_topic_names

    @Service.task
    async def _commit_transactions(self) -> None:
        # Not Faust's own timer, which goes by seconds, and warns of every commit that takes longer than its interval.
        while self._exactly_once is not None and not self.should_stop:
            await self.sleep(self.limits.transaction_interval_ms / 1000)
            await self.commit()

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is finished, after asking the broker which outputs it has."""
        if self._exactly_once is not None:
            return await self._exactly_once.commit()
        await self.app.confirm_outputs(self.finish)
        return await super().force_commit(topics, start_new_transaction=start_new_transaction)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        for tp in self.ledger.partitions:
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        return self.ledger.committable(tp) if self._is_batch(tp) else super()._new_offset(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return True if self._is_batch(tp) else super()._should_commit(tp, offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        did_commit = await super()._commit(offsets)
        if did_commit:
            for tp, offset in offsets.items():
                self.ledger.confirm(tp, offset)
        return did_commit

    # -- draining

    async def wait_empty(self) -> None:
        """Finish and commit the batches under way, within the drain timeout; then the stock messages."""
        deadline = self._drain_deadline()
        while monotonic() < deadline:
            # Not cancelled when it takes too long: Faust's commit swallows that, and begins another one.
            committing = asyncio.ensure_future(self.commit(start_new_transaction=False))
            await asyncio.wait({committing}, timeout=deadline - monotonic())
            if committing.done() and committing.exception() is not None:
                ended = self._thread.thread_loop.is_closed()
                self._give_up("the group's connection is closed" if ended else str(committing.exception()))
                break
            if committing.done() and self._is_drained():
                break
            if self._is_expelled():
                self._give_up("the group goes on without this worker")
                break
            await asyncio.sleep(_DRAIN_POLL_S)
        else:
            self._give_up(f"it took more than {self.limits.drain_timeout_s:.0f} s")
        if self.unacked:
            await super().wait_empty()

    def _drain_deadline(self) -> float:
        # Faust drains twice when it stops; both together have the one timeout.
        if self._stop_deadline is None:
            deadline = monotonic() + self.limits.drain_timeout_s
            if not self.app.should_stop:
                return deadline
            self._stop_deadline = deadline
        return self._stop_deadline

    def _give_up(self, why: str) -> None:
        if self._is_drained() or self._has_given_up:
            return
        # Once is enough at the end, where Faust drains twice.
        self._has_given_up = self.app.should_stop
        n_batches = self.ledger.abandon()
        what = f"{n_batches} batches were not finished" if n_batches else "the last commit was not confirmed"
        logger.warning("%s, and will be read again: %s", what, why)

    def _is_drained(self) -> bool:
        return self.ledger.is_idle and not any(self.ledger.committable(tp) for tp in self.ledger.partitions)

    def _is_expelled(self) -> bool:
        """Whether the group goes on without this worker, as after a pause longer than its session.

        No commit can succeed then, until the worker joins again: aiokafka forgets its generation when it is told.
        """
        consumer = self._thread._consumer
        # There is none where the signal to end came in the start.
        return consumer is None or bool(consumer._coordinator.generation < 0)
