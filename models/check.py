"""The whole check of a model version: its contract, its edges, what it makes of NaN, and its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelstream.models.agreement import find_disagreement, largest_difference
from modelstream.models.contract import Column, FieldSpec, ModelContract
from modelstream.models.edges import EdgeResult, Outcome, edges_of, predict_alone, try_among, try_edge
from modelstream.models.errors import InferenceError
from modelstream.models.loading import load_model
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.outputs import non_finite_rows
from modelstream.models.pricing import PRICE_SIZES, Price, measure_price
from modelstream.models.probe import probed_fields, random_columns, random_rows, take_rows

__all__ = ["CheckReport", "NonFiniteResult", "check_model"]

#: For a single call of the check: a graph may loop as often as a value says.
_TIMEOUT_S = 10.0

_EDGE_ROWS = 4

#: Batches in which rows are compared bit by bit: kernels take four, eight or sixteen rows together, and the rest apart.
_BATCH_SIZES = (2, 3, 4, 7, 8, 16, 33)

#: Values in the largest call that is measured: with their copies some 500 MB.
_MAX_VALUES = 20_000_000

_NON_FINITE: Mapping[str, float] = {"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf}


@dataclass(frozen=True, slots=True)
class NonFiniteResult:
    """What a model makes of an input that is no finite number, one field at a time.

    Parameters
    ----------
    value : str
        ``NaN``, ``infinity`` or ``-infinity``.
    propagates : tuple of str
        Fields for which the prediction is not finite either.
    hides : tuple of str
        Fields for which it is finite, so that nobody would know.
    fails : tuple of str
        Fields for which the model fails.
    problem : str
        How such a row changed its neighbours, or empty.
    """

    value: str
    propagates: tuple[str, ...]
    hides: tuple[str, ...]
    fails: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found out about a model version that keeps its contract, as far as loading can tell.

    Parameters
    ----------
    contract : ModelContract
        What it reads and returns.
    provider : str
        What it ran on.
    n_rows : int
        Random rows that were predicted alone and together.
    row_difference : float or None
        The most by which a number of a row differs alone and in batches of several sizes, 0 where its bits are always
        the same; None where the rows do not agree, or could not be predicted.
    edges : tuple of EdgeResult
        What it made of the edges.
    non_finite : tuple of NonFiniteResult
        What it makes of NaN and infinity; empty where it reads no floats.
    price : Price or None
        The cost curve; None where a prediction failed.
    notes : tuple of str
        What works but could be better.
    problems : tuple of str
        What is wrong; empty if all is well.
    """

    contract: ModelContract
    provider: str
    n_rows: int
    row_difference: float | None
    edges: tuple[EdgeResult, ...]
    non_finite: tuple[NonFiniteResult, ...]
    price: Price | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def check_model(
    models_dir: Path, reference: str, *, provider: str = "cpu", n_rows: int = 64, path: str = ""
) -> CheckReport:
    """Load a model version and look at it closely; it takes some seconds.

    Parameters
    ----------
    models_dir : Path
        Directory of models.
    reference : str
        ``NAME@VERSION``, or ``NAME`` for the highest version.
    provider : str, optional
        What to run it on.
    n_rows : int, optional
        Random rows to predict alone and together.
    path : str, optional
        Where the reference stands, for a `ConfigError`.

    Raises
    ------
    ConfigError
        If there is no such model, version or provider.
    ModelLoadError
        If it does not keep its contract.
    """
    model = load_model(models_dir, reference, path=path, provider=provider)
    guarded = model.with_timeout(_TIMEOUT_S)
    fields = probed_fields(model.contract.inputs, model.contract.examples)
    rng = np.random.default_rng(0)
    problem, row_difference = _check_rows(guarded, fields, n_rows, rng)
    edges = tuple(
        try_edge(guarded, fields, edge, _EDGE_ROWS, rng) for edge in edges_of(fields, model.contract.examples)
    )
    non_finite = tuple(_try_non_finite(guarded, fields, name, rng) for name in _NON_FINITE if _floats(fields))
    price: Price | None = None
    sizes = _price_sizes(fields)
    try:
        pool = random_rows(fields, model.contract.examples, 2 * sizes[-1], rng)
        price = measure_price(model, pool, 2 * sizes[-1], sizes)
    except InferenceError as error:
        problem = problem or f"fails on random rows: {error.problem}"
    problems = [problem, *(_told(f"rows of {one.edge}", one.problem) for one in edges)]
    problems += [_told(f"rows with {one.value}", one.problem) for one in non_finite]
    return CheckReport(
        contract=model.contract,
        provider=provider,
        n_rows=n_rows,
        row_difference=row_difference,
        edges=edges,
        non_finite=non_finite,
        price=price,
        notes=model.notes,
        problems=tuple(filter(None, problems)),
    )


