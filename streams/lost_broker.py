"""Whether a librdkafka client has lost its brokers for good, which only a new client gets over.

Where the only broker of a cluster shuts down, or its controller takes it for dead, it names no broker when it is asked,
and the client lets go of the one it has; the search for brokers that this starts is called off by the same answer, if
threads run in an unlucky order (librdkafka#5301; all versions since 2.10).
"""

from __future__ import annotations

from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

__all__ = ["LostBroker"]

# How often a silent client is asked, and how long it may look for a broker. It needs a second at the most: so often it
# tries to connect.
_ASK_EVERY_S = 5.0
_TIMEOUT_S = 2.0


class LostBroker:
    """Asks a client that is silent whether it has a broker. Used on the data thread; `at` is read from any."""

    def __init__(self) -> None:
        self._asked_at = monotonic()
        #: When the client was last asked and had no broker; None if it had, or was not silent since.
        self.at: float | None = None

    def note_life(self) -> None:
        """Note that the client has heard from a broker."""
        self._asked_at, self.at = monotonic(), None

    def ask(self, client: Consumer | Producer, topic: str) -> None:
        """Ask the client for a topic, if it has been silent for a while; waits for it where it has no broker."""
        if monotonic() - self._asked_at < _ASK_EVERY_S:
            return
        try:
            client.list_topics(topic, timeout=_TIMEOUT_S)
        except KafkaException as error:
            # Of a broker that is slow to answer, librdkafka says that it has timed out.
            if error.args[0].code() == KafkaError._TRANSPORT:
                self._asked_at = self.at = monotonic()
                return
        self.note_life()
