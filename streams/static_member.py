"""A static member whose name another worker has taken: it is told so, instead of taking the name back.

aiokafka's heartbeats do not say whose they are, so a broker answers the older of two workers of one name that it does
not know it. aiokafka then joins anew, and takes the partitions back, and so on without end. Here the group is asked
once more in the member's name before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import BrokerResponseError, KafkaError, kafka_errors
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.group import HeartbeatResponse_v1
from aiokafka.protocol.types import Int32, Schema, String

__all__ = ["FencedInstanceIdError", "end_where_fenced"]


class FencedInstanceIdError(BrokerResponseError):
    """Another worker has joined the group under this one's name."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "Another member has joined the group with the same group.instance.id"


# aiokafka does not know it, and would tell of an unknown error.
kafka_errors.setdefault(FencedInstanceIdError.errno, FencedInstanceIdError)


class _NamedHeartbeatResponse(HeartbeatResponse_v1):
    API_VERSION = 3


class _NamedHeartbeat(RequestStruct):
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _NamedHeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _NamedHeartbeatRequest(Request[_NamedHeartbeat]):
    API_KEY = 12

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[_NamedHeartbeat]) -> _NamedHeartbeat:
        return request_struct_class(*self._fields)


def end_where_fenced(coordinator: Any) -> None:
    """Have aiokafka's coordinator raise `FencedInstanceIdError` where it would take a name back."""
    if isinstance(coordinator, GroupCoordinator) and coordinator._group_instance_id is not None:
        guard = _Guard(coordinator)
        coordinator.reset_generation = guard.reset_generation
        coordinator.ensure_active_group = guard.ensure_active_group


class _Guard:
    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator
        self._reset: Callable[[], None] = coordinator.reset_generation
        self._join: Callable[[Any, Any], Awaitable[Any]] = coordinator.ensure_active_group
        # As whom this worker was in the group.
        self._was: tuple[int, str] | None = None

    def reset_generation(self) -> None:
        if self._coordinator.member_id:
            self._was = (self._coordinator.generation, self._coordinator.member_id)
        self._reset()

    async def ensure_active_group(self, subscription: Any, assignment: Any) -> Any:
        if self._was is not None and await self._is_fenced(*self._was):
            raise FencedInstanceIdError(self._coordinator._group_instance_id)
        self._was = None
        return await self._join(subscription, assignment)

    async def _is_fenced(self, generation: int, member_id: str) -> bool:
        own = self._coordinator
        request = _NamedHeartbeatRequest(own.group_id, generation, member_id, own._group_instance_id)
        try:
            response = await own._send_req(request)
        except (KafkaError, NotImplementedError):  # it is away, or older than 2.3
            return False
        return bool(response.error_code == FencedInstanceIdError.errno)
