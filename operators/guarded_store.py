"""A store that is asked only while it answers; whether it is back is found out on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Protocol

from modelstream.operators.breaker import Breaker

__all__ = ["GuardedStore", "Store", "StoreNews"]

logger = logging.getLogger(__name__)

#: A key that nothing is stored under, to ask whether the store answers.
_NO_KEY = b"ms:?"
#: The shortest pause between two looks at the breaker, in seconds.
_LEAST_PAUSE_S = 0.01


class Store(Protocol):
    """What a cache needs of a store, from any thread; `modelstream.operators.redis_store.RedisStore` is one."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none; raise `CacheUnavailable` where it cannot tell."""
        ...

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        """Keep values for about so many seconds, or raise `CacheUnavailable`."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class StoreNews:
    """Says when a breaker has opened and when it has closed, once each: in the log, and to whoever counts.

    A breaker that a trial has closed counts as open until a call has gone well: a store that answers a trial and fails
    again at once is no news, however often. Its caller sees to it that one thread at a time tells it.

    Parameters
    ----------
    opened, closed : str
        What is logged, as a warning with ``%s`` for the error, and as information.
    note_open : callable
        Told whether it is open, when that changes.
    """

    def __init__(
        self, opened: str = "%s", closed: str = "", note_open: Callable[[bool], None] = lambda is_open: None
    ) -> None:
        self._opened = opened
        self._closed = closed
        self._note_open = note_open
        self._is_open = False

    def tell(self, breaker: Breaker, error: Exception | None = None) -> None:
        """Look at a breaker after a call, with the error if the call failed."""
        if error is not None and breaker.is_open and not self._is_open:
            self._is_open = True
            self._note_open(True)
            logger.warning(self._opened, error)
        elif error is None and self._is_open and not breaker.is_open:
            self._is_open = False
            self._note_open(False)
            logger.info(self._closed)


class GuardedStore:
    """Asks a store, and leaves it alone while its breaker is open. For any number of threads.

    No caller is made to wait for a probe: while the breaker is open, a thread asks the store now and then. When it has
    answered, the next call decides: if that one fails, the breaker opens again at once.

    Parameters
    ----------
    store : Store
        The store.
    breaker : Breaker
        Says when to leave it alone.
    note_error : callable
        Called for each call that failed.
    news : StoreNews, optional
        Told of each call, to say when the breaker opens and closes.
    """

    def __init__(
        self, store: Store, breaker: Breaker, note_error: Callable[[], None], news: StoreNews | None = None
    ) -> None:
        self._store = store
        self._breaker = breaker
        self._note_error = note_error
        self._news = news or StoreNews()
        self._lock = Lock()
        self._ended = Event()
        self._watch: Thread | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Return the value of each key, None where there is none; None instead of all where the store cannot tell."""
        if self._breaker.is_open:
            return None
        try:
            values = self._store.get_many(keys)
        except Exception as error:  # also what no client should raise: a cache is never a reason to fail
            with self._lock:
                self._breaker.failed()
                self._news.tell(self._breaker, error)
                if self._breaker.is_open and self._watch is None and not self._ended.is_set():
                    self._watch = Thread(target=self._wait_until_back, name="modelstream-cache-watch", daemon=True)
                    self._watch.start()
            self._note_error()
            return None
        with self._lock:
            # An answer that was long under way says nothing of a store that others have found away since.
            if not self._breaker.is_open:
                self._breaker.succeeded()
                self._news.tell(self._breaker)
        return values

    def close(self, timeout_s: float) -> None:
        """End the thread."""
        self._ended.set()
        watch = self._watch
        if watch is not None:
            watch.join(timeout_s)

    def _wait_until_back(self) -> None:
        while not self._ended.wait(max(self._breaker.rests_s, _LEAST_PAUSE_S)):
            if not self._breaker.rests_s and self._is_back():
                return

    def _is_back(self) -> bool:
        try:
            self._store.get_many([_NO_KEY])
        except Exception:  # or nobody would ask any more
            with self._lock:
                self._breaker.failed()
            self._note_error()
            return False
        with self._lock:
            self._breaker.tried()
            self._watch = None
        return True
