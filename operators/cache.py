"""Infer with a cache: what models said once about a row they need not be asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import NUMPY_DTYPES
from modelstream.models.errors import CacheUnavailable
from modelstream.models.outputs import non_finite_rows
from modelstream.operators.batch import Column, EventBatch, concat_columns, select_rows
from modelstream.operators.breaker import Breaker
from modelstream.operators.cache_entries import AnswerCodec, Answers, row_keys
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.infer import Infer, ModelInputs, ScoringModel

__all__ = ["CacheCounters", "CachedInfer", "Store"]


class Store(Protocol):
    """What `CachedInfer` needs of a store; `modelstream.operators.redis_store.RedisStore` is one."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none; raise `CacheUnavailable` where it cannot tell."""
        ...

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        """Keep values for about so many seconds, or raise `CacheUnavailable`."""
        ...


@dataclass(slots=True)
class CacheCounters:
    """What came of the rows and of the store's calls; the first four add up to all rows that models had to answer for.

    Parameters
    ----------
    hits : int
        Rows answered by the store.
    misses : int
        Rows that were asked for in vain.
    duplicates : int
        Rows equal to an earlier one of their batch, so neither looked up nor inferred.
    bypassed : int
        Rows that were inferred without a look at the store: it did not answer, or was left alone since it had not
        before.
    errors : int
        Calls of the store that failed.
    corrupt : int
        Misses where there was a value, but none that this code had written whole.
    """

    hits: int = 0
    misses: int = 0
    duplicates: int = 0
    bypassed: int = 0
    errors: int = 0
    corrupt: int = 0


class CachedInfer:
    """Asks a store first, and the models of a stage only about rows that it does not know.

    An answer is kept under a key of all that it depends on: the models' names, versions and files, and the row's
    inputs, bit for bit. So another version never gets an old answer, and an answer out of the store has the bits that
    the model computed. Whatever goes wrong with the store, the rows are inferred: the cache is never a reason to fail.

    Parameters
    ----------
    infer : Infer
        The stage without a cache.
    store : Store
        Where answers are kept.
    ttl_s : int
        Seconds that an answer is kept.
    reads, writes : Breaker, optional
        When to leave the store alone: a replica, or a full store, may answer well and take nothing.

    Examples
    --------
    >>> CachedInfer(infer, RedisStore("redis://localhost"), ttl_s=300)  # doctest: +SKIP
    """

    def __init__(
        self, infer: Infer, store: Store, ttl_s: int, reads: Breaker | None = None, writes: Breaker | None = None
    ) -> None:
        self._infer = infer
        self._store = store
        self._ttl_s = ttl_s
        self._reads = reads or Breaker()
        self._writes = writes or Breaker()
        self._identity = _identity(infer)
        nothing = {spec.name: _no_rows(spec) for spec in infer.specs}
        self._names = tuple(nothing)
        self._codec = AnswerCodec(infer.predict(nothing, 0))
        self.counters = CacheCounters()

    @property
    def step_id(self) -> str:
        """Name of the stage."""
        return self._infer.step_id

    @property
    def models(self) -> tuple[ScoringModel, ...]:
        """The models, in the order of their answers."""
        return self._infer.models

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Add an output for each model; none if every row was rejected.

        Raises
        ------
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        inputs = self._infer.read(batch)
        if inputs.n_rows:
            answers = self._answer(inputs)
            if answers is None:
                answers = self._infer.predict(inputs.columns, inputs.n_rows)
                self.counters.bypassed += inputs.n_rows
            self._infer.write(batch, inputs, answers)
        return batch

    def _answer(self, inputs: ModelInputs) -> Answers | None:
        """Return the answers out of the store and, for what it does not know, the models; None without a store."""
        if not self._reads.allows():
            return None
        try:
            keys = row_keys(self._identity, [inputs.columns[name] for name in self._names], inputs.n_rows)
        except TypeError:  # text that is none: for the models to refuse
            return None
        unique = list(dict.fromkeys(keys))
        values = self._get(unique)
        if values is None:
            return None
        found, known = self._codec.decode(values)
        answers = known
        if len(missing := np.flatnonzero(~found)):
            computed = self._compute(inputs, keys, unique, missing)
            if not self._codec.fits(computed):
                return None
            answers = _interleaved(known, computed, found)
        self._count(inputs.n_rows, values, found)
        return answers if len(unique) == len(keys) else _repeated(answers, unique, keys)

    def _compute(
        self, inputs: ModelInputs, keys: Sequence[bytes], unique: Sequence[bytes], missing: NDArray[np.intp]
    ) -> Answers:
        """Return the models' answers for the unique keys that are missing, and keep them."""
        if len(missing) == len(keys):
            computed = self._infer.predict(inputs.columns, inputs.n_rows)
        else:
            wanted = [unique[i] for i in missing.tolist()]
            # Of equal rows any will do.
            row_of = dict(zip(keys, range(len(keys)), strict=True))
            rows = np.fromiter(map(row_of.__getitem__, wanted), np.intp, len(wanted))
            columns = {name: select_rows(inputs.columns[name], rows) for name in self._names}
            computed = self._infer.predict(columns, len(rows))
        if self._codec.fits(computed) and self._writes.allows():
            self._put([unique[i] for i in missing.tolist()], computed)
        return computed

    def _get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        try:
            values = self._store.get_many(keys)
        except CacheUnavailable:
            self.counters.errors += 1
            self._reads.failed()
            return None
        self._reads.succeeded()
        return values

    def _put(self, keys: Sequence[bytes], answers: Answers) -> None:
        bad = np.any([non_finite_rows(fields) for fields in answers], axis=0)
        pairs = list(zip(keys, self._codec.encode(answers, len(keys)), strict=True))
        if bad.any():
            pairs = list(compress(pairs, (~bad).tolist()))
        try:
            self._store.set_many(pairs, self._ttl_s)
        except CacheUnavailable:
            self.counters.errors += 1
            self._writes.failed()
        else:
            self._writes.succeeded()

    def _count(self, n_rows: int, values: Sequence[bytes | None], found: NDArray[np.bool_]) -> None:
        hits = int(found.sum())
        self.counters.hits += hits
        self.counters.misses += len(values) - hits
        self.counters.duplicates += n_rows - len(values)
        self.counters.corrupt += len(values) - hits - values.count(None)


