"""The trial at loading: a few rows through the model, alone and together, which must agree; it warms up as well."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelstream.models.agreement import find_disagreement
from modelstream.models.contract import ANY_WIDTH, Column, ContractBreach, FieldSpec, InputSpec, OutputSpec
from modelstream.models.contract_file import CONTRACT_FILE
from modelstream.models.feed import build_feed
from modelstream.models.outputs import non_finite_rows, read_output
from modelstream.models.probe import TRIAL_WIDTHS, probed_fields, random_columns, take_rows
from modelstream.models.session import run_rows, run_session

__all__ = ["TRIAL_ROWS", "Trial", "check_trial", "padding_is_neutral", "run_trial", "run_trials"]

#: Odd and more than four, so that an axis fixed at 1, 2 or 4 shows; few, because a costly model pays for each.
TRIAL_ROWS = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model returned for the trial rows.

    Parameters
    ----------
    columns : mapping
        The trial rows.
    singles : list of mapping
        For each row the output tensors when it was alone.
    batch : mapping
        The output tensors of all rows together.
    seconds : float
        What a call with a single row took, at best.
    """

    columns: dict[str, Column]
    singles: list[dict[str, Any]]
    batch: dict[str, Any]
    seconds: float


def run_trials(
    session: Any, inputs: Sequence[InputSpec], examples: Mapping[str, list[Any]], row_by_row: bool = False
) -> list[Trial]:
    """Run the trial rows, the same ones at every loading; where rows may have any length, with two lengths.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The model.
    inputs : sequence of InputSpec
        How its inputs are filled.
    examples : mapping of str to list
        Values of `model.toml` to use instead of random ones, repeated as needed.
    row_by_row : bool, optional
        Whether the model takes one row at a time.

    Raises
    ------
    ContractBreach
        If the examples do not fit, or the model fails on a row, or on all rows together, or on one of the lengths.
    """
    fields = probed_fields(inputs, examples)
    trials: list[Trial] = []
    for width in TRIAL_WIDTHS if _is_ragged(fields) else TRIAL_WIDTHS[:1]:
        columns = random_columns(fields, examples, TRIAL_ROWS, np.random.default_rng(0), width)
        try:
            trials.append(run_trial(session, inputs, columns, row_by_row))
        except ContractBreach as error:
            if not trials:
                raise
            problem = f"takes rows of {TRIAL_WIDTHS[0]} values but not of {width}: {error}"
            raise ContractBreach(f"{problem}; export the model with a dynamic second axis", error.file) from None
    return trials


def run_trial(session: Any, inputs: Sequence[InputSpec], columns: dict[str, Column], row_by_row: bool = False) -> Trial:
    """Run trial rows alone and together.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The model.
    inputs : sequence of InputSpec
        How its inputs are filled.
    columns : dict of str to Column
        The trial rows.
    row_by_row : bool, optional
        Whether the model takes one row at a time.

    Raises
    ------
    ContractBreach
        If the examples do not fit, or the model fails on a row, or on all rows together.
    """
    names = [tensor.name for tensor in session.get_outputs()]
    try:
        rows = [build_feed(inputs, take_rows(columns, row, row + 1), 1) for row in range(TRIAL_ROWS)]
        together = build_feed(inputs, columns, TRIAL_ROWS)
    except ContractBreach as error:
        raise ContractBreach(f"examples: {error}", CONTRACT_FILE) from None
    singles, seconds = [], []
    try:
        for row in rows:
            start = time.perf_counter()
            results = run_session(session, names, row)
            seconds.append(time.perf_counter() - start)
            singles.append(dict(zip(names, results, strict=True)))
    except ContractBreach as error:
        hint = "if it takes certain values only, list some under [examples] in model.toml"
        raise ContractBreach(f"fails on a trial row: {error}; {hint}") from None
    if row_by_row:
        batch = run_rows(session, names, together)
        return Trial(columns, singles, dict(zip(names, batch, strict=True)), min(seconds))
    try:
        batch = run_session(session, names, together)
    except ContractBreach as error:
        problem = f"takes 1 row but not {TRIAL_ROWS}, its batch axis is not really dynamic: {error}"
        raise ContractBreach(f"{problem}; export the model with a dynamic batch axis") from None
    return Trial(columns, singles, dict(zip(names, batch, strict=True)), min(seconds))