def _price_sizes(fields: Mapping[str, FieldSpec]) -> tuple[int, ...]:
    """Return how many rows a measured call may have, so that the rows fit into memory."""
    values = sum(max(field.width or 1, 1) for field in fields.values())
    return tuple(size for size in PRICE_SIZES if size == 1 or size * values <= _MAX_VALUES)


def _told(where: str, problem: str) -> str:
    return f"{where}: {problem}" if problem else ""


def _check_rows(
    model: OnnxModel, fields: Mapping[str, FieldSpec], n_rows: int, rng: np.random.Generator
) -> tuple[str, float | None]:
    """Return how a random row's prediction depends on the others, or the empty string; and the largest difference."""
    columns = random_rows(fields, model.contract.examples, n_rows, rng)
    try:
        together = model.predict(columns, n_rows)
    except InferenceError as error:
        return f"fails on {n_rows} random rows: {error.problem}", None
    alone: list[Mapping[str, Column]] = []
    for outcome in predict_alone(model, columns, n_rows):
        if isinstance(outcome, InferenceError):
            return f"fails on random row {len(alone)} alone: {outcome.problem}", None
        alone.append(outcome)
    problem = _told_disagreement(alone, together, n_rows)
    if problem:
        return problem, None
    difference = largest_difference(alone, together)
    for size in _BATCH_SIZES:
        n_whole = n_rows // size * size
        try:
            parts = [model.predict(take_rows(columns, i, i + size), size) for i in range(0, n_whole, size)]
        except InferenceError as error:
            return f"fails on {size} random rows: {error.problem}", None
        if parts:
            joined = {field: _joined([part[field] for part in parts]) for field in parts[0]}
            problem = _told_disagreement(alone[:n_whole], joined, size)
            if problem:
                return problem, None
            difference = max(difference, largest_difference(alone[:n_whole], joined))
    return "", difference


def _told_disagreement(alone: Sequence[Mapping[str, Column]], together: Mapping[str, Column], size: int) -> str:
    found = find_disagreement(alone, together)
    if found is None:
        return ""
    return f"random row {found.row}: {found.field} is {found.alone} alone and {found.together} in a batch of {size}"


def _joined(columns: Sequence[Column]) -> Column:
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    return np.concatenate(arrays) if arrays else [value for column in columns for value in column]


def _try_non_finite(
    model: OnnxModel, fields: Mapping[str, FieldSpec], value: str, rng: np.random.Generator
) -> NonFiniteResult:
    """Predict rows that are random but for one field each."""
    names = _floats(fields)
    examples = model.contract.examples
    columns = random_columns(fields, examples, len(names), rng)
    for row, name in enumerate(names):
        column = np.array(columns[name], np.float64)
        column[row] = _NON_FINITE[value]
        columns[name] = column
    neighbours = random_columns(fields, examples, 3, rng)
    alone = predict_alone(model, columns, len(names))
    as_arrays = {name: np.asarray(one) if name in names else one for name, one in neighbours.items()}
    _, _, problem = try_among(model, as_arrays, columns, alone)
    fates = [_fate(outcome) for outcome in alone]
    propagates, hides, fails = (
        tuple(name for name, fate in zip(names, fates, strict=True) if fate == wanted)
        for wanted in ("propagates", "hides", "fails")
    )
    return NonFiniteResult(value, propagates, hides, fails, problem)


def _fate(outcome: Outcome) -> str:
    if isinstance(outcome, InferenceError):
        return "fails"
    return "propagates" if non_finite_rows(outcome)[0] else "hides"


def _floats(fields: Mapping[str, FieldSpec]) -> list[str]:
    return [name for name, field in fields.items() if field.dtype in ("float32", "float64")]
