"""Whether the broker's access control lists let a worker do what it is to do, asked before it begins.

Found out on the way it would be late: a member that may not read the group never gets a partition, and a record that
may not be written fails after the batch was computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from modelstream.models.errors import BrokerRefused
from modelstream.streams.settings import BrokerSettings

__all__ = ["once_loaded", "require_access"]

_FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
# The first question for a group has the broker make the topic of its offsets.
_LOADING = frozenset(
    {
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)


def require_access(
    admin: AdminClient,
    settings: BrokerSettings,
    topics: Mapping[str, Collection[AclOperation]],
    group: str | None,
    timeout_s: float,
) -> None:
    """Raise if a right is missing; where the broker does not say, there is nothing to raise.

    Parameters
    ----------
    admin : AdminClient
        A connection to the broker.
    settings : BrokerSettings
        Who asks.
    topics : mapping of str to collection of AclOperation
        What is to be done with each.
    group : str or None
        The consumer group to read in.
    timeout_s : float
        How long each answer may take, in seconds.

    Raises
    ------
    BrokerRefused
        If rights are missing; all of them are named.
    """
    missing: list[str] = []
    asked = TopicCollection(list(topics))
    answers = admin.describe_topics(asked, include_authorized_operations=True, request_timeout=timeout_s)
    for topic, answer in answers.items():
        missing += [f"{operation.name} topic {topic!r}" for operation in topics[topic] if not _may(answer, operation)]
    if group is not None and not _may_read_group(admin, group, timeout_s):
        missing.append(f"READ group {group!r}")
    if missing:
        raise BrokerRefused(
            settings.bootstrap,
            f"{settings.principal} may not {' or '.join(missing)}; an ACL of the broker must allow it",
        )


def _may_read_group(admin: AdminClient, group: str, timeout_s: float) -> bool:
    def ask() -> Any:
        return admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=timeout_s)[
            group
        ]

    return _may(once_loaded(ask, timeout_s), AclOperation.READ)


def once_loaded(ask: Callable[[], Any], timeout_s: float) -> Any:
    """Return the answer to a question for a group, asked again while its coordinator is not up, for so many seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = ask()
        error = answer.exception()
        loading = isinstance(error, KafkaException) and error.args[0].code() in _LOADING
        if not loading or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def _may(answer: Any, operation: AclOperation) -> bool:
    error = answer.exception()
    if error is not None:
        # Of what is not there nobody says who may do what; of other errors the request itself will tell.
        return not (isinstance(error, KafkaException) and error.args[0].code() in _FORBIDDEN)
    allowed = answer.result().authorized_operations
    return not allowed or operation in allowed or AclOperation.ALL in allowed
