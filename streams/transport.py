"""The two-plane Faust transport: aiokafka keeps the group and commits, librdkafka fetches, an event carries batches.

The URL scheme ``modelstream://`` selects it. A topic made with `batch_topic` is read by the data plane: its agents
get a `RecordBatch` per event, or all of a fetch, and book every row in the consumer's ledger themselves. All other
topics, tables and changelogs of the app take Faust's stock path. An assignment has these states::

    assigned        Faust recovers its tables; nothing is read
    rebalance ended `start_reading`: a new epoch; the pump reads from the committed offsets
    reading         pump → consumer → conductor → agent; a batch taken up has a ticket in the ledger
    revoked         `stop_flow`: the epoch is over; nothing more is read or taken up
                    `wait_empty`: what was taken up is finished and committed, within the drain timeout

A batch of the current epoch is never dropped: the ledger would notice, since batches of a partition must follow one
another. Batches of an earlier epoch always are: the offsets committed tell where to read them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from modelstream.streams.batch_stream import BatchMessage, as_events, batch_topic
from modelstream.streams.committing import CommittingConsumer
from modelstream.streams.delivery import Delivery
from modelstream.streams.fetch_window import FetchWindow
from modelstream.streams.health import Health
from modelstream.streams.ledger import Ticket
from modelstream.streams.pump import Pump
from modelstream.streams.records import RecordBatch
from modelstream.streams.watchdog import Standing

__all__ = ["BatchConsumer", "Transport", "batch_topic"]

logger = logging.getLogger(__name__)

# How long a fetch waits for records when all that was fetched before is done with, and so how long a commit or a new
# assignment may wait for the fetch.
_IDLE_FETCH_S = 0.05

# How often aiokafka is told, in the time after which it would take the worker for idle.
_ACTIVITY_PER_POLL_INTERVAL = 5

# How long the fetching consumer may take to close.
_CLOSE_TIMEOUT_S = 1.0

# While as many outputs are held back as events may be under way, how long before looking again.
_HELD_POLL_S = 0.005


class BatchConsumer(CommittingConsumer):
    """Faust's consumer with a data plane for the batch topics."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._epoch = 0
        self._pump: Pump | None = None
        self._window = FetchWindow(self.limits.max_rows_in_flight, self.limits.max_bytes_in_flight)
        self._assigned: set[TP] = set()
        #: Whether the group has told this worker what to read, be it nothing.
        self.has_joined = False
        #: Whether it is settled what this worker reads: not in a rebalance, nor after a transaction has failed.
        self.is_settled = False
        #: When a fetch last brought less than it had room for.
        self.starved_at = 0.0
        # Up to where each partition was fetched, or is known to hold nothing.
        self._positions: dict[TP, int] = {}
        # Whether the data plane has fetched since aiokafka was last told so.
        self._has_fetched = False
        # Set while there is something to read: between an assignment and the next revocation.
        self._reading = asyncio.Event()
        self.health = self.add_dependency(Health(self, loop=self.loop, beacon=self.beacon))

    # -- what agents use

    def take_up(self, batch: RecordBatch) -> bool:
        """Open a batch in the ledger; False where its partition was taken away meanwhile and it must be dropped."""
        if batch.epoch != self._epoch:
            return False
        batch.ticket = self.ledger.open(batch.tp, batch.end_offset, len(batch), follows=batch.follows)
        return True

    def note_call(self) -> None:
        """Note that the data thread has been told to work on what was taken up."""
        self._window.note_call()

    def sent(self, batch: RecordBatch, n_rows: int) -> None:
        """Note that rows have been handed to the producer, or need no output; with the last one there is new room."""
        batch.unsent -= n_rows
        if batch.unsent == 0:
            self._window.leave(batch)

    def finish(self, ticket: Ticket, n_rows: int) -> None:
        """Note that rows are finished: their prediction or dead letter is on Kafka, or none is due."""
        self.ledger.finish(ticket, n_rows)

    def done(self, batch: RecordBatch) -> None:
        """Note that a batch is finished as a whole, for an agent of one's own."""
        assert batch.ticket is not None
        self.finish(batch.ticket, len(batch))
        self.sent(batch, len(batch))

    # -- the data plane

    def _batch_tps(self, tps: Iterable[TP]) -> set[TP]:
        return {tp for tp in tps if self._is_batch(tp)}

    @Service.task
    async def _fetch_batches(self) -> None:
        while not self.should_stop:
            await self._reading.wait()
            if self.app.holds_too_much:
                await asyncio.sleep(_HELD_POLL_S)
                continue
            pump = self._pump
            assert pump is not None
            batches = await self.app.fetch_on_data_thread(pump.fetch, _IDLE_FETCH_S)
            self._has_fetched = True
            n_fetched = sum(map(len, batches))
            took_all = pump.took_all
            if took_all:
                self.starved_at = monotonic()
            for event in as_events(batches, self.app.whole_fetch_topic_names):
                # All of a fetch are of one epoch, which may end while an event is passed on.
                if event[0].epoch != self._epoch:
                    break
                for batch in event:
                    self._window.enter(batch)
                    self._positions[batch.tp] = batch.end_offset
                await self.callback(BatchMessage.around(event, self.app.consumer_generation_id))
            self._note_gaps(pump)
            await self._window.wait_for_room(n_fetched, took_all=took_all)

    def _note_gaps(self, pump: Pump) -> None:
        while pump.gaps:
            gap = pump.gaps.popleft()
            self.app.counters.gap_records += gap.n_records
            if gap.epoch == self._epoch:
                self.note_nothing_before(gap.tp, gap.end)
                self.ledger.pass_over(gap.tp, gap.end, follows=gap.follows)

    def note_nothing_before(self, tp: TP, offset: int) -> None:
        """Note that a partition holds nothing to read before an offset."""
        if tp in self._positions:
            self._positions[tp] = max(self._positions[tp], offset)

    def standings(self, ends: Mapping[TP, int]) -> dict[TP, Standing]:
        """Return where each partition stands, for the watchdog.

        Parameters
        ----------
        ends : mapping of TP to int
            Where partitions end, as far as that is known.
        """
        under_way = self._window.partitions
        return {
            tp: Standing(
                self.ledger.finished_rows(tp), position, tp in under_way or self.ledger.is_open(tp), ends.get(tp, 0)
            )
            for tp, position in self._positions.items()
        }

    @property
    def lost_broker_at(self) -> float | None:
        """When a librdkafka client was last found to have no broker; None where all have one, as far as is known."""
        clients: list[Delivery | Pump] = [] if self._pump is None else [self._pump]
        if self._exactly_once is None:  # else a transaction fails, and has its own new producer
            clients.append(self.app.delivery)
        # The data thread may change them meanwhile.
        return max((at for client in clients if (at := client.lost_broker.at) is not None), default=None)

    @Service.task
    async def _show_activity(self) -> None:
        """Tell aiokafka that this worker is not idle: none of the data plane's fetches is seen there.

        After ``max_poll_interval`` without a fetch it leaves the group, and does not join again. So it should while a
        model hangs on the data thread, and only then: it is told of an activity after a fetch of the data plane, or
        where there is nothing to fetch.
        """
        while not self.should_stop:
            await self.sleep(self.app.max_poll_interval_s / _ACTIVITY_PER_POLL_INTERVAL)
            if self._has_fetched or not self._assigned:
                self._has_fetched = False
                await self._thread.call_thread(self._be_seen_fetching)

    async def _be_seen_fetching(self) -> None:
        with self._thread._ensure_consumer()._subscription.fetch_context():
            return

    @property
    def is_reading(self) -> bool:
        """Whether batches are being fetched: between an assignment and the next revocation."""
        return self._reading.is_set()

    def start_reading(self) -> None:
        """Read what is assigned, from the committed offsets on.

        Called when a rebalance has ended. Not from `perform_seek`: Faust also seeks when a stock fetch comes back
        while the flow is stopped, which may be in the middle of a drain or of a table's recovery.
        """
        self._epoch += 1
        self._window.clear()
        self.ledger.abandon()
        self.add_future(self._read_from_committed(self._epoch))

    def read_anew(self) -> None:
        """Read what is assigned from the committed offsets on, with new librdkafka clients."""
        pump, self._pump = self._pump, None
        self._reading.clear()
        if pump is not None:
            self.add_future(self.app.on_data_thread(pump.close))
        self.start_reading()
        if self._exactly_once is None:
            # After the ledger has given up what is under way. A transaction that fails has its own new producer.
            self.add_future(self.app.on_data_thread(self.app.delivery.renew))

    async def _read_from_committed(self, epoch: int) -> None:
        tps = set(self._assigned)
        if self._exactly_once is not None:
            committed = await self._exactly_once.begin_reading(tps)
        else:
            committed = await self._thread.call_thread(self._committed, tps) if tps else {}
        if epoch != self._epoch or self.app.should_stop:
            return  # another rebalance, whose end starts over; or there is no more
        self.ledger.assign(committed)
        reset = OFFSET_END if self.app.conf.consumer_auto_offset_reset == "latest" else OFFSET_BEGINNING
        # Where reading starts at the end, that is known with the first record.
        unknown = sys.maxsize if reset == OFFSET_END else 0
        self._positions = {tp: unknown if offset is None else offset for tp, offset in committed.items()}
        self.is_settled = True
        if tps:
            if self._pump is None:
                self._pump = Pump(
                    self.app.data_plane_config(), self.limits.fetch_max_records, self.limits.fetch_max_bytes,
                    self.limits.gather_ms / 1000, self.app.on_gap,
                )  # fmt: skip
            start = {tp: reset if offset is None else offset for tp, offset in committed.items()}
            await self.app.on_data_thread(self._pump.assign, start, epoch)
            if self._exactly_once is not None:
                await self._exactly_once.open()
            if epoch != self._epoch:
                return
            self._reading.set()
        self.has_joined = True
        logger.info("reading %s", ", ".join(_say(tp, offset) for tp, offset in sorted(committed.items())) or "nothing")

    async def _committed(self, tps: set[TP]) -> dict[TP, int | None]:
        # Every partition is asked for, so one without an answer has no committed offset.
        asked = {driver.ensure_aiokafka_TP(tp): tp for tp in tps}
        coordinator = self._thread._ensure_consumer()._coordinator
        found = await coordinator.fetch_committed_offsets(list(asked))
        return {
            tp: found[place].offset if place in found and found[place].offset >= 0 else None
            for place, tp in asked.items()
        }

    # -- Faust's hooks, in the order of an assignment's life

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Keep aiokafka from fetching batch partitions; the data plane reads them."""
        self._assigned = self._batch_tps(assigned)
        if self._exactly_once is not None:
            # The group does not go on before this returns, so these belong together.
            coordinator = self._thread._ensure_consumer()._coordinator
            self._exactly_once.assigned(generation_id, coordinator.member_id, coordinator._group_instance_id)
        if self._assigned:
            self._thread._ensure_consumer().pause(*map(driver.ensure_aiokafka_TP, self._assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        if active_partitions is not None:
            active_partitions = {tp for tp in active_partitions if not self._is_batch(tp)}
            if not active_partitions:
                await asyncio.sleep(min(timeout, 0.2))
                return {}
        return await super()._getmany(active_partitions, timeout)

    def stop_flow(self) -> None:
        """Read nothing more and take nothing more up; what is under way goes on."""
        super().stop_flow()
        self._end_epoch()

    def _end_epoch(self) -> None:
        self._epoch += 1
        self._reading.clear()
        self.is_settled = False
        # They hold back nothing more for what may come: nothing does.
        self.app.wake_stages()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drain and commit while the partitions are still ours, then let go of them."""
        await super().on_partitions_revoked(revoked)
        if self.app.should_stop:
            # Faust drains at its end, and not here: the group goes on as soon as this returns.
            await self.wait_empty()
        self._assigned -= revoked
        if self._pump is not None:
            # Not waited for: a model may hang on the data thread, and the group must not wait for that.
            self.add_future(self.app.on_data_thread(self._pump.unassign))
        self.ledger.drop(self._batch_tps(revoked))
        if self._exactly_once is not None:
            self.add_future(self._exactly_once.abandon())

    def give_up(self) -> int:
        """Give up what is under way, after a failed transaction; return what `read_again` must be told."""
        self._end_epoch()
        self._window.clear()
        # Also what is finished: its outputs are not on Kafka.
        self.ledger.assign({})
        return self._epoch

    def read_again(self, epoch: int, delay_s: float) -> None:
        """Read what was given up again after some time, if nothing else happens before."""
        self.add_future(self._read_again(epoch, delay_s))

    async def _read_again(self, epoch: int, delay_s: float) -> None:
        await self.sleep(delay_s)
        if epoch == self._epoch and not self.app.rebalancing and not self.should_stop:
            self.start_reading()

    async def on_stop(self) -> None:
        """End the data plane."""
        await super().on_stop()
        if self._exactly_once is not None:
            await self._exactly_once.close()
        if self._pump is not None:
            # Not waited for long: a model may hang on the data thread, and the end of the process closes it as well.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.app.on_data_thread(self._pump.close), _CLOSE_TIMEOUT_S)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave batch partitions out of Faust's check, which looks at aiokafka's fetches."""
        if not self._is_batch(tp):
            super().verify_event_path(now, tp)


def _say(tp: TP, offset: int | None) -> str:
    return f"{tp.topic}[{tp.partition}] from {'the start' if offset is None else offset}"


class Transport(driver.Transport):
    """Faust's Kafka transport with the batch consumer."""

    Consumer = BatchConsumer
