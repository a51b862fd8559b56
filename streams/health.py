"""Whether a worker lives and does its work: what ``/health/live`` and ``/health/ready`` say, and what ends it if not.

Once a second the broker is asked for the pipeline's topics, the data thread for a turn, and the `Watchdog` for
partitions that have stopped. Those are read anew once; if that does not help, the worker ends, and says of which. They
are read anew as well where a librdkafka client has no broker while there is one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Coroutine, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.broker_probe import BrokerStatus, ask_for_partitions, has_record, take_group_error
from modelstream.streams.group import refusal, shared_out
from modelstream.streams.watchdog import Stalled, Watchdog

if TYPE_CHECKING:
    from modelstream.streams.transport import BatchConsumer

__all__ = ["Health"]

logger = logging.getLogger(__name__)

# How often to look.
_LOOK_EVERY_S = 1.0

# How often to ask where partitions end, at the least: it matters only after the watchdog's limit, and is a part of it.
_ENDS_EVERY_S = 5.0
_ENDS_PER_LIMIT = 4

# How long a topic must be unknown to a broker that answers: one that has just started may not know all of them yet.
_TOPIC_GRACE_S = 5.0


# How long a broker must have answered before a client that found none will not find it any more: by then the client has
# tried to connect several times.
_LOST_AFTER_S = 5.0

# How often clients are replaced within the watchdog's limit, one time after the other. After that new ones do not help.
_MAX_RENEWALS = 3

# How often to ask whether the group has shared out all partitions. Only where twice in a row it has not is something
# done: the leader sees new ones in a second.
_UNSHARED_EVERY_S = 5.0

# A rebalance waits for a member that hangs, once, as long as the group's rebalance timeout.
_REBALANCES_PER_LIMIT = 3

T = TypeVar("T")


class Health(Service):
    """Looks after a consumer.

    Parameters
    ----------
    consumer : BatchConsumer
        The consumer.
    """

    def __init__(self, consumer: BatchConsumer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._consumer = consumer
        self._app = consumer.app
        self.broker = BrokerStatus(self._app.settings.bootstrap)
        self._watchdog: Watchdog[TP] = Watchdog(self._app.limits.stall_timeout_s)
        self._stalled: set[TP] = set()
        self._ends: dict[TP, int] = {}
        self._ends_at = 0.0
        self._ends_every_s = min(_ENDS_EVERY_S, self._watchdog.limit_s / _ENDS_PER_LIMIT)
        self._missing_since: float | None = None
        self._renewed_at, self._n_renewals = 0.0, 0
        self._is_unshared = False
        self._unshared_asked_at = self._settled_at = monotonic()
        self._settle_limit_s = _REBALANCES_PER_LIMIT * max(
            self._watchdog.limit_s, float(self._app.conf.broker_rebalance_timeout)
        )
        self._turn: asyncio.Future[None] | None = None
        self._turn_asked_at = monotonic()

    # -- what is told

    def live_problems(self) -> list[str]:
        """Return why the worker should be killed; who can ask is told by a loop that turns."""
        hangs_s = self._data_thread_hangs_s()
        if hangs_s < self._watchdog.limit_s:
            return []
        return [f"the data thread has been busy for {hangs_s:.0f} s"]

    def ready_problems(self) -> list[str]:
        """Return why the worker does not do its work now."""
        problems = self.live_problems()
        if self._app.should_stop or self._consumer.should_stop:
            problems.append("draining: the worker has been told to stop")
        elif not self._consumer.has_joined:
            problems.append("not joined: the group has not told this worker what to read")
        elif not self._consumer.is_settled or (self._consumer.ledger.partitions and not self._consumer.is_reading):
            problems.append("rebalancing, or after a failed transaction: nothing is read for now")
        if self.broker.problem is not None:
            problems.append(self.broker.problem)
        elif self._consumer.lost_broker_at is not None:
            problems.append("a librdkafka client has no broker")
        if self._stalled:
            problems.append(f"no progress on {_names(self._stalled)}")
        return problems

    # -- what is looked at

    @Service.task
    async def _look_after(self) -> None:
        while not self.should_stop:
            await self.sleep(_LOOK_EVERY_S)
            self._ask_for_a_turn()
            await self._ask_broker()
            await self._look_for_settling()
            await self._look_for_lost_clients()
            await self._look_for_stalls()

    def _ask_for_a_turn(self) -> None:
        if self._turn is None or self._turn.done():
            self._turn_asked_at = monotonic()
            self._turn = asyncio.ensure_future(self._app.on_data_thread(_turn))

    def _data_thread_hangs_s(self) -> float:
        waits = self._turn is not None and not self._turn.done()
        return monotonic() - self._turn_asked_at if waits else 0.0

    async def _on_control_plane(self, work: Coroutine[Any, Any, T]) -> T:
        # Not by Faust's queue of calls: a commit that waits for the broker would hold it up.
        loop = self._consumer._thread.thread_loop
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
        finally:
            if not loop.is_running() and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                work.close()  # it ends, and will not come to this any more

    async def _ask_broker(self) -> None:
        consumer = self._consumer._thread._ensure_consumer()
        error = await self._on_control_plane(take_group_error(consumer))
        if error is not None and not error.retriable:
            app = self._app
            await app.crash(refusal(error, app.settings, app.conf.id, app.limits.session_timeout_s))
        try:
            counts = await self._on_control_plane(ask_for_partitions(consumer, self._app.kafka_topics))
        except (KafkaError, OSError) as problem:
            if self._app.should_stop:
                return  # the connection was closed by us
            self.broker.note_silence(str(problem))
            return
        self.broker.note_answer()
        missing = sorted(topic for topic, count in counts.items() if count is None)
        if not missing:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = monotonic()
        elif monotonic() - self._missing_since >= _TOPIC_GRACE_S:
            names = ", ".join(map(repr, missing))
            await self._end(f"no topic {names} any more; create it again, or stop its workers before it is deleted")
        await self._look_for_unshared(consumer, counts)

    async def _look_for_unshared(self, consumer: Any, counts: Mapping[str, int | None]) -> None:
        """Have the group share out partitions that were added, where its leader does not come to it.

        aiokafka leaves that to the leader, and the leader may not know that it is: a static member that is started
        again is told the name that it had before.
        """
        if not self._consumer.is_settled or monotonic() - self._unshared_asked_at < _UNSHARED_EVERY_S:
            return
        self._unshared_asked_at = monotonic()
        coordinator, was_unshared = consumer._coordinator, self._is_unshared
        self._is_unshared = False
        for topic in self._app.batch_topic_names:
            found = await self._on_control_plane(shared_out(coordinator, topic))
            self._is_unshared |= found is not None and found < (counts.get(topic) or 0)
        if self._is_unshared and was_unshared:
            logger.info("the group has not shared out all partitions; joining it anew")
            self._is_unshared = False
            await self._on_control_plane(_join_anew(coordinator))

    async def _look_for_settling(self) -> None:
        """End a worker that the group does not let read."""
        # Tables may take long to be recovered.
        if self._consumer.is_settled or self.broker.is_away or self._app.should_stop or self._app.tables:
            self._settled_at = monotonic()
        elif monotonic() - self._settled_at > (limit_s := self._settle_limit_s):
            await self._end(
                f"the group {self._app.conf.id!r} has not let this worker read for {limit_s:.0f} s; "
                "does a member of it hang?"
            )

    async def _end(self, problem: str) -> None:
        await self._app.crash(BrokerUnavailable(self._app.settings.bootstrap, problem))

    async def _look_for_lost_clients(self) -> None:
        lost_at, answers_since = self._consumer.lost_broker_at, self.broker.answers_since
        if lost_at is None or answers_since is None or self._app.should_stop or not self._consumer.is_settled:
            return
        if lost_at <= max(answers_since, self._renewed_at) + _LOST_AFTER_S:
            return
        now = monotonic()
        self._n_renewals = self._n_renewals + 1 if now - self._renewed_at < self._watchdog.limit_s else 1
        self._renewed_at = now
        if self._n_renewals > _MAX_RENEWALS:
            await self._end("librdkafka finds no broker, though one answers; does it refuse new connections?")
            return
        logger.warning("a librdkafka client has lost its broker; reading anew with a new one")
        self._consumer.read_anew()

    async def _look_for_stalls(self) -> None:
        if self.broker.is_away or self._app.should_stop or not self._consumer.is_settled:
            self._watchdog.rest()
            self._stalled = set()
            return
        await self._ask_for_ends()
        standings = self._consumer.standings(self._ends)
        stalled = self._watchdog.look(standings, starved_at=self._consumer.starved_at)
        # Together: each may wait for some seconds.
        waiting = [tp for tp in stalled if not standings[tp].unfinished]
        unread = await asyncio.gather(*(self._is_unread(tp, standings[tp].position) for tp in waiting))
        self._stalled = stalled - {tp for tp, is_unread in zip(waiting, unread, strict=True) if not is_unread}
        # Asking takes a while: a drain may have begun meanwhile, and what it waits for must not be given up.
        if self._stalled and self._consumer.is_settled and not self._app.should_stop:
            await self._help()

    async def _ask_for_ends(self) -> None:
        if monotonic() - self._ends_at < self._ends_every_s:
            return
        self._ends_at = monotonic()
        tps = self._consumer.ledger.partitions
        try:
            asked = self._consumer._thread._ensure_consumer()._fetcher.end_offsets(tps, int(_ENDS_EVERY_S * 1000))
            found = await self._on_control_plane(asked)
        except (KafkaError, OSError):
            return
        self._ends = {TP(*tp): end for tp, end in found.items()}

    async def _is_unread(self, tp: TP, position: int) -> bool:
        found = await asyncio.to_thread(has_record, self._app.data_plane_config(), tp, position)
        if found is not False:
            return bool(found)
        # Only marks of transactions, or records that nobody may read yet. Look again when there is more.
        self._consumer.note_nothing_before(tp, self._ends.get(tp, position))
        return False

    async def _help(self) -> None:
        hangs = self._data_thread_hangs_s() >= self._watchdog.limit_s
        limit_s = self._watchdog.limit_s
        if self._watchdog.has_read_anew(self._stalled):
            error = Stalled(
                [f"{tp.topic}[{tp.partition}]" for tp in sorted(self._stalled)], limit_s, data_thread_hangs=hangs
            )
            await self._app.crash(error)
            return
        logger.warning(
            "no progress on %s for %.0f s%s; reading anew from the committed offsets", _names(self._stalled), limit_s,
            ", since the data thread hangs in a model or function" if hangs else "",
        )  # fmt: skip
        self._watchdog.note_read_anew(self._stalled)
        self._consumer.read_anew()


async def _join_anew(coordinator: Any) -> None:
    coordinator.request_rejoin()


def _turn() -> None:
    """Nothing: that the data thread comes to it is what counts."""


def _names(tps: set[TP]) -> str:
    return ", ".join(f"{tp.topic}[{tp.partition}]" for tp in sorted(tps))
