"""User functions: they are given a copy of the batch, and what they made of it is checked before it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import OperatorError
from modelstream.models.outputs import non_finite_rows
from modelstream.operators.batch import Column, EventBatch, Fault, ModelOutput
from modelstream.operators.faults import REASONS
from modelstream.operators.late_events import LateEvents

__all__ = ["call_user_function", "checked_column"]

_BIGGEST_NUMBER_BYTES = 8


def call_user_function(
    step_id: str, function: Callable[[EventBatch], Any], batch: EventBatch
) -> tuple[EventBatch, Any]:
    """Call a user's function with a copy of a batch, and return the copy as it left it, and what it returned.

    So where it raises nothing has changed, and it can be called again on parts of the batch. Only what lies deeper in
    the events is not copied.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    function : callable
        It may add and change columns and outputs, reject and filter. Keys, ids, times and the number of rows stay.
    batch : EventBatch
        What the function is about.

    Returns
    -------
    batch : EventBatch
        With the changes.
    returned : object
        What the function returned; None where that was the batch that it was given.

    Raises
    ------
    OperatorError
        What it left is no batch any more: columns or outputs that are none, or other rows.

    Examples
    --------
    >>> def double(batch):
    ...     batch.columns["x"] *= 2
    >>> batch = EventBatch.of_events([{}, {}])
    >>> batch.columns["x"] = np.array([1, 2])
    >>> changed, _ = call_user_function("double", double, batch)
    >>> changed.columns["x"], batch.columns["x"]
    (array([2, 4]), array([1, 2]))
    """
    lent = _copy(batch)
    outputs_before = dict(lent.outputs)
    returned = function(lent)
    n_rows = len(batch)
    _check_rows(step_id, lent, n_rows)
    columns = {name: checked_column(step_id, name, column, n_rows) for name, column in lent.columns.items()}
    outputs = {name: _checked_output(step_id, name, output, n_rows) for name, output in lent.outputs.items()}
    bad = {
        name: _newly_bad(output, batch.outputs[name] if lent.outputs[name] is outputs_before.get(name) else None)
        for name, output in outputs.items()
    }
    changed = replace(
        batch, events=lent.events, columns=columns, outputs=outputs, faults=lent.faults, status=lent.status
    )
    for name, rows in bad.items():
        changed.reject_where(rows, Fault(step_id, "non_finite", f"output {name!r} is not finite"))
    return changed, None if returned is lent else returned


def checked_column(step_id: str, name: Any, column: Any, n_rows: int) -> Column:
    """Return a column that a user's function made, once it is sure that it is one.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    name, column : object
        What the function calls it, and what it made.
    n_rows : int
        How many rows it must have.

    Raises
    ------
    OperatorError
        The name is no text, or the column is neither numbers nor text, or has other rows.
    """
    if not isinstance(name, str):
        raise OperatorError(step_id, f"a column's name is {name!r}, not text")
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "UO":
        column = column.tolist()
    if not isinstance(column, np.ndarray | list):
        raise OperatorError(step_id, f"column {name!r} is {_kind(column)}, neither an array nor a list")
    n_found = len(column) if isinstance(column, list) or column.ndim else 0
    if n_found != n_rows:
        raise OperatorError(step_id, f"column {name!r} has {n_found} rows for {n_rows} events")
    if isinstance(column, list):
        return _checked_list(step_id, name, column)
    if column.dtype.kind not in "biufMO":
        raise OperatorError(step_id, f"column {name!r} is an array of {column.dtype}")
    if column.dtype.kind == "f" and column.itemsize > _BIGGEST_NUMBER_BYTES:
        return column.astype(np.float64)  # neither JSON nor ONNX has wider ones
    return column if column.dtype.isnative else column.astype(column.dtype.newbyteorder("="))


def _copy(batch: EventBatch) -> EventBatch:
    return replace(
        batch,
        keys=batch.keys.copy(),
        ids=batch.ids.copy(),
        event_times=batch.event_times.copy(),
        events=batch.events.copy() if isinstance(batch.events, LateEvents) else list(map(dict.copy, batch.events)),
        columns={name: column.copy() for name, column in batch.columns.items()},
        outputs={name: output.copy() for name, output in batch.outputs.items()},
        faults=dict(batch.faults),
        status=None if batch.status is None else batch.status.copy(),
    )


def _check_rows(step_id: str, lent: EventBatch, n_rows: int) -> None:
    """Check what the function left of the rows themselves: their number, their status, and why some were rejected."""
    if len(lent.events) != n_rows:
        raise OperatorError(step_id, f"the function left {len(lent.events)} events of {n_rows}; call filter_out()")
    if lent.status is not None and (lent.status.shape != (n_rows,) or lent.status.dtype != np.uint8):
        raise OperatorError(step_id, "the function replaced the status; call reject() or filter_out()")
    for fault in lent.faults.values():
        if not isinstance(fault, Fault) or not all(
            isinstance(part, str) for part in (fault.stage, fault.reason, fault.detail)
        ):
            raise OperatorError(step_id, f"the function rejected an event for {fault!r}, which is no Fault of texts")
        if fault.reason not in REASONS:
            raise OperatorError(step_id, f"{fault.reason!r} is no reason to reject an event; {', '.join(REASONS)} are")


def _checked_output(step_id: str, name: Any, output: Any, n_rows: int) -> ModelOutput:
    if not isinstance(name, str) or not isinstance(output, ModelOutput) or not output.fields:
        raise OperatorError(step_id, f"output {name!r} is no ModelOutput with fields, under a name that is text")
    versions = [output.version] if isinstance(output.version, str) else output.version
    if not isinstance(versions, list) or not all(isinstance(version, str) for version in versions):
        raise OperatorError(step_id, f"the version of output {name!r} is {output.version!r}, not text")
    if versions is output.version and len(versions) != n_rows:
        raise OperatorError(step_id, f"output {name!r} has {len(versions)} versions for {n_rows} events")
    answered = output.answered
    if answered is not None and (
        not isinstance(answered, np.ndarray) or answered.dtype != np.bool_ or answered.shape != (n_rows,)
    ):
        raise OperatorError(step_id, f"answered of output {name!r} is not {n_rows} times true or false")
    for key in output.fields:
        if not isinstance(key, str):
            raise OperatorError(step_id, f"a field of output {name!r} is called {key!r}, not text")
    fields = {key: checked_column(step_id, f"{name}.{key}", column, n_rows) for key, column in output.fields.items()}
    return replace(output, fields=fields)


def _newly_bad(output: ModelOutput, before: ModelOutput | None) -> NDArray[np.bool_]:
    """Return which rows are not finite that were asked about, and not let through as such by the model's stage."""
    bad = non_finite_rows(output.fields)
    if output.answered is not None:
        bad &= output.answered
    return bad if before is None else bad & ~non_finite_rows(before.fields)


def _checked_list(step_id: str, name: str, column: list[Any]) -> list[Any]:
    try:
        "".join(column)  # Raises where one is not text; the cheapest check there is.
    except TypeError:
        kinds = " and ".join(sorted({_kind(value) for value in column}))
        raise OperatorError(
            step_id, f"column {name!r} is a list of {kinds}; lists are for text, numbers are arrays"
        ) from None
    return column


def _kind(value: object) -> str:
    return type(value).__name__
