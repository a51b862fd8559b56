"""The trial at loading: a few rows through the model, alone and together, which must agree; it warms up as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import NUMPY_DTYPES, Column, ContractBreach, FieldSpec, InputSpec, OutputSpec
from modelstream.models.contract_file import CONTRACT_FILE
from modelstream.models.errors import did_you_mean
from modelstream.models.feed import build_feed
from modelstream.models.outputs import non_finite_rows, read_output
from modelstream.models.session import run_session

__all__ = ["Trial", "check_trial", "run_trial", "trial_columns"]

#: Odd and more than four, so that an axis fixed at 1, 2 or 4 shows; few, because a costly model pays for each.
TRIAL_ROWS = 5

#: Kernels sum in another order for another batch size. Relative to the largest of the trial's values, because what is
#: left after a cancellation is as inexact as what was cancelled.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model returned for the trial rows.

    Parameters
    ----------
    singles : list of mapping
        For each row the output tensors when it was alone.
    batch : mapping
        The output tensors of all rows together.
    """

    singles: list[dict[str, Any]]
    batch: dict[str, Any]


def trial_columns(inputs: Sequence[InputSpec], examples: Mapping[str, list[Any]]) -> dict[str, Column]:
    """Return the trial rows: the same ones at every loading.

    Floats lie between 0 and 1, where most functions are defined; integers are 0 or 1, which every embedding has.

    Parameters
    ----------
    inputs : sequence of InputSpec
        What the model reads.
    examples : mapping of str to list
        Values to use instead, repeated as needed.

    Raises
    ------
    ContractBreach
        If there are examples of a field that the model does not read.

    Examples
    --------
    >>> trial_columns([InputSpec("x", (FieldSpec("carrier", "string"),))], {"carrier": ["AA", "UA"]})
    {'carrier': ['AA', 'UA', 'AA', 'UA', 'AA']}
    """
    # Where several tensors read a field, the values must fit the pickiest: floats do not fit integers, these fit all.
    fields: dict[str, FieldSpec] = {}
    for field in (field for spec in inputs for field in spec.fields):
        if field.name not in fields or fields[field.name].dtype in ("float32", "float64"):
            fields[field.name] = field
    for name in examples:
        if name not in fields:
            problem = f"examples.{name}: the model reads no such field{did_you_mean(name, fields)}"
            raise ContractBreach(problem, CONTRACT_FILE)
    rng = np.random.default_rng(0)
    return {
        name: list(islice(cycle(examples[name]), TRIAL_ROWS)) if name in examples else _random(rng, field)
        for name, field in fields.items()
    }


def _random(rng: np.random.Generator, field: FieldSpec) -> Column:
    shape = (TRIAL_ROWS,) if field.width is None else (TRIAL_ROWS, field.width)
    if field.dtype in ("float32", "float64"):
        return rng.random(shape).astype(NUMPY_DTYPES[field.dtype])
    numbers = rng.integers(0, 2, shape)
    if field.dtype == "string":
        return np.array(["a", "b"], dtype=object)[numbers]
    return numbers.astype(NUMPY_DTYPES[field.dtype])


def run_trial(session: Any, inputs: Sequence[InputSpec], columns: Mapping[str, Column]) -> Trial:
    """Run the trial rows alone and together.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The model.
    inputs : sequence of InputSpec
        How its inputs are filled.
    columns : mapping of str to Column
        The trial rows.

    Raises
    ------
    ContractBreach
        If the examples do not fit, or the model fails on a row, or on all rows together.
    """
    names = [tensor.name for tensor in session.get_outputs()]
    try:
        rows = [build_feed(inputs, _rows(columns, row, row + 1), 1) for row in range(TRIAL_ROWS)]
        together = build_feed(inputs, columns, TRIAL_ROWS)
    except ContractBreach as error:
        raise ContractBreach(f"examples: {error}", CONTRACT_FILE) from None
    try:
        singles = [dict(zip(names, run_session(session, names, row), strict=True)) for row in rows]
    except ContractBreach as error:
        hint = "if it takes certain values only, list some under [examples] in model.toml"
        raise ContractBreach(f"fails on a trial row: {error}; {hint}") from None
    try:
        return Trial(singles, dict(zip(names, run_session(session, names, together), strict=True)))
    except ContractBreach as error:
        problem = f"takes 1 row but not {TRIAL_ROWS}, its batch axis is not really dynamic: {error}"
        raise ContractBreach(f"{problem}; export the model with a dynamic batch axis") from None


def _rows(columns: Mapping[str, Column], start: int, stop: int) -> dict[str, Column]:
    return {name: column[start:stop] for name, column in columns.items()}


def check_trial(outputs: Sequence[OutputSpec], trial: Trial) -> dict[str, Column]:
    """Check that a row's prediction does not depend on its neighbours, and return the predictions of the trial rows.

    Parameters
    ----------
    outputs : sequence of OutputSpec
        What the outputs mean.
    trial : Trial
        What the model returned.

    Raises
    ------
    ContractBreach
        If an output does not fit its meaning, differs between a row alone and among others, or is nowhere finite.
    """
    batch = {spec.field: read_output(spec, trial.batch[spec.tensor], TRIAL_ROWS) for spec in outputs}
    for spec in outputs:
        together = batch[spec.field]
        alone = [read_output(spec, single[spec.tensor], 1) for single in trial.singles]
        if isinstance(together, np.ndarray):
            same = (
                _close(together, np.concatenate(alone)) if _alike(together, alone) else np.zeros(TRIAL_ROWS, np.bool_)
            )
        else:
            same = np.array([one[0] == other for one, other in zip(alone, together, strict=True)])
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            raise ContractBreach(
                f"output {spec.tensor!r} of trial row {row} is {_short(alone[row][0])} alone and "
                f"{_short(together[row])} in a batch of {TRIAL_ROWS}: predictions must not depend on the batch"
            )
    if non_finite_rows(batch).all():
        raise ContractBreach("predicts nothing finite for any of the trial rows; its weights may be broken")
    return batch


def _alike(together: NDArray[Any], alone: list[Column]) -> bool:
    return all(isinstance(one, np.ndarray) and one.shape[1:] == together.shape[1:] for one in alone)


def _close(together: NDArray[Any], alone: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each row whether two results agree."""
    if together.dtype.kind != "f":
        same: NDArray[np.bool_] = together == alone
    else:
        finite = np.abs(together[np.isfinite(together)])
        tolerance = _ABSOLUTE + _RELATIVE * float(finite.max(initial=0))
        same = np.isclose(alone, together, rtol=0, atol=tolerance, equal_nan=True)
    return same if same.ndim == 1 else np.all(same, axis=1)


def _short(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)[:60]
