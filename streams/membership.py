"""Noticing that the consumer group does not answer, and leaving it at once, also in the middle of a rebalance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiokafka.conn import CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from faust.transport.drivers import aiokafka as driver

__all__ = ["ConsumerThread"]

logger = logging.getLogger(__name__)

# How long aiokafka has to leave the group by itself, which takes it a few milliseconds, and how often it is helped:
# between its two requests to join, it gets the name under which it can leave.
_HELP_EVERY_S = 0.1


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which misses no more than one session, and leaves the group without waiting for it.

    Where a connection dies without a word, aiokafka waits for the answer to a heartbeat for as long as for any request:
    90 s, in which others have the partitions, nothing can be committed, and the data plane goes on.

    The answer to a request to join comes when all members have joined: where one of them has just died, after its
    session timeout. aiokafka waits for that when it is closed; only then does it leave, or not even then.
    """

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        if isinstance(coordinator, GroupCoordinator):  # a client that only produces has none
            coordinator._do_heartbeat = partial(_heartbeat_in_time, coordinator, coordinator._do_heartbeat)

    async def on_thread_stop(self) -> None:
        """Close the consumer."""
        leaving = asyncio.ensure_future(self._leave_rebalance())
        await super().on_thread_stop()
        leaving.cancel()

    async def _leave_rebalance(self) -> None:
        """Take this member out of a rebalance: the broker then refuses it to join, and aiokafka can close."""
        while True:
            await asyncio.sleep(_HELP_EVERY_S)
            coordinator = self._ensure_consumer()._coordinator
            if coordinator.coordinator_id is None or not coordinator.member_id:
                continue
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            try:
                # By a connection of its own: on aiokafka's for the group the broker is busy with the request to join.
                await coordinator._client.send(coordinator.coordinator_id, request)
            except KafkaError:
                continue


async def _heartbeat_in_time(coordinator: Any, heartbeat: Callable[[], Awaitable[bool]]) -> bool:
    """Return whether the group has answered a heartbeat; connect anew where it has not within the session timeout."""
    session_timeout_s = coordinator._session_timeout_ms / 1000
    try:
        return await asyncio.wait_for(heartbeat(), session_timeout_s)
    except TimeoutError:
        logger.warning("the group has not answered for %.0f s; connecting anew", session_timeout_s)
        # All of them: the broker that is asked for the coordinator may be as silent. Whoever waits for an answer, a
        # commit too, is told, and tries again.
        for connection in list(coordinator._client._conns.values()):
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        coordinator.coordinator_dead()
        return False
