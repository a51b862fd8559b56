"""Rows at the edges of what can come, among harmless neighbours: what a model makes of them, and of the neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelstream.models.agreement import find_disagreement
from modelstream.models.contract import Column, ContractBreach, FieldSpec
from modelstream.models.errors import InferenceError
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.outputs import non_finite_rows
from modelstream.models.probe import EDGES, Edge, edge_columns, probed_fields, random_columns, take_rows

__all__ = ["EdgeResult", "Outcome", "edges_of", "predict_alone", "refuse_edge_surprises", "try_among", "try_edge"]

#: A graph may loop as often as a value says; at the edges that could be for hours.
_TIMEOUT_S = 2.0

#: Harmless rows before the edge rows.
_N_NEIGHBOURS = 3

#: What became of a row that was alone: its prediction, or why there is none.
Outcome = Mapping[str, Column] | InferenceError


@dataclass(frozen=True, slots=True)
class EdgeResult:
    """What a model made of rows of one edge.

    Parameters
    ----------
    edge : str
        Which edge.
    n_rows, n_failed, n_non_finite : int
        How many rows there were, on how many the model failed, and for how many it predicted something not finite.
    failure : str
        The first failure, or empty.
    problem : str
        How a prediction depended on its batch, or empty; a fault of the model.
    """

    edge: str
    n_rows: int
    n_failed: int
    n_non_finite: int
    failure: str = ""
    problem: str = ""


def edges_of(fields: Mapping[str, FieldSpec], examples: Mapping[str, object]) -> Iterator[Edge]:
    """Yield the edges that a model can be taken to.

    Parameters
    ----------
    fields : mapping of str to FieldSpec
        What it reads.
    examples : mapping of str to object
        Fields whose values it must know.
    """
    free = {field.dtype for name, field in fields.items() if name not in examples} - {"bool"}
    for edge in EDGES:
        if free - {"string"} if edge.text is None else "string" in free or (free and edge.text == ""):
            yield edge


def predict_alone(model: OnnxModel, columns: Mapping[str, Column], n_rows: int) -> list[Outcome]:
    """Return what the model makes of each row alone.

    Parameters
    ----------
    model : OnnxModel
        The model.
    columns : mapping of str to Column
        The rows.
    n_rows : int
        How many.
    """
    outcomes: list[Outcome] = []
    for row in range(n_rows):
        try:
            outcomes.append(model.predict(take_rows(columns, row, row + 1), 1))
        except InferenceError as error:
            outcomes.append(error)
    return outcomes


def try_among(
    model: OnnxModel, neighbours: Mapping[str, Column], columns: Mapping[str, Column], alone: Sequence[Outcome]
) -> tuple[list[int], Mapping[str, Column] | None, str]:
    """Predict harmless rows and the rows that worked alone in one batch, and look at the harmless ones.

    Parameters
    ----------
    model : OnnxModel
        The model.
    neighbours : mapping of str to Column
        The harmless rows.
    columns : mapping of str to Column
        The others.
    alone : sequence of Outcome
        What became of each of the others alone.

    Returns
    -------
    list of int
        Which of the others are in the batch.
    mapping of str to Column, or None
        What was predicted for these, in this order; None where the batch failed.
    str
        What is wrong, or empty: the batch failed, or a neighbour is predicted otherwise than alone.
    """
    rows = [row for row, outcome in enumerate(alone) if not isinstance(outcome, InferenceError)]
    joined = {name: _join(neighbours[name], column, rows) for name, column in columns.items()}
    n_neighbours = len(next(iter(neighbours.values())))
    try:
        together = model.predict(joined, n_neighbours + len(rows))
    except InferenceError as error:
        return rows, None, f"each works alone, but not together: {error.problem}"
    beside = predict_alone(model, neighbours, n_neighbours)
    usual = [one for one in beside if not isinstance(one, InferenceError)]
    found = find_disagreement(usual, take_rows(together, 0, n_neighbours)) if len(usual) == n_neighbours else None
    problem = f"a neighbour's {found.field} is {found.alone} alone and {found.together} beside them" if found else ""
    return rows, take_rows(together, n_neighbours, n_neighbours + len(rows)), problem


def try_edge(
    model: OnnxModel, fields: Mapping[str, FieldSpec], edge: Edge, n_rows: int, rng: np.random.Generator
) -> EdgeResult:
    """Predict rows of an edge, alone and in a batch with harmless rows.

    Parameters
    ----------
    model : OnnxModel
        The model; give it a timeout.
    fields : mapping of str to FieldSpec
        What it reads.
    edge : Edge
        Which edge.
    n_rows : int
        How many rows.
    rng : numpy.random.Generator
        Where the numbers come from.
    """
    examples = model.contract.examples
    neighbours = random_columns(fields, examples, _N_NEIGHBOURS, rng)
    columns = edge_columns(fields, examples, edge, n_rows, rng)
    alone = predict_alone(model, columns, n_rows)
    failures = [one for one in alone if isinstance(one, InferenceError)]
    predicted = {row: one for row, one in enumerate(alone) if not isinstance(one, InferenceError)}
    finite = {row: one for row, one in predicted.items() if not non_finite_rows(one)[0]}
    rows, together, problem = try_among(model, neighbours, columns, alone)
    if together is not None and edge.exact and not problem:
        # What is not finite is never passed on, so it may be anything.
        found = find_disagreement(list(finite.values()), together, [rows.index(row) for row in finite])
        if found is not None:
            problem = (
                f"{found.field} is {found.alone} alone and {found.together} in a batch of {_N_NEIGHBOURS + len(rows)}"
            )
    return EdgeResult(
        edge=edge.name,
        n_rows=n_rows,
        n_failed=len(failures),
        n_non_finite=len(predicted) - len(finite),
        failure=failures[0].problem if failures else "",
        problem=problem,
    )


def refuse_edge_surprises(model: OnnxModel) -> None:
    """Raise if a prediction at an edge depends on the batch; failing there is allowed.

    Parameters
    ----------
    model : OnnxModel
        The model.

    Raises
    ------
    ContractBreach
        If it does.
    """
    guarded = model.with_timeout(_TIMEOUT_S)
    fields = probed_fields(model.contract.inputs, model.contract.examples)
    rng = np.random.default_rng(0)
    for edge in edges_of(fields, model.contract.examples):
        if edge.exact:
            result = try_edge(guarded, fields, edge, 2, rng)
            if result.problem:
                raise ContractBreach(f"rows of {edge.name}: {result.problem}: predictions must not depend on the batch")


def _join(first: Column, second: Column, rows: Sequence[int]) -> Column:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second[list(rows)]])
    return [*first, *(second[row] for row in rows)]
