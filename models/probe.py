"""Rows to try a model with: random ones within reason, the edges of what can come, and numbers that are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ANY_WIDTH, NUMPY_DTYPES, Column, ContractBreach, FieldSpec, InputSpec
from modelstream.models.contract_file import CONTRACT_FILE
from modelstream.models.errors import did_you_mean

__all__ = [
    "EDGES",
    "TRIAL_WIDTHS",
    "Edge",
    "edge_columns",
    "probed_fields",
    "random_columns",
    "random_rows",
    "take_rows",
]

#: Two lengths for rows of any length: no short loop and no window of a filter is longer.
TRIAL_WIDTHS = (8, 13)

#: Stands for text that no training data had.
_UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER} unknown"


@dataclass(frozen=True, slots=True)
class Edge:
    """A kind of rows at the edge of what can come.

    Parameters
    ----------
    name : str
        What a person calls it.
    floats : callable
        Random numbers in [0, 1) to such numbers.
    integers : callable
        The same numbers, and the dtype, to such integers.
    text : str or None
        Such a text; None where text is as usual.
    exact : bool
        Whether a row must be predicted alone as among others. Of very large numbers, what is left after a
        cancellation depends on the order in which they are added.
    """

    name: str
    floats: Callable[[NDArray[Any]], NDArray[Any]]
    integers: Callable[[NDArray[Any], np.dtype[Any]], NDArray[Any]]
    text: str | None = None
    exact: bool = True


#: From harmless to extreme. Each has few rows, and its tolerance is its own: it has one magnitude.
EDGES = (
    Edge("zeros and empty text", lambda u: u * 0, lambda u, _: u * 0, ""),
    Edge("negative", lambda u: -u, lambda u, _: -1 - 9 * u),
    Edge("very small", lambda u: u * 1e-30, lambda u, _: u * 0 + 1),
    Edge("unknown text", lambda u: u, lambda u, _: 2 * u, _UNKNOWN_TEXT),
    Edge("very large", lambda u: (u - 0.5) * 2e6, lambda u, _: (u - 0.5) * 2e6, exact=False),
    Edge(
        "ends of the type",
        lambda u: np.where(u < 0.5, -3e38, 3e38),
        lambda u, dtype: np.where(u < 0.5, np.iinfo(dtype).min, np.iinfo(dtype).max),
        exact=False,
    ),
)


def probed_fields(inputs: Sequence[InputSpec], examples: Mapping[str, list[Any]]) -> dict[str, FieldSpec]:
    """Return the fields to fill, each with the pickiest type that a tensor reads it in.

    Parameters
    ----------
    inputs : sequence of InputSpec
        What the model reads.
    examples : mapping of str to list
        Values by field, from `model.toml`.

    Raises
    ------
    ContractBreach
        If there are examples of a field that the model does not read.
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
    return fields


def random_columns(
    fields: Mapping[str, FieldSpec],
    examples: Mapping[str, list[Any]],
    n_rows: int,
    rng: np.random.Generator,
    width: int = TRIAL_WIDTHS[0],
) -> dict[str, Column]:
    """Return rows of random values; those of a field with examples come from them, in turn.

    Floats lie between 0 and 1, where most functions are defined; integers are 0 or 1, which every embedding has.

    Parameters
    ----------
    fields : mapping of str to FieldSpec
        What to fill.
    examples : mapping of str to list
        Values to use instead, repeated as needed.
    n_rows : int
        How many rows.
    rng : numpy.random.Generator
        Where the numbers come from.
    width : int, optional
        Length of rows that may have any.

    Examples
    --------
    >>> fields = {"carrier": FieldSpec("carrier", "string")}
    >>> random_columns(fields, {"carrier": ["AA", "UA"]}, 3, np.random.default_rng(0))
    {'carrier': ['AA', 'UA', 'AA']}
    """
    return {
        name: _shown(examples[name], field, n_rows, width) if name in examples else _random(rng, field, n_rows, width)
        for name, field in fields.items()
    }


def random_rows(
    fields: Mapping[str, FieldSpec], examples: Mapping[str, list[Any]], n_rows: int, rng: np.random.Generator
) -> dict[str, Column]:
    """Return rows as `random_columns`, but with examples drawn for each field apart, so that few rows are equal.

    Equal rows make trees look up to four times faster than they are: the processor learns their way by heart.

    Parameters
    ----------
    fields : mapping of str to FieldSpec
        What to fill.
    examples : mapping of str to list
        Values to draw from.
    n_rows : int
        How many rows.
    rng : numpy.random.Generator
        Where the numbers come from.
    """
    drawn = {name: [values[i] for i in rng.integers(0, len(values), n_rows)] for name, values in examples.items()}
    return random_columns(fields, drawn, n_rows, rng)


def edge_columns(
    fields: Mapping[str, FieldSpec],
    examples: Mapping[str, list[Any]],
    edge: Edge,
    n_rows: int,
    rng: np.random.Generator,
) -> dict[str, Column]:
    """Return rows at an edge; fields with examples, whose values the model must know, stay within them.

    Parameters
    ----------
    fields : mapping of str to FieldSpec
        What to fill.
    examples : mapping of str to list
        Values by field.
    edge : Edge
        Which edge.
    n_rows : int
        How many rows.
    rng : numpy.random.Generator
        Where the numbers come from.
    """
    columns = random_columns(fields, examples, n_rows, rng)
    for name, field in fields.items():
        if name not in examples:
            columns[name] = _at_edge(field, edge, rng.random(_shape(field, n_rows, TRIAL_WIDTHS[0])), columns[name])
    return columns


def take_rows(columns: Mapping[str, Column], start: int, stop: int) -> dict[str, Column]:
    """Return some rows of columns.

    Parameters
    ----------
    columns : mapping of str to Column
        Columns.
    start, stop : int
        The first row, and the one after the last.
    """
    return {name: column[start:stop] for name, column in columns.items()}


def _shape(field: FieldSpec, n_rows: int, width: int) -> tuple[int, ...]:
    if field.width is None:
        return (n_rows,)
    return (n_rows, width if field.width == ANY_WIDTH else field.width)


def _shown(values: list[Any], field: FieldSpec, n_rows: int, width: int) -> list[Any]:
    rows = list(islice(cycle(values), n_rows))
    if field.width == ANY_WIDTH and all(isinstance(row, list) and row for row in rows):
        return [list(islice(cycle(row), width)) for row in rows]
    return rows


def _random(rng: np.random.Generator, field: FieldSpec, n_rows: int, width: int) -> Column:
    shape = _shape(field, n_rows, width)
    if field.dtype in ("float32", "float64"):
        return rng.random(shape).astype(NUMPY_DTYPES[field.dtype])
    numbers = rng.integers(0, 2, shape)
    if field.dtype == "string":
        return np.array(["a", "b"], dtype=object)[numbers]
    return numbers.astype(NUMPY_DTYPES[field.dtype])


def _at_edge(field: FieldSpec, edge: Edge, uniform: NDArray[Any], usual: Column) -> Column:
    dtype = NUMPY_DTYPES[field.dtype]
    if field.dtype == "string":
        return usual if edge.text is None else np.full(uniform.shape, edge.text, dtype=object)
    if field.dtype == "bool":
        return usual
    return (edge.floats(uniform) if dtype.kind == "f" else edge.integers(uniform, dtype)).astype(dtype)
