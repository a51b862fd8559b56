"""The worker as a member of its consumer group: its commits, and how it leaves at once, also in a rebalance."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from time import monotonic

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.group import Expulsions, refusal
from modelstream.streams.heartbeat import limit_heartbeats
from modelstream.streams.static_member import end_where_fenced

__all__ = ["ConsumerThread"]

# How long aiokafka has to leave the group by itself, which takes it a few milliseconds, and how often it is helped:
# between its two requests to join, it gets the name under which it can leave.
_HELP_EVERY_S = 0.1

# How long to wait before a commit is sent again, from the first to the longest wait; half of it is by chance, so that
# the workers of a group do not come back to their coordinator all at once.
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 2.0

# How long a commit is tried. Then the next one tries with all that is finished by that time.
_COMMIT_BUDGET_S = 20.0


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which does not wait for a rebalance to end before it leaves the group.

    The answer to a request to join comes when all members have joined: where one of them has just died, after its
    session timeout. aiokafka waits for that when it is closed; only then does it leave, or not even then.
    """

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        limit_heartbeats(coordinator)
        end_where_fenced(coordinator)
        self._expulsions = Expulsions(self.app.settings, self.app.conf.id)
        self._refused_generation = 0

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit, and return whether the broker has it; transient errors are retried, within a budget.

        aiokafka's own way retries without end, and under whichever generation the worker has by then: a commit that
        waited for the broker could move a partition back that another worker has long since been working on.
        """
        coordinator = self._ensure_consumer()._coordinator
        generation, deadline = coordinator.generation, monotonic() + _COMMIT_BUDGET_S
        backoff_s = _FIRST_BACKOFF_S
        if not offsets.keys() <= self.assignment():
            return False
        self.tp_last_committed_at.update(dict.fromkeys(offsets, monotonic()))
        places = {driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        while coordinator.generation == generation and monotonic() < deadline:
            if coordinator.coordinator_id is not None:
                try:
                    await coordinator._do_commit_offsets(None, places)
                    self._expulsions.forget()
                    return True
                except RebalanceInProgressError:
                    return False
                except (UnknownMemberIdError, IllegalGenerationError) as error:
                    await self._note_expulsion(generation, error)
                    return False
                except KafkaError as error:
                    if not error.retriable:
                        await self.crash(self._refusal(error))
                        return False
            # Else the coordination task looks for it, heartbeat by heartbeat.
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        return False

    def _refusal(self, error: KafkaError) -> ModelStreamError:
        settings, group = self.app.settings, self.app.conf.id
        if isinstance(error, GroupAuthorizationFailedError):
            return refusal(error, settings, group, self.app.limits.session_timeout_s)
        return BrokerUnavailable(settings.bootstrap, f"cannot commit for the group {group!r}: {error}")

    async def _note_expulsion(self, generation: int, error: KafkaError) -> None:
        # Whoever gets the partitions reads again; and this worker, once it has joined anew. Once a generation: those
        # that wait with this commit are refused as well.
        if generation > 0 and generation != self._refused_generation:
            self._refused_generation = generation
            try:
                self._expulsions.note(error)
            except BrokerUnavailable as problem:
                await self.crash(problem)

    async def on_thread_stop(self) -> None:
        """Close the consumer."""
        leaving = asyncio.ensure_future(self._leave_rebalance())
        await super().on_thread_stop()
        leaving.cancel()

    def _stopped_set(self) -> None:
        # A crash ends the thread as well, and possibly before this tells it to stop.
        with contextlib.suppress(RuntimeError):
            super()._stopped_set()

    async def _leave_rebalance(self) -> None:
        """Take this member out of a rebalance: the broker then refuses it to join, and aiokafka can close."""
        while True:
            await asyncio.sleep(_HELP_EVERY_S)
            coordinator = self._ensure_consumer()._coordinator
            heartbeats = coordinator._heartbeat_task
            if coordinator._coordination_task.done() and heartbeats is not None:
                # Without a broker it misses that aiokafka has cancelled it, which then waits for it without end.
                heartbeats.cancel()
            if coordinator.coordinator_id is None or not coordinator.member_id:
                continue
            # A static member keeps its partitions for when it is back, unless they are being shared out anyway.
            if coordinator._group_instance_id is not None and not coordinator._performed_join_prepare:
                continue
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            try:
                # By a connection of its own: on aiokafka's for the group the broker is busy with the request to join.
                await coordinator._client.send(coordinator.coordinator_id, request)
            except KafkaError:
                continue
