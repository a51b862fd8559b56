"""Questions to a Kafka cluster, each with a deadline and one clear answer: is it there, has it these topics."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, NewTopic

from modelstream.models.errors import BrokerRefused, BrokerUnavailable
from modelstream.streams.access import once_loaded, require_access
from modelstream.streams.refusal import is_refused, unavailable
from modelstream.streams.settings import BrokerSettings

__all__ = ["SILENT_LOGGER", "Cluster"]

logger = logging.getLogger(__name__)

# How long one request may take. With the connection attempts before it, still well below what a person waits for.
_REQUEST_TIMEOUT_S = 8.0

# How long an answer is waited for before looking whether the broker has refused us, which no request is told; together
# the time of one request.
_LOOKS_S = (1.0, 2.0, 5.0)

# Between two attempts to delete a group that has members.
_MEMBERS_POLL_S = 0.5

_FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})

#: For librdkafka clients whose exceptions say what it would tell on standard error.
SILENT_LOGGER = logging.getLogger("modelstream.silent")
SILENT_LOGGER.addHandler(logging.NullHandler())
SILENT_LOGGER.propagate = False


class Cluster:
    """A connection for administration.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        # Errors of connections; those of requests are raised.
        self._errors: list[KafkaError] = []
        if settings.tokens is not None:
            # Its error is clear here; from within librdkafka it would be one of many, after a while.
            settings.tokens.token()
        config = {**settings.librdkafka(), "error_cb": self._errors.append}
        self._admin = AdminClient(config, logger=SILENT_LOGGER)

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Return how many partitions each topic has, None where there is no such topic.

        Raises
        ------
        BrokerUnavailable
            If the broker does not answer in time.
        BrokerRefused
            If it does not let us in.
        """
        wanted = list(topics)
        # All topics at once: asking for one by name would create it where auto-creation is on.
        known = self._metadata().topics
        return {
            name: len(known[name].partitions) if name in known and known[name].error is None else None
            for name in wanted
        }

    def require_access(self, topics: Mapping[str, Collection[AclOperation]], group: str | None = None) -> None:
        """Ask whether the broker will let us do with topics what we are to do, and read as a member of a group.

        Parameters
        ----------
        topics : mapping of str to collection of AclOperation
            What is to be done with each.
        group : str, optional
            The consumer group.

        Raises
        ------
        BrokerRefused
            If a right is missing.
        """
        # Without a login there is nobody to grant rights to; and the embedded broker knows of none.
        if self._settings.has_login:
            require_access(self._admin, self._settings, topics, group, _REQUEST_TIMEOUT_S)

    def member_count(self, group: str) -> int | None:
        """Return how many members a consumer group has; None where the broker does not tell us."""

        def ask() -> Any:
            return self._admin.describe_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT_S)[group]

        answer = once_loaded(ask, _REQUEST_TIMEOUT_S)
        error = answer.exception()
        if error is None:
            return len(answer.result().members)
        is_unknown = isinstance(error, KafkaException) and error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
        return 0 if is_unknown else None

    def create_topics(
        self,
        partitions: Mapping[str, int],
        *,
        replication_factor: int = -1,
        config: Mapping[str, Mapping[str, str]] | None = None,
    ) -> list[str]:
        """Create the topics that are not there yet, and wait until the cluster knows them. Return which were created.

        Parameters
        ----------
        partitions : mapping of str to int
            Topics with their numbers of partitions.
        replication_factor : int
            Copies of each partition; -1 is the cluster's default.
        config : mapping of str to mapping, optional
            Settings of topics, by topic.

        Raises
        ------
        BrokerUnavailable
            If the cluster does not answer, or refuses.
        """
        missing = [name for name, count in self.partition_counts(partitions).items() if count is None]
        settings = config or {}
        requests = [
            NewTopic(name, partitions[name], replication_factor, config=dict(settings.get(name, {})))
            for name in missing
        ]
        for name, future in (self._admin.create_topics(requests) if requests else {}).items():
            try:
                future.result(timeout=_REQUEST_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() in _FORBIDDEN:
                    raise BrokerRefused(
                        self._settings.bootstrap, f"{self._settings.principal} may not CREATE topic {name!r}"
                    ) from None
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise BrokerUnavailable(
                        self._settings.bootstrap, f"cannot create topic {name!r}: {error.args[0].str()}"
                    ) from None
        self._wait_until_known(missing)
        return missing

    def delete(self, topics: Iterable[str], group: str) -> None:
        """Delete topics and a consumer group, as far as they are there and may be deleted, and a broker answers.

        A group keeps a member that was killed until its session times out: that is waited for, for some seconds.
        """
        deadline = time.monotonic() + _REQUEST_TIMEOUT_S
        for name, future in self._admin.delete_topics(list(topics)).items():
            _has_members(name, future, deadline)
        while _has_members(group, self._admin.delete_consumer_groups([group])[group], deadline):
            if time.monotonic() > deadline:
                return
            time.sleep(_MEMBERS_POLL_S)

    def _wait_until_known(self, topics: list[str]) -> None:
        deadline = time.monotonic() + _REQUEST_TIMEOUT_S
        while topics and None in self.partition_counts(topics).values():
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    self._settings.bootstrap, f"created {', '.join(topics)}, but does not show them"
                )
            time.sleep(0.05)

    def _metadata(self) -> ClusterMetadata:
        waited_s = 0.0
        for look_s in _LOOKS_S:
            waited_s += look_s
            try:
                return self._admin.list_topics(timeout=look_s)
            except KafkaException as error:
                failure = error.args[0]
                self._admin.poll(0)
            if is_refused(self._errors, waited_s):
                break
            if look_s == _LOOKS_S[0]:
                why = f": {self._errors[0].str()}" if self._errors else ""
                logger.warning(
                    "%s does not answer yet, trying for %.0f s%s", self._settings.bootstrap, sum(_LOOKS_S), why
                )
        raise unavailable(self._settings, failure, self._errors, sum(_LOOKS_S))


def _has_members(name: str, deletion: Future[None], deadline: float) -> bool:
    """Wait for a deletion, and return whether members of a group stand against it."""
    # Of what went wrong before this, if anything did, the user is to read, not of what it left behind.
    try:
        deletion.result(timeout=max(0.0, deadline - time.monotonic()))
    except KafkaException as error:
        SILENT_LOGGER.info("%s stays: %s", name, error.args[0].str())
        return bool(error.args[0].code() == KafkaError.NON_EMPTY_GROUP)
    except TimeoutError:
        SILENT_LOGGER.info("%s stays: the broker does not answer", name)
    return False
