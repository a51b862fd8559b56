"""What an operator is, and how a stage runs one so that a bad row never hurts its neighbours."""

from __future__ import annotations

from typing import Protocol

from modelstream.models.errors import InferenceError, ModelStreamError, ModelUnavailable
from modelstream.operators.batch import EventBatch, Fault, Settled
from modelstream.operators.circuit import OneBatch

__all__ = ["Operator", "run_isolated"]


class Operator(Protocol):
    """Event batch in, event batch out: synchronous, and called off the event loop.

    It may change the batch in place, add columns or outputs, mark rows with `EventBatch.reject` or
    `EventBatch.filter_out`; it never removes or reorders rows. Every row it gets is kept. What it raises is pinned on
    single rows by `run_isolated`.
    """

    @property
    def step_id(self) -> str:
        """Name of the stage, as in the pipeline file."""
        ...

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Process a batch."""
        ...


def run_isolated(operator: Operator, batch: EventBatch) -> Settled:
    """Run an operator; where it raises, halve the batch until only the rows that make it fail are rejected.

    One failing row among n costs at most 2·log₂(n) + 1 calls. Both halves are tried before one of them is halved again,
    so that a model which answers to one of them is known to answer; where a model is left alone for now, the rows that
    need it are rejected as they are. See `modelstream.operators.circuit`.

    Parameters
    ----------
    operator : Operator
        The operator. It must not keep state from a call that raised.
    batch : EventBatch
        Rows, all of them kept.

    Returns
    -------
    Settled
        The kept rows in their order, and what became of the others.

    Raises
    ------
    ModelStreamError
        A transient one, as it came: it says nothing about the rows.
    """
    if not len(batch):
        return batch.settle()
    with OneBatch():
        settled = _try(operator, batch)
        return settled if isinstance(settled, Settled) else _halved(operator, batch, settled)


def _try(operator: Operator, batch: EventBatch) -> Settled | BaseException:
    """Return what became of the rows, or why the operator failed."""
    try:
        return operator(batch).settle()
    # SystemExit: a user's function that gives up on one event must not end the worker.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModelStreamError) and not error.permanent:
            raise
        return error


def _halved(operator: Operator, batch: EventBatch, error: BaseException) -> Settled:
    """Return what became of the rows of a batch that the operator fails on."""
    if len(batch) == 1 or isinstance(error, ModelUnavailable):
        return _rejected(batch, _fault(operator.step_id, error))
    middle = len(batch) // 2
    halves = [batch.select(slice(0, middle)), batch.select(slice(middle, len(batch)))]
    tried = [_try(operator, half) for half in halves]
    parts = [
        part if isinstance(part, Settled) else _halved(operator, half, part)
        for half, part in zip(halves, tried, strict=True)
    ]
    return Settled.concat(parts)


def _rejected(batch: EventBatch, fault: Fault) -> Settled:
    for row in range(len(batch)):
        batch.reject(row, fault)
    return batch.settle()


def _fault(step_id: str, error: BaseException) -> Fault:
    reason = "operator_failed"
    if isinstance(error, InferenceError):
        reason = "model_unavailable" if isinstance(error, ModelUnavailable) else "model_failed"
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # a user's exception, which may raise even when asked what it says
        text = ""
    if text and not isinstance(error, ModelStreamError):
        # What a function of the user's raises often says little without its kind, a KeyError nothing but the key.
        text = f"{name}: {text}"
    return Fault(step_id, reason, text or name, name)
