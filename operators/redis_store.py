"""A store of bytes in Redis that answers soon or not at all: one round trip for many keys, no second try."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from modelstream.models.errors import CacheUnavailable, ConfigError
from modelstream.operators.redis_url import RedisUrl

__all__ = ["RedisStore", "connection_of", "connection_options", "open_store", "packed_sets", "pieces"]

#: Answers stored together would all end together, and be computed again at once.
_TTL_JITTER = 0.1
#: Bytes given to the socket at once: the time-out holds for each such piece, so that much data may take longer.
_SEND_BYTES = 256 * 1024

_SET = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$%d\r\n%b\r\n"

#: In the URL of sentinels: how to log in to them, if not like everybody.
_SENTINEL_LOGIN = {"sentinel_username": "username", "sentinel_password": "password"}


class RedisStore:
    """Gets and sets many values in one round trip each. For any number of threads; it connects when it is first used.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://``, ``unix://``, or ``redis+sentinel://HOST,HOST2/MASTER/0``: then the sentinels are
        asked for the master whenever a connection is made.
    timeout_s : float
        Seconds to wait for a connection, for the answer to begin, and for each further piece of it.
    rng : random.Random, optional
        Spreads the times to live.

    Raises
    ------
    ConfigError
        If the URL has an option or a value that redis-py does not take.

    Examples
    --------
    >>> store = RedisStore("redis://127.0.0.1:1/0")
    >>> store.get_many([b"a"])
    Traceback (most recent call last):
    modelstream.models.errors.CacheUnavailable: Redis: Error 111 connecting to 127.0.0.1:1. Connection refused.
    """

    def __init__(self, url: str, timeout_s: float = 0.05, rng: random.Random | None = None) -> None:
        parts, options = connection_options(url, timeout_s)
        self._pool = _sentinel_pool(parts, options) if parts.kind == "sentinel" else ConnectionPool(**options)
        self._rng = rng or random.Random()

    def ping(self) -> None:
        """Check that Redis answers.

        Raises
        ------
        CacheUnavailable
            If it does not.
        """
        with connection_of(self._pool) as connection:
            connection.send_command("PING")
            connection.read_response()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none.

        Raises
        ------
        CacheUnavailable
            For whatever reason there is no answer.
        """
        if not keys:
            return []
        with connection_of(self._pool) as connection:
            connection.send_command("MGET", *keys)
            values: list[bytes | None] = connection.read_response()
        return values

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        """Set values that last for about `ttl_s` seconds, a tenth more or less.

        Raises
        ------
        CacheUnavailable
            If Redis did not take them all. Some of them may be set.
        """
        if not pairs:
            return
        commands = packed_sets(pairs, ttl_s, self._rng)
        with connection_of(self._pool) as connection:
            connection.send_packed_command(list(pieces(commands)))
            for _ in pairs:
                connection.read_response()

    def close(self) -> None:
        """Close the connections; the next use opens others."""
        self._pool.disconnect()
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()


def open_store(url: str, timeout_s: float = 0.05) -> Any:
    """Return the store that a URL names, a `RedisStore` or a `ClusterStore`.

    Parameters
    ----------
    url : str
        As for `RedisStore`, or ``redis+cluster://HOST:6379,HOST2:6379``.
    timeout_s : float
        As for `RedisStore`.

    Raises
    ------
    ConfigError
        If it is no such URL, or has an option or a value that redis-py does not take.
    """
    from modelstream.operators.redis_cluster import ClusterStore

    return (ClusterStore if connection_options(url, timeout_s)[0].kind == "cluster" else RedisStore)(url, timeout_s)


def connection_options(url: str, timeout_s: float) -> tuple[RedisUrl, dict[str, Any]]:
    """Return the parts of a URL, and redis-py's options of a connection to its first host.

    Raises
    ------
    ConfigError
        If it is no such URL, or has an option or a value that redis-py does not take; the message does not show it.
    """
    # The caller computes an answer sooner than a second try would bring it.
    strict = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "decode_responses": False,
        "protocol": 2,
    }
    try:
        parts = RedisUrl.parse(url)
        said: dict[str, Any] = parse_url(parts.base)  # type: ignore[no-untyped-call]
        options = {**said, **strict}
        pool = ConnectionPool(**{name: value for name, value in options.items() if name not in _SENTINEL_LOGIN})
        pool.connection_class(**pool.connection_kwargs)  # it does not connect; this checks the options
    except (TypeError, ValueError, RedisError):
        # Not its message: it may show the URL, and so the password.
        raise ConfigError("redis", "the URL has an option or a value that redis-py does not take") from None
    return parts, options


def _sentinel_pool(parts: RedisUrl, options: dict[str, Any]) -> ConnectionPool:
    options = {name: value for name, value in options.items() if name not in ("host", "port")}
    login = {_SENTINEL_LOGIN[name]: options.pop(name) for name in tuple(_SENTINEL_LOGIN) if name in options}
    tls = options.pop("connection_class", None) is not None
    if tls:
        options["ssl"] = True
    # What holds for the servers holds for the sentinels, but for logging in.
    theirs = ("username", "password", "db", "retry_on_timeout", "retry_on_error")
    shared = {name: value for name, value in options.items() if name not in theirs}
    sentinel = Sentinel(parts.hosts, sentinel_kwargs={**shared, **login})  # type: ignore[no-untyped-call]
    return SentinelConnectionPool(parts.master, sentinel, **options)  # type: ignore[no-untyped-call]


@contextmanager
def connection_of(pool: ConnectionPool) -> Iterator[Any]:
    """Lend a connection; it is closed where something goes wrong.

    Raises
    ------
    CacheUnavailable
        What redis-py raised, here or in the block.
    """
    try:
        connection: Any = pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()  # answers that nobody has read must not be taken for those of the next call
            raise
        finally:
            pool.release(connection)
    except (RedisError, OSError) as error:
        raise CacheUnavailable(f"Redis: {str(error) or type(error).__name__}") from error


def packed_sets(pairs: Sequence[tuple[bytes, bytes]], ttl_s: int, rng: random.Random) -> list[bytes]:
    """Return a command for each pair, as Redis reads it, with times to live a tenth longer or shorter."""
    # Not redis-py's pipeline: it makes an object of each command and takes 10 µs for it, this 2.
    shortest, longest = max(1, round(ttl_s * (1 - _TTL_JITTER))), round(ttl_s * (1 + _TTL_JITTER))
    ttls = rng.choices([b"%d" % ttl for ttl in range(shortest, longest + 1)], k=len(pairs))
    return [
        _SET % (len(key), key, len(value), value, len(ttl), ttl) for (key, value), ttl in zip(pairs, ttls, strict=True)
    ]


def pieces(commands: Sequence[bytes]) -> Iterator[bytes]:
    """Yield commands joined to pieces for the socket."""
    piece: list[bytes] = []
    n_bytes = 0
    for command in commands:
        piece.append(command)
        n_bytes += len(command)
        if n_bytes >= _SEND_BYTES:
            yield b"".join(piece)
            piece, n_bytes = [], 0
    if piece:
        yield b"".join(piece)
