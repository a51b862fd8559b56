"""A store of bytes in Redis that answers soon or not at all: one round trip for many keys, no second try."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelstream.models.errors import CacheUnavailable, ConfigError

__all__ = ["RedisStore"]

#: Answers stored together would all end together, and be computed again at once.
_TTL_JITTER = 0.1
#: Bytes given to the socket at once: the time-out holds for each such piece, so that much data may take longer.
_SEND_BYTES = 256 * 1024

_SET = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$%d\r\n%b\r\n"


class RedisStore:
    """Gets and sets many values in one round trip each. For one thread; it connects when it is first used.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://`` or ``unix://``.
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
        # The caller computes an answer sooner than a second try would bring it.
        strict = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "retry_on_timeout": False,
            "decode_responses": False,
        }
        try:
            self._pool = ConnectionPool.from_url(url, protocol=2)
            self._pool.connection_kwargs.update(strict)  # over what the URL says
            self._pool.connection_class(**self._pool.connection_kwargs)  # it connects later; this checks the options
        except (TypeError, ValueError):
            # Not its message: it may show the URL, and so the password.
            raise ConfigError("redis", "the URL has an option or a value that redis-py does not take") from None
        self._rng = rng or random.Random()

    def ping(self) -> None:
        """Check that Redis answers.

        Raises
        ------
        CacheUnavailable
            If it does not.
        """
        with self._connection() as connection:
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
        with self._connection() as connection:
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
        # Not redis-py's pipeline: it makes an object of each command and takes 10 µs for it, this 2.
        commands = self._set_commands(pairs, ttl_s)
        with self._connection() as connection:
            connection.send_packed_command(list(_pieces(commands)))
            for _ in pairs:
                connection.read_response()

    def _set_commands(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> list[bytes]:
        shortest, longest = max(1, round(ttl_s * (1 - _TTL_JITTER))), round(ttl_s * (1 + _TTL_JITTER))
        ttls = self._rng.choices([b"%d" % ttl for ttl in range(shortest, longest + 1)], k=len(pairs))
        return [
            _SET % (len(key), key, len(value), value, len(ttl), ttl)
            for (key, value), ttl in zip(pairs, ttls, strict=True)
        ]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            connection: Any = self._pool.get_connection()
            try:
                yield connection
            except BaseException:
                connection.disconnect()  # answers that nobody has read must not be taken for those of the next call
                raise
            finally:
                self._pool.release(connection)
        except (RedisError, OSError) as error:
            raise CacheUnavailable(f"Redis: {str(error) or type(error).__name__}") from error

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._pool.disconnect()


def _pieces(commands: Sequence[bytes]) -> Iterator[bytes]:
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