def _no_rows(spec: ColumnSpec) -> Column:
    if spec.dtype == "string" and spec.width is None:
        return []
    return np.empty((0,) if spec.width is None else (0, spec.width), NUMPY_DTYPES[spec.dtype])


def _identity(infer: Infer) -> bytes:
    """Return all that the answer to a row depends on, but for the row."""
    lines = []
    for model in infer.models:
        contract = getattr(model, "contract", None)
        # The digest is of the ONNX file; which class a score is of, say, stands in model.toml.
        said = [getattr(contract, part, "") for part in ("sha256", "inputs", "outputs")]
        lines.append(f"{model.name}@{model.version} {said!r}")
    lines += [repr(spec.name) for spec in infer.specs]
    return "\n".join(lines).encode()


def _interleaved(known: Answers, computed: Answers, found: NDArray[np.bool_]) -> Answers:
    """Return answers in which the known ones stand where they were found, and the computed ones elsewhere."""
    if not found.any():
        return computed
    # The place of each among the known ones followed by the computed ones.
    order = np.empty(len(found), np.intp)
    order[found] = np.arange(n_known := int(found.sum()))
    order[~found] = np.arange(n_known, len(found))
    return [
        {name: select_rows(concat_columns([column, new[name]]), order) for name, column in old.items()}
        for old, new in zip(known, computed, strict=True)
    ]


def _repeated(answers: Answers, unique: Sequence[bytes], keys: Sequence[bytes]) -> Answers:
    """Return the answers of the unique keys for all keys."""
    place = dict(zip(unique, range(len(unique)), strict=True))
    rows = np.fromiter(map(place.__getitem__, keys), np.intp, len(keys))
    return [{name: select_rows(column, rows) for name, column in fields.items()} for fields in answers]
