"""Infer with a cache: what models said once about a row they need not be asked again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ANY_WIDTH
from modelstream.operators.answer_parts import AnswerParts, UniqueRows
from modelstream.operators.answers import no_rows
from modelstream.operators.batch import CacheState, Column, EventBatch
from modelstream.operators.breaker import Breaker
from modelstream.operators.bypass import Bypass, Level, Spent
from modelstream.operators.cache_call import CacheCall, OtherLayoutError
from modelstream.operators.cache_counters import CacheCounters
from modelstream.operators.cache_entries import AnswerCodec, Answers, row_digests, store_keys
from modelstream.operators.claims import Claim, Claims
from modelstream.operators.columns import select_rows
from modelstream.operators.guarded_store import GuardedStore, Store, StoreNews
from modelstream.operators.infer import Infer, ModelInputs, ScoringModel
from modelstream.operators.memory_cache import MemoryCache
from modelstream.operators.padding import PaddingCounters
from modelstream.operators.stage_clock import Clock, Pace, thread_clock
from modelstream.operators.write_behind import WriteBehind, Written

__all__ = ["CacheCounters", "CachedInfer", "Store"]

#: Share of failures among the calls of a second at which the store is left alone, and how far probes are spread.
_MAX_SHARE, _JITTER = 0.5, 0.1


class CachedInfer:
    """Looks into memory, then asks a store, and the models of a stage only about rows that neither knows.

    An answer is kept under a digest of all that it depends on: the stage's identity, with the models' names, versions
    and files, and the row's inputs, bit for bit. So another version never gets an old answer, and a kept answer has
    the bits that the model computed. Equal rows are inferred once, in a batch and among the batches of all threads.
    Whatever goes wrong with the store, the rows are inferred: the cache is never a reason to fail. Where it costs more
    than it saves, it leaves itself out.

    Parameters
    ----------
    infer : Infer
        The stage without a cache.
    store : Store, optional
        Where answers are kept beside memory. It is closed with the cache.
    ttl_s : int
        Seconds that an answer is kept, a tenth more or less; in memory counted from when it got there.
    l1_rows : int
        Rows that memory holds; 0 for none.
    write_behind_rows : int
        Rows that wait to be written to the store at most; what is more is dropped.
    bypass : bool
        Whether it may leave itself out.
    wait_s : float
        Seconds to wait for a row that another thread computes, before it is computed here too.
    reads, writes : Breaker, optional
        When to leave the store alone: a replica, or a full store, may answer well and take nothing.
    clock : callable
        What models, cache and store are compared by.

    Examples
    --------
    >>> CachedInfer(infer, RedisStore("redis://localhost"), ttl_s=300)  # doctest: +SKIP
    """

    def __init__(
        self,
        infer: Infer,
        store: Store | None,
        ttl_s: int,
        *,
        l1_rows: int = 65_536,
        write_behind_rows: int = 65_536,
        bypass: bool = True,
        wait_s: float = 2.0,
        reads: Breaker | None = None,
        writes: Breaker | None = None,
        clock: Clock = thread_clock,
    ) -> None:
        self._infer = infer
        self._store = store
        self._wait_s = wait_s
        self._clock = clock
        self._pace = Pace()
        self._identity = infer.identity
        nothing = {spec.name: no_rows(spec) for spec in infer.specs}
        self._names = tuple(nothing)
        self._any_width = [i for i, spec in enumerate(infer.specs) if spec.width == ANY_WIDTH]
        sample = infer.predict(nothing, 0)
        self._codec = AnswerCodec(sample)
        # Held for moments only, never while models or the store are asked.
        self._lock = Lock()
        self._memory = MemoryCache(self._codec.columns(sample), l1_rows, ttl_s)
        self._claims = Claims()
        top = Level.MEMORY if store is None else Level.REDIS
        self._bypass = Bypass(infer.step_id, top, l1_rows, ttl_s, enabled=bypass, clock=clock)
        self.counters = CacheCounters(level=top.name.lower())
        self._reader: GuardedStore | None = None
        self._writer: WriteBehind | None = None
        if store is not None:
            reads = reads or Breaker(max_share=_MAX_SHARE, jitter=_JITTER)
            writes = writes or Breaker(max_share=_MAX_SHARE, jitter=_JITTER)
            note, stage = self._note_written, f"stage {infer.step_id}: "
            told_reads = StoreNews(
                stage + "Redis does not answer: %s; answers that memory does not know are computed until it does",
                stage + "Redis answers again, and is asked again",
                partial(setattr, self.counters, "reads_paused"),
            )
            told_writes = StoreNews(
                stage + "Redis takes no answers: %s; new ones are not written to it until it does",
                stage + "Redis takes answers again",
                partial(setattr, self.counters, "writes_paused"),
            )
            self._reader = GuardedStore(store, reads, lambda: note(Written(errors=1)), told_reads)
            self._writer = WriteBehind(store, self._codec, ttl_s, write_behind_rows, note, writes, told_writes, clock)

    @property
    def step_id(self) -> str:
        """Name of the stage."""
        return self._infer.step_id

    @property
    def models(self) -> tuple[ScoringModel, ...]:
        """The models, in the order of their answers."""
        return self._infer.models

    @property
    def padding(self) -> PaddingCounters:
        """What was padded so far, of all models."""
        return self._infer.padding

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Add an output for each model; none if every row was rejected. `cache_states` says where they come from.

        Raises
        ------
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        inputs = self._infer.read(batch)
        if inputs.n_rows:
            answers, states = self._answer(inputs)
            self._infer.write(batch, inputs, answers)
            if inputs.rows is not None:
                whole = np.zeros(len(batch), np.uint8)
                whole[inputs.rows] = states
                states = whole
            batch.cache_states = states
        return batch

    def flush(self, timeout_s: float) -> bool:
        """Wait until the store has what it is to keep; say whether it has."""
        return self._writer is None or self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is to be kept, as far as there is time, and let go of threads and the store.

        Parameters
        ----------
        timeout_s : float
            Seconds for writing; what is left then is dropped.
        """
        if self._writer is not None:
            self._writer.close(timeout_s)
        if self._reader is not None:
            self._reader.close(timeout_s)
        if self._store is not None:
            self._store.close()

    def _answer(self, inputs: ModelInputs) -> tuple[Answers, NDArray[np.uint8]]:
        columns = [inputs.columns[name] for name in self._names]
        for i in self._any_width:
            # Where all rows have one length they are a matrix; that must not make other keys.
            columns[i] = list(columns[i])
        with self._lock:
            level = self._bypass.plan(columns, inputs.n_rows)
            self.counters.level = self._bypass.level.name.lower()
            self.counters.changes = self._bypass.changes
        call = None if level is Level.OFF else self._begin(inputs, columns, level)
        if call is not None:
            try:
                return self._look_up(call)
            except OtherLayoutError:
                pass
        start = self._clock()
        answers = self._infer.predict(inputs.columns, inputs.n_rows)
        took = self._clock() - start
        with self._lock:
            self._pace.computed(took)
            self._bypass.computed(inputs.n_rows, took.cpu_s)
            self.counters.bypassed += inputs.n_rows
        return answers, np.full(inputs.n_rows, CacheState.BYPASSED, np.uint8)

    def _begin(self, inputs: ModelInputs, columns: Sequence[Column], level: Level) -> CacheCall | None:
        start = self._clock()
        try:
            unique = UniqueRows(row_digests(self._identity, columns, inputs.n_rows))
        except TypeError:  # text that is none: for the models to refuse
            return None
        states = np.full(len(unique), CacheState.MISS, np.uint8)
        spent = Spent(inputs.n_rows)
        return CacheCall(inputs, unique, AnswerParts(len(unique)), states, spent, start, skipped=level < Level.REDIS)

    def _look_up(self, call: CacheCall) -> tuple[Answers, NDArray[np.uint8]]:
        """Return the answers to all rows, and where they come from."""
        unique = call.unique
        with self._lock:
            slots = self._memory.find(unique.digests)
            known, unknown = np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
            if len(known):
                call.parts.add(known, self._memory.read(slots[known]))
            claim, others = self._claims.claim(unique.digests, unknown)
        call.states[known] = CacheState.MEMORY
        call.spent.n_far = len(claim.rows)
        answered = False
        try:
            self._answer_mine(call, claim.rows)
            answered = True
        finally:
            # Also where it failed, or others would wait for it.
            with self._lock:
                self._claims.release(claim)
            claim.fulfil(call.parts if answered else None)
        for other, rows in others:
            self._answer_of_other(call, other, np.array(rows, np.intp))
        answers = self._codec.answers(call.parts.take(unique.inverse))
        states = call.states if unique.inverse is None else call.states[unique.inverse]
        repeats = unique.repeats()
        if repeats is not None:
            states[repeats & (states == CacheState.MISS)] = CacheState.COALESCED
        self._finish(call)
        return answers, states

    def _answer_mine(self, call: CacheCall, rows: NDArray[np.intp]) -> None:
        """Add the answers to the rows that this call has claimed, and keep them."""
        left = rows
        if len(rows) and not call.skipped:
            found, columns = self._ask(call, rows)
            left = rows[~found]
            call.parts.add(rows[found], columns)
            call.states[rows[found]] = CacheState.REDIS
            with self._lock:
                self._memory.add(call.digests(rows[found]), columns)
        if len(left):
            columns = self._compute(call, left)
            call.parts.add(left, columns)
            self._keep(call, left, columns)

    def _ask(self, call: CacheCall, rows: NDArray[np.intp]) -> tuple[NDArray[np.bool_], list[Column]]:
        """Return which rows the store knows, and their answers."""
        assert self._reader is not None
        start = self._clock()
        values = self._reader.get_many(store_keys(call.digests(rows)))
        if values is None:
            call.skipped = True
            found, columns = self._codec.decode([None] * len(rows))
        else:
            found, columns = self._codec.decode(values)
            call.corrupt = len(values) - values.count(None) - int(found.sum())
            call.spent.n_asked = len(rows)
        took = self._clock() - start
        if values is not None:
            with self._lock:
                call.spent.redis_s = self._pace.waited_s(took)
        call.elsewhere_s += took.cpu_s
        return found, columns

    def _compute(self, call: CacheCall, rows: NDArray[np.intp]) -> list[Column]:
        """Return the models' answers to some of the unique rows."""
        inputs, unique = call.inputs, call.unique
        columns = inputs.columns
        if len(rows) < inputs.n_rows:
            rows = rows if unique.rows is None else unique.rows[rows]
            columns = {name: select_rows(inputs.columns[name], rows) for name in self._names}
        start = self._clock()
        answers = self._infer.predict(columns, len(rows))
        took = self._clock() - start
        call.elsewhere_s += took.cpu_s
        call.spent.n_computed += len(rows)
        with self._lock:
            self._pace.computed(took)
            self._bypass.computed(len(rows), took.cpu_s)
        if not self._codec.fits(answers):
            raise OtherLayoutError
        return self._codec.columns(answers)

    def _keep(self, call: CacheCall, rows: NDArray[np.intp], columns: Sequence[Column]) -> None:
        good = self._codec.keepable(columns, len(rows))
        if not good.all():
            rows, columns = rows[good], [select_rows(column, good) for column in columns]
        digests = call.digests(rows)
        with self._lock:
            self._memory.add(digests, columns)
        if self._writer is not None and not call.skipped:
            self._writer.put(digests, columns)

    def _answer_of_other(self, call: CacheCall, other: Claim, rows: NDArray[np.intp]) -> None:
        """Add the answers to rows that another call computes; if it does not, compute them."""
        parts = other.wait(self._wait_s)
        if parts is None:
            call.late += len(rows)
            with self._lock:
                self._claims.give_up(other)
            columns = self._compute(call, rows)
            self._keep(call, rows, columns)
        else:
            place = {digest: i for i, digest in enumerate(other.digests)}
            theirs = [place[digest] for digest in call.digests(rows)]
            columns = parts.take(np.array(theirs, np.intp))
            call.states[rows] = CacheState.COALESCED
        call.parts.add(rows, columns)

    def _finish(self, call: CacheCall) -> None:
        """Count what became of the rows, and learn from it."""
        counters, spent, n_rows = self.counters, call.spent, call.inputs.n_rows
        memory, redis, coalesced, misses = (
            int((call.states == state).sum())
            for state in (CacheState.MEMORY, CacheState.REDIS, CacheState.COALESCED, CacheState.MISS)
        )
        spent.own_s = (self._clock() - call.began).cpu_s - call.elsewhere_s
        with self._lock:
            counters.hits += memory + redis
            counters.memory_hits += memory
            counters.redis_hits += redis
            counters.misses += misses
            counters.coalesced += coalesced
            counters.duplicates += n_rows - len(call.unique)
            counters.corrupt += call.corrupt
            counters.late += call.late
            counters.redis_skipped += spent.n_far if call.skipped and self._reader else 0
            counters.saved_us += round(1e6 * self._bypass.saved_s(n_rows, spent.n_computed))
            counters.spent_us += round(1e6 * (spent.own_s + spent.redis_s))
            self._bypass.spent(spent)

    def _note_written(self, written: Written) -> None:
        with self._lock:
            self.counters.dropped += written.dropped
            self.counters.errors += written.errors
            self.counters.spent_us += round(1e6 * written.seconds)
            self._bypass.written(written.rows, written.seconds)
