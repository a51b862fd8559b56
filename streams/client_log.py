"""What a worker's log shows of what librdkafka says of its connections: nothing, as long as it passes."""

from __future__ import annotations

import logging

__all__ = ["ClientLogFilter"]

# The loggers that librdkafka's clients write to.
_CLIENTS = tuple(f"modelstream.streams.{name}" for name in ("pump", "delivery", "transactions"))

# librdkafka's kinds of messages on connections that broke, or do not come about, and on what it therefore tries again.
_OF_CONNECTIONS = frozenset({"FAIL", "ERROR", "REQTMOUT", "GETPID", "DISCONNECT", "METADATA"})

# How long such trouble must go on, while the broker answers us otherwise, until it is shown: an outage is told within
# two seconds by a line of our own, and connections are made anew in less than ten.
_SHOWN_AFTER_S = 10.0

# How long the same kind of message is not shown again: short enough to see that the trouble goes on.
_REPEAT_AFTER_S = 10.0


class ClientLogFilter(logging.Filter):
    """Lets librdkafka's messages through once in a while, and those of connections only when nobody else tells of them.

    Of a broker that is away it tells 40 times a second. That the broker is away, and back, is told by
    `BrokerStatus`, whose records carry ``broker_is_away``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown_at: dict[str, float] = {}
        self._is_away = False
        # When the present trouble with connections began, and when it was last heard of.
        self._since = self._heard_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        is_away = getattr(record, "broker_is_away", None)
        if is_away is not None:
            self._is_away, self._heard_at = is_away, 0.0
        if not record.name.startswith(_CLIENTS):
            return True
        kind = str(record.args[0]) if isinstance(record.args, tuple) and record.args else str(record.msg)
        if self._is_away or (kind in _OF_CONNECTIONS and self._passes(record.created)):
            return False
        if record.created - self._shown_at.get(kind, 0.0) < _REPEAT_AFTER_S:
            return False
        self._shown_at[kind] = record.created
        return True

    def _passes(self, now: float) -> bool:
        """Whether trouble with connections may still pass."""
        if now - self._heard_at > _SHOWN_AFTER_S:
            self._since = now
        self._heard_at = now
        return now - self._since < _SHOWN_AFTER_S
