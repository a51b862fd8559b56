"""What the consumer group says: why it does not take this worker, and how many partitions its members have."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupAuthorizationFailedError, InvalidSessionTimeoutError, KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest

from modelstream.models.errors import BrokerRefused, BrokerUnavailable, ConfigError, ModelStreamError
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.static_member import FencedInstanceIdError

__all__ = ["Expulsions", "refusal", "shared_out"]

# How often in a row the group may go on without a worker: once is a pause of the process, or of the network.
_MAX_EXPULSIONS = 10

# A coordinator that is there answers in milliseconds; asked again a while later, it costs nothing to give up.
_ANSWER_TIMEOUT_S = 2.0


def refusal(error: KafkaError, settings: BrokerSettings, group: str, session_timeout_s: float) -> ModelStreamError:
    """Return what to tell of an error by which the group does not take this worker.

    Parameters
    ----------
    error : KafkaError
        aiokafka's.
    settings : BrokerSettings
        Where Kafka is.
    group : str
        The consumer group.
    session_timeout_s : float
        What the worker asked for, in seconds.
    """
    # aiokafka wraps what it does not expect.
    if isinstance(error, FencedInstanceIdError) or FencedInstanceIdError.__name__ in str(error):
        return BrokerUnavailable(
            settings.bootstrap,
            f"another worker has joined the group {group!r} under the name of this one (--group-instance-id), and has "
            "its partitions now; each worker needs a name of its own",
        )
    if isinstance(error, InvalidSessionTimeoutError):
        return ConfigError(
            "--session-timeout",
            f"the broker {settings.bootstrap} does not allow {session_timeout_s:g} s; its bounds are "
            "group.min.session.timeout.ms and group.max.session.timeout.ms, by default 6 s and 30 minutes",
        )
    if isinstance(error, GroupAuthorizationFailedError):
        return BrokerRefused(settings.bootstrap, f"may not READ group {group!r}; an ACL of the broker must allow it")
    return BrokerUnavailable(settings.bootstrap, f"the group {group!r} does not take this worker: {error}")


async def shared_out(coordinator: Any, topic: str) -> int | None:
    """Return how many partitions of a topic the members have together; None in a rebalance, or without an answer.

    Called on aiokafka's thread.
    """
    asked = coordinator._send_req(DescribeGroupsRequest([coordinator.group_id]))
    try:
        # On the group's own connection it may stand behind a request to join, which is answered when all have joined.
        response = await asyncio.wait_for(asked, _ANSWER_TIMEOUT_S)
        [(error, _, state, _, _, members, *_)] = response.groups
    except (KafkaError, NotImplementedError, TimeoutError):
        return None
    # The embedded broker calls a group stable, and keeps what its members have to itself.
    if error or state != "Stable" or not all(member[-1] for member in members):
        return None
    assignments = [ConsumerProtocol.ASSIGNMENT.decode(member[-1]) for member in members]
    return sum(bool(tp.topic == topic) for assignment in assignments for tp in assignment.partitions())


class Expulsions:
    """How often in a row the group has gone on without this worker, which so gets nothing done.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    group : str
        The consumer group.
    """

    def __init__(self, settings: BrokerSettings, group: str) -> None:
        self._settings, self._group = settings, group
        self._n_in_a_row = 0

    def forget(self) -> None:
        """Note that a commit has succeeded."""
        self._n_in_a_row = 0

    def note(self, problem: object) -> None:
        """Note that the group has refused a commit.

        Raises
        ------
        BrokerUnavailable
            If that happens again and again.
        """
        self._n_in_a_row += 1
        if self._n_in_a_row >= _MAX_EXPULSIONS:
            raise BrokerUnavailable(
                self._settings.bootstrap,
                f"the group {self._group!r} has refused the commits of this worker {_MAX_EXPULSIONS} times in a row: "
                f"{problem}",
            )
