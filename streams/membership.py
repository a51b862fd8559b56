"""Leaving the consumer group at once, also in the middle of a rebalance."""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from faust.transport.drivers import aiokafka as driver

from modelstream.streams.heartbeat import limit_heartbeats

__all__ = ["ConsumerThread"]

# How long aiokafka has to leave the group by itself, which takes it a few milliseconds, and how often it is helped:
# between its two requests to join, it gets the name under which it can leave.
_HELP_EVERY_S = 0.1


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which does not wait for a rebalance to end before it leaves the group.

    The answer to a request to join comes when all members have joined: where one of them has just died, after its
    session timeout. aiokafka waits for that when it is closed; only then does it leave, or not even then.
    """

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        limit_heartbeats(self._ensure_consumer()._coordinator)

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
