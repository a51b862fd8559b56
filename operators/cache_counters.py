"""What the prediction cache of a stage has done."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheCounters"]


@dataclass(slots=True)
class CacheCounters:
    """What came of the rows and of the store's calls, so far.

    ``hits``, ``misses``, ``duplicates``, ``coalesced`` and ``bypassed`` add up to all rows that models had to answer
    for; the first of equal rows in a batch counts as what it is, the others as duplicates.

    Parameters
    ----------
    hits : int
        Rows whose answer was kept: ``memory_hits`` and ``redis_hits`` together.
    memory_hits, redis_hits : int
        Those in this process's memory, and those in Redis.
    misses : int
        Rows that were looked for in vain, and inferred.
    duplicates : int
        Rows equal to an earlier one of their batch, so neither looked up nor inferred.
    coalesced : int
        Rows equal to one that another batch was computing, and whose answer it gave.
    bypassed : int
        Rows that were inferred without a look at what is kept.
    redis_skipped : int
        Rows that memory did not know and Redis was not asked about, since it does not answer or does not pay.
    errors : int
        Calls of Redis that failed.
    corrupt : int
        Values in Redis that this code had not written, or not whole.
    dropped : int
        Answers that were to be written to Redis, and were not.
    late : int
        Rows that another batch computed, and that were computed again since it failed or took too long.
    saved_us, spent_us : int
        Estimates: microseconds of inference that were not needed, and those that the cache took for it, of which the
        writing to Redis runs beside the models.
    level : str
        What is in use now: ``redis`` (and memory), ``memory``, or ``off``.
    changes : int
        How often that was changed since what the cache saves did not pay for what it costs, or did again.
    reads_paused, writes_paused : bool
        Whether Redis is left alone at the moment since it does not answer, or does not take answers.
    """

    hits: int = 0
    memory_hits: int = 0
    redis_hits: int = 0
    misses: int = 0
    duplicates: int = 0
    coalesced: int = 0
    bypassed: int = 0
    redis_skipped: int = 0
    errors: int = 0
    corrupt: int = 0
    dropped: int = 0
    late: int = 0
    saved_us: int = 0
    spent_us: int = 0
    level: str = "redis"
    changes: int = 0
    reads_paused: bool = False
    writes_paused: bool = False
