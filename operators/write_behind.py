"""Writes answers to the store on a thread of its own, so that no batch waits until they are kept."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from modelstream.models.errors import CacheUnavailable
from modelstream.operators.batch import Column
from modelstream.operators.breaker import Breaker
from modelstream.operators.cache_entries import AnswerCodec, store_keys
from modelstream.operators.guarded_store import Store, StoreNews
from modelstream.operators.stage_clock import Clock, thread_clock

__all__ = ["WriteBehind", "Written"]

logger = logging.getLogger(__name__)

#: Small batches that wait go to the store together, up to so many rows: a round trip costs more than a few rows.
_MERGE_ROWS = 1024


@dataclass(slots=True)
class Written:
    """What became of answers that were to be kept.

    Parameters
    ----------
    rows : int
        Rows that the store has taken.
    dropped : int
        Rows that were given up: no room in the queue, a store that takes nothing or is away, no time at the end.
    errors : int
        Calls of the store that failed.
    seconds : float
        CPU time that the thread took for rows that the store has taken.
    """

    rows: int = 0
    dropped: int = 0
    errors: int = 0
    seconds: float = 0.0


class WriteBehind:
    """A bounded queue of answers, and the thread that writes them. The thread begins with the first of them.

    Parameters
    ----------
    store : Store
        Where answers are kept.
    codec : AnswerCodec
        Makes values of them.
    ttl_s : int
        Seconds that they are kept.
    max_rows : int
        Rows that wait at most; what is more is dropped.
    note : callable
        Told what became of rows, from any thread.
    breaker : Breaker
        When to leave the store alone; the thread's own.
    news : StoreNews, optional
        Told of each call, to say when the breaker opens and closes.
    clock : callable
        What the thread's work is measured by.
    """

    def __init__(
        self,
        store: Store,
        codec: AnswerCodec,
        ttl_s: int,
        max_rows: int,
        note: Callable[[Written], None],
        breaker: Breaker,
        news: StoreNews | None = None,
        clock: Clock = thread_clock,
    ) -> None:
        self._store = store
        self._codec = codec
        self._ttl_s = ttl_s
        self._max_rows = max_rows
        self._note = note
        self._breaker = breaker
        self._news = news or StoreNews()
        self._clock = clock
        self._queue: deque[tuple[Sequence[bytes], Sequence[Column]]] = deque()
        self._n_waiting = 0
        self._busy = False
        self._closed = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def put(self, digests: Sequence[bytes], columns: Sequence[Column]) -> None:
        """Have the answers to some rows kept; does not block.

        Parameters
        ----------
        digests : sequence of bytes
            What the rows are known by.
        columns : sequence of Column
            Their answers, which nobody changes from now on.
        """
        if not digests:
            return
        with self._changed:
            room = 0 if self._closed else self._max_rows - self._n_waiting
            n_dropped = max(0, len(digests) - room)
            if n_dropped:
                digests, columns = digests[:room], [column[:room] for column in columns]
            if digests:
                self._queue.append((digests, columns))
                self._n_waiting += len(digests)
                if self._thread is None:
                    self._thread = Thread(target=self._run, name="modelstream-cache-writer", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        if n_dropped:
            self._note(Written(dropped=n_dropped))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all answers are written, or dropped; say whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what waits, as far as there is time, and end the thread."""
        self.flush(timeout_s)
        with self._changed:
            self._closed = True
            n_dropped = self._n_waiting
            self._queue.clear()
            self._n_waiting = 0
            self._changed.notify_all()
        if n_dropped:
            self._note(Written(dropped=n_dropped))
        if self._thread is not None:
            # A call that hangs ends with its time-out; the thread is a daemon and keeps nobody.
            self._thread.join(min(timeout_s, 1.0))

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            try:
                self._note(self._written(taken))
            except Exception:  # or nothing would be kept from then on, and nobody would know
                logger.exception("answers could not be kept")
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> list[tuple[Sequence[bytes], Sequence[Column]]] | None:
        """Return what is to be written next, once there is something; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            self._busy = True
            taken: list[tuple[Sequence[bytes], Sequence[Column]]] = []
            n_rows = 0
            while self._queue and (not taken or n_rows + len(self._queue[0][0]) <= _MERGE_ROWS):
                taken.append(self._queue.popleft())
                n_rows += len(taken[-1][0])
            self._n_waiting -= n_rows
            return taken

    def _written(self, taken: Sequence[tuple[Sequence[bytes], Sequence[Column]]]) -> Written:
        n_rows = sum(len(digests) for digests, _ in taken)
        if not self._breaker.allows():
            return Written(dropped=n_rows)
        start = self._clock()
        pairs: list[tuple[bytes, bytes]] = []
        for digests, columns in taken:
            pairs += zip(store_keys(digests), self._codec.encode(columns, len(digests)), strict=True)
        try:
            self._store.set_many(pairs, self._ttl_s)
        except CacheUnavailable as error:
            self._breaker.failed()
            self._news.tell(self._breaker, error)
            return Written(dropped=n_rows, errors=1)
        self._breaker.succeeded()
        self._news.tell(self._breaker)
        # Nobody waits for this thread: what it costs the others is its CPU time.
        return Written(rows=n_rows, seconds=(self._clock() - start).cpu_s)
