"""What an operator is, and how a stage runs one so that a bad row never hurts its neighbours."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from modelstream.models.errors import InferenceError, ModelStreamError
from modelstream.operators.batch import EventBatch, Fault, Settled

__all__ = ["Operator", "run_isolated"]


_RAGGED = "the stage makes other columns of some events than of others"


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

    One failing row among n costs at most 2·log₂(n) + 1 calls.

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
    try:
        return operator(batch).settle()
    # SystemExit: a user's function that gives up on one event must not end the worker.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModelStreamError) and not error.permanent:
            raise
        if len(batch) == 1:
            batch.reject(0, _fault(operator.step_id, error))
            return batch.settle()
        middle = len(batch) // 2
        rows = np.arange(len(batch))
        halves = [run_isolated(operator, batch.select(half)) for half in (rows[:middle], rows[middle:])]
    try:
        return Settled.concat(halves)
    except (LookupError, TypeError, ValueError) as error:
        # Other columns, or columns of another shape, for one half than for the other: no batch can be made of them.
        for row in range(len(batch)):
            batch.reject(row, Fault(operator.step_id, "operator_failed", _RAGGED, type(error).__name__))
        return batch.settle()


def _fault(step_id: str, error: BaseException) -> Fault:
    reason = "model_failed" if isinstance(error, InferenceError) else "operator_failed"
    name = type(error).__name__
    return Fault(step_id, reason, str(error) or name, name)
