"""Heartbeats to the consumer group that are answered within a session, or else by another connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiokafka.conn import CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator

__all__ = ["limit_heartbeats"]

logger = logging.getLogger(__name__)


def limit_heartbeats(coordinator: Any) -> None:
    """Have aiokafka's coordinator wait for the answer to a heartbeat no longer than a session.

    Where a connection dies without a word, it would wait for as long as for any request: 90 s, in which others have the
    partitions, nothing can be committed, and the data plane goes on.
    """
    if isinstance(coordinator, GroupCoordinator):  # a client that only produces has none
        coordinator._do_heartbeat = partial(_heartbeat_in_time, coordinator, coordinator._do_heartbeat)


async def _heartbeat_in_time(coordinator: Any, heartbeat: Callable[[], Awaitable[bool]]) -> bool:
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
