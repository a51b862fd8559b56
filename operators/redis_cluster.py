"""A store of bytes in a Redis cluster: one round trip to each node that has some of the keys, all at once."""

from __future__ import annotations

import random
import time
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis import ConnectionPool
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ResponseError, TryAgainError

from modelstream.models.errors import CacheUnavailable
from modelstream.operators.redis_store import connection_of, connection_options, packed_sets, pieces

__all__ = ["ClusterStore"]

#: Seconds between two looks at which node has which keys, at least: while keys move, every batch would ask.
_REFRESH_EVERY_S = 1.0

_GET = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"

#: What a node says of keys that are another's, or on their way there.
_MOVED = (AskError, TryAgainError)

_Address = tuple[str, int]


class ClusterStore:
    """Gets and sets many values in a cluster. For any number of threads; it connects when it is first used.

    Only masters are asked. What a node says has moved counts as missing, and the cluster is asked anew where its keys
    are; so it is after an error, when a replica has taken over say. While one node is away, there is no answer at all.

    Parameters
    ----------
    url : str
        ``redis+cluster://HOST:6379,HOST2:6379`` or ``rediss+cluster://…``: some of the nodes, to ask for the others.
    timeout_s : float
        Seconds to wait for a connection, for an answer to begin, and for each further piece of it.
    rng : random.Random, optional
        Spreads the times to live.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    ConfigError
        If the URL has an option or a value that redis-py does not take.

    Examples
    --------
    >>> store = ClusterStore("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    >>> store.get_many([b"a"])
    Traceback (most recent call last):
    modelstream.models.errors.CacheUnavailable: Redis: Error 111 connecting to 127.0.0.1:2. Connection refused.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 0.05,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts, self._options = connection_options(url, timeout_s)
        self._seeds = parts.hosts
        self._rng = rng or random.Random()
        self._clock = clock
        self._lock = Lock()
        self._pools: dict[_Address, ConnectionPool] = {}
        #: For each slot, which of the masters has it; -1 for none.
        self._owners: NDArray[np.int16] = np.full(REDIS_CLUSTER_HASH_SLOTS, -1, np.int16)
        self._masters: list[_Address] = []
        self._stale = True
        self._refreshed_at = float("-inf")

    def ping(self) -> None:
        """Check that all masters answer.

        Raises
        ------
        CacheUnavailable
            If one does not.
        """
        with self._lock:
            self._refresh()
            pools = [self._pool(address) for address in self._masters]
        for pool in pools:
            with connection_of(pool) as connection:
                connection.send_command("PING")
                connection.read_response()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none.

        Raises
        ------
        CacheUnavailable
            For whatever reason there is no answer.
        """
        found: NDArray[Any] = np.full(len(keys), None, object)
        groups = self._by_node(keys)
        commands = [[_GET % (len(keys[i]), keys[i]) for i in rows.tolist()] for _, rows in groups]
        for (_, rows), values in zip(groups, self._ask([pool for pool, _ in groups], commands), strict=True):
            found[rows] = _column(values)
        answers: list[bytes | None] = found.tolist()
        return answers

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        """Set values that last for about `ttl_s` seconds, a tenth more or less; those whose key has moved are not set.

        Raises
        ------
        CacheUnavailable
            If a node did not take them all. Some of them may be set.
        """
        groups = self._by_node([key for key, _ in pairs])
        commands = [packed_sets([pairs[i] for i in rows.tolist()], ttl_s, self._rng) for _, rows in groups]
        self._ask([pool for pool, _ in groups], commands)

    def close(self) -> None:
        """Close the connections; the next use opens others."""
        with self._lock:
            for pool in self._pools.values():
                pool.disconnect()

    def _ask(self, pools: Sequence[ConnectionPool], commands: Sequence[Sequence[bytes]]) -> list[list[Any]]:
        """Send commands to nodes, all before the first answer is read, and return the answers; None where moved."""
        try:
            with ExitStack() as stack:
                connections = [stack.enter_context(connection_of(pool)) for pool in pools]
                for connection, packed in zip(connections, commands, strict=True):
                    connection.send_packed_command(list(pieces(packed)))
                return [
                    [self._read(connection) for _ in packed]
                    for connection, packed in zip(connections, commands, strict=True)
                ]
        except CacheUnavailable:
            self._stale = True
            raise

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except ResponseError as error:
            if not isinstance(error, _MOVED):
                raise
            self._stale = True
            return None

    def _by_node(self, keys: Sequence[bytes]) -> list[tuple[ConnectionPool, NDArray[np.intp]]]:
        """Return which node has which of the keys."""
        if not keys:
            return []
        # Braces mean something, and are rare.
        slots = [key_slot(key) if b"{" in key else crc_hqx(key, 0) % REDIS_CLUSTER_HASH_SLOTS for key in keys]
        with self._lock:
            if self._stale and self._clock() >= self._refreshed_at + _REFRESH_EVERY_S:
                self._refresh()
            owners = self._owners[np.array(slots)]
            if (owners < 0).any():
                self._stale = True
                raise CacheUnavailable("Redis: no node of the cluster has some of the keys")
            return [
                (self._pool(self._masters[owner]), np.flatnonzero(owners == owner))
                for owner in np.unique(owners).tolist()
            ]

    def _refresh(self) -> None:
        """Ask the nodes, one after the other until one answers, which of them has which keys."""
        problem: CacheUnavailable | None = None
        for address in dict.fromkeys([*self._masters, *self._seeds]):
            try:
                with connection_of(self._pool(address)) as connection:
                    connection.send_command("CLUSTER", "SLOTS")
                    ranges = connection.read_response()
            except CacheUnavailable as error:
                problem = error
                continue
            self._learn(ranges, address[0])
            self._stale = False
            self._refreshed_at = self._clock()
            return
        assert problem is not None  # there is one seed at least
        raise problem

    def _learn(self, ranges: Sequence[Any], asked: str) -> None:
        owners = np.full(REDIS_CLUSTER_HASH_SLOTS, -1, np.int16)
        masters: dict[_Address, int] = {}
        for first, last, master, *_ in ranges:
            # No name: the node that was asked does not know by which it is reached.
            address = ((master[0] or b"").decode() or asked, int(master[1]))
            owners[first : last + 1] = masters.setdefault(address, len(masters))
        self._owners, self._masters = owners, list(masters)
        for address in set(self._pools) - set(masters) - set(self._seeds):
            self._pools.pop(address).disconnect()

    def _pool(self, address: _Address) -> ConnectionPool:
        if address not in self._pools:
            host, port = address
            self._pools[address] = ConnectionPool(**{**self._options, "host": host, "port": port})
        return self._pools[address]


def _column(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