def check_trial(outputs: Sequence[OutputSpec], trials: Sequence[Trial]) -> dict[str, Column]:
    """Check that a row's prediction does not depend on its neighbours, and return the predictions of the trial rows.

    Parameters
    ----------
    outputs : sequence of OutputSpec
        What the outputs mean.
    trials : sequence of Trial
        What the model returned.

    Returns
    -------
    dict of str to Column
        The predictions of the first trial.

    Raises
    ------
    ContractBreach
        If an output does not fit its meaning, differs between a row alone and among others, is nowhere finite, or is
        as long as the row is.
    """
    predictions = [_check_one(outputs, trial) for trial in trials]
    for spec in outputs:
        shapes = {np.shape(predicted[spec.field])[1:] for predicted in predictions}
        if len(shapes) > 1:
            raise ContractBreach(
                f"output {spec.tensor!r} is as long as the row is; only outputs of one size can be read"
            )
    return predictions[0]


def _check_one(outputs: Sequence[OutputSpec], trial: Trial) -> dict[str, Column]:
    batch = {spec.field: read_output(spec, trial.batch[spec.tensor], TRIAL_ROWS) for spec in outputs}
    alone = [{spec.field: read_output(spec, one[spec.tensor], 1) for spec in outputs} for one in trial.singles]
    found = find_disagreement(alone, batch)
    if found is not None:
        tensor = next(spec.tensor for spec in outputs if spec.field == found.field)
        raise ContractBreach(
            f"output {tensor!r} of trial row {found.row} is {found.alone} alone and "
            f"{found.together} in a batch of {TRIAL_ROWS}: predictions must not depend on the batch"
        )
    if non_finite_rows(batch).all():
        raise ContractBreach("predicts nothing finite for any of the trial rows; its weights may be broken")
    return batch


def padding_is_neutral(
    session: Any, inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec], trial: Trial, row_by_row: bool = False
) -> bool:
    """Return whether zeros, or empty text, at the end of rows of any length leave the predictions as they are.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The model.
    inputs : sequence of InputSpec
        How its inputs are filled.
    outputs : sequence of OutputSpec
        What the outputs mean.
    trial : Trial
        The shorter of its trials.
    row_by_row : bool, optional
        Whether the model takes one row at a time.

    Returns
    -------
    bool
        True where no field may have any length.
    """
    fields = probed_fields(inputs, {})
    if not _is_ragged(fields):
        return True
    padded = {
        name: _pad(column, fields[name]) if fields[name].width == ANY_WIDTH else column
        for name, column in trial.columns.items()
    }
    names = [spec.tensor for spec in outputs]
    run = run_rows if row_by_row else run_session
    try:
        results = dict(zip(names, run(session, names, build_feed(inputs, padded, TRIAL_ROWS)), strict=True))
    except ContractBreach:
        return False
    predicted = {spec.field: read_output(spec, results[spec.tensor], TRIAL_ROWS) for spec in outputs}
    alone = [{spec.field: read_output(spec, one[spec.tensor], 1) for spec in outputs} for one in trial.singles]
    return find_disagreement(alone, predicted) is None


def _pad(column: Column, field: FieldSpec) -> Column:
    array = np.asarray(column, object if field.dtype == "string" else None)
    fill = np.full((len(array), TRIAL_WIDTHS[1] - TRIAL_WIDTHS[0]), "" if field.dtype == "string" else 0, array.dtype)
    return np.concatenate([array, fill], axis=1)


def _is_ragged(fields: Mapping[str, FieldSpec]) -> bool:
    return any(field.width == ANY_WIDTH for field in fields.values())
