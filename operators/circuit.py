"""A circuit for each model: one that fails whole batches in a row is left alone for a while, instead of being asked.

What counts is the batch that a stage was given, with all the calls that `run_isolated` makes to find the rows which
fail. A batch counts as failed only if the model answered to none of its rows, and does not answer either to a row that
it answered to before: bad rows, also where many come in a row and each in a batch of its own, never open the circuit.
Calls that time out are too dear to go on until then: where both halves of a part time out, that part counts as a failed
batch, and the halving ends when the circuit opens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from threading import Lock
from types import TracebackType

from modelstream.models.errors import InferenceError, InferenceTimeout, ModelUnavailable
from modelstream.operators.breaker import Breaker

__all__ = ["Circuit", "OneBatch"]

#: Time-outs in a row that a single bad row can cause: of a part, and of the half of it that the row is in; the other
#: half answers, before or after. The second of two halves makes it three.
_BY_ONE_ROW = 2


@dataclass(slots=True)
class _Trouble:
    """What went wrong with one model in one batch."""

    #: How often the model had answered when it first failed.
    n_answers: int
    #: Time-outs since it last answered, and how often it had answered then.
    n_timeouts: int = 0
    n_answers_before_timeouts: int = 0
    #: Parts of the batch that count as failed batches.
    n_failed_parts: int = 0


class OneBatch:
    """While it is entered, all calls of models belong to one batch.

    Examples
    --------
    >>> circuit = Circuit("delay", "1", max_failures=1)
    >>> circuit.still_answers = lambda: False
    >>> with OneBatch():
    ...     circuit.failed(InferenceError("delay", "1", "no"))  # the whole batch,
    ...     circuit.failed(InferenceError("delay", "1", "no"))  # its first half,
    ...     circuit.succeeded()  # and its second half
    >>> circuit.is_open
    False
    """

    def __init__(self) -> None:
        self.troubles: dict[Circuit, _Trouble] = {}
        #: Circuits that this batch probes.
        self.probing: set[Circuit] = set()
        self._token: Token[OneBatch | None] | None = None

    def __enter__(self) -> OneBatch:
        """Begin the batch."""
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the batch: what the models did is counted."""
        assert self._token is not None
        _current.reset(self._token)
        for circuit, trouble in self.troubles.items():
            circuit.batch_ended(trouble)


_current: ContextVar[OneBatch | None] = ContextVar("modelstream_batch", default=None)


class Circuit:
    """Says whether to ask a model. For any number of threads.

    Parameters
    ----------
    name, version : str
        The model.
    max_failures : int
        Failed batches in a row that open the circuit.
    rest_s : float
        Seconds until one batch may ask again, as a probe; its first answer closes the circuit.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        version: str,
        max_failures: int = 5,
        rest_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._version = name, version
        self._max_failures = max_failures
        self._breaker = Breaker(max_failures, rest_s, clock)
        self._lock = Lock()
        self._n_answers = 0
        self._troubled = False
        self._last = ""
        #: Asks the model about a row that it has answered to; None where there is none yet. Set by who calls it.
        self.still_answers: Callable[[], bool | None] = lambda: None

    @property
    def is_open(self) -> bool:
        """Whether the model is left alone, but for probes."""
        return self._breaker.is_open

    def admit(self) -> None:
        """Return if the model may be asked now; its answer is to be told by `succeeded` or `failed`.

        Raises
        ------
        ModelUnavailable
            It is left alone.
        """
        if not self._breaker.is_open:
            return
        batch = _current.get()
        with self._lock:
            if batch is not None and self in batch.probing:
                return
            if not self._breaker.allows():
                raise self.unavailable()
        if batch is not None:
            batch.probing.add(self)

    def unavailable(self) -> ModelUnavailable:
        """Return the error for rows that the model does not see."""
        problem = (
            f"is left alone after {self._max_failures} failed batches in a row, the last with: {self._last}; "
            f"it is tried again in {self._breaker.rests_s:.1f} s"
        )
        return ModelUnavailable(self._name, self._version, problem)

    def succeeded(self) -> None:
        """Note an answer."""
        # Not exact with several threads, nor need it be: what matters is whether it changes.
        self._n_answers += 1
        if self._troubled:
            with self._lock:
                self._breaker.succeeded()
                self._troubled = False

    def failed(self, error: InferenceError) -> None:
        """Note that a call failed."""
        self._last = error.problem
        batch = _current.get()
        if batch is None:
            self.batch_ended(_Trouble(self._n_answers, n_timeouts=int(isinstance(error, InferenceTimeout))))
            return
        trouble = batch.troubles.setdefault(self, _Trouble(self._n_answers))
        if isinstance(error, InferenceTimeout):
            self._timed_out(trouble, batch)

    def _timed_out(self, trouble: _Trouble, batch: OneBatch) -> None:
        if trouble.n_answers_before_timeouts != self._n_answers:
            trouble.n_answers_before_timeouts, trouble.n_timeouts = self._n_answers, 0
        trouble.n_timeouts += 1
        if trouble.n_timeouts > _BY_ONE_ROW and trouble.n_timeouts % 2:
            trouble.n_failed_parts += 1
            # A probe has seen enough.
            batch.probing.discard(self)
            self._count_failure()

    def batch_ended(self, trouble: _Trouble) -> None:
        """Count a batch in which calls failed, unless the model answers to some rows, of this batch or another one."""
        if trouble.n_answers != self._n_answers or trouble.n_failed_parts:
            return
        answers = self.still_answers()
        if answers is None:
            # It may be the rows: those that fail at once do no harm, those that hang do.
            answers = not trouble.n_timeouts
        if not answers:
            self._count_failure()

    def _count_failure(self) -> None:
        with self._lock:
            self._troubled = True
            self._breaker.failed()
