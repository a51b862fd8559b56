"""Questions to a Kafka cluster, each with a deadline and one clear answer: is it there, has it these topics."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.settings import BrokerSettings

__all__ = ["SILENT_LOGGER", "Cluster"]

# How long one request may take. With the connection attempts before it, still well below what a person waits for.
_REQUEST_TIMEOUT_S = 8.0

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
        self._last_error: KafkaError | None = None
        self._admin = AdminClient({**settings.librdkafka(), "error_cb": self._on_error}, logger=SILENT_LOGGER)

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = error

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int | None]:
        """Return how many partitions each topic has, None where there is no such topic.

        Raises
        ------
        BrokerUnavailable
            If the broker does not answer in time, or does not let us in.
        """
        wanted = list(topics)
        try:
            # All topics at once: asking for one by name would create it where auto-creation is on.
            known = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise self._unavailable(error.args[0]) from None
        return {
            name: len(known[name].partitions) if name in known and known[name].error is None else None
            for name in wanted
        }

    def create_topics(self, partitions: Mapping[str, int], *, replication_factor: int = -1) -> list[str]:
        """Create the topics that are not there yet, and wait until the cluster knows them. Return which were created.

        Parameters
        ----------
        partitions : mapping of str to int
            Topics with their numbers of partitions.
        replication_factor : int
            Copies of each partition; -1 is the cluster's default.

        Raises
        ------
        BrokerUnavailable
            If the cluster does not answer, or refuses.
        """
        missing = [name for name, count in self.partition_counts(partitions).items() if count is None]
        requests = [NewTopic(name, partitions[name], replication_factor) for name in missing]
        for name, future in (self._admin.create_topics(requests) if requests else {}).items():
            try:
                future.result(timeout=_REQUEST_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise BrokerUnavailable(
                        self._settings.bootstrap, f"cannot create topic {name!r}: {error.args[0].str()}"
                    ) from None
        self._wait_until_known(missing)
        return missing

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics; those that are not there, or may not be deleted, are passed over."""
        for name, future in self._admin.delete_topics(list(topics)).items():
            try:
                future.result(timeout=_REQUEST_TIMEOUT_S)
            except KafkaException as error:
                SILENT_LOGGER.info("topic %s stays: %s", name, error.args[0].str())

    def _wait_until_known(self, topics: list[str]) -> None:
        deadline = time.monotonic() + _REQUEST_TIMEOUT_S
        while topics and None in self.partition_counts(topics).values():
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    self._settings.bootstrap, f"created {', '.join(topics)}, but does not show them"
                )
            time.sleep(0.05)

    def _unavailable(self, error: KafkaError) -> BrokerUnavailable:
        # The error of the request says only that it timed out; the last connection error says why.
        cause = error
        with contextlib.suppress(KafkaException):
            self._admin.poll(0)
        if self._last_error is not None and error.code() == KafkaError._TRANSPORT:
            cause = self._last_error
        return BrokerUnavailable(
            self._settings.bootstrap, f"no answer within {_REQUEST_TIMEOUT_S:.0f} s ({cause.str()})"
        )
