"""Ensembles: one answer made of several models' answers, by averaging or voting, column by column.

The arithmetic is fixed, so that a few lines of NumPy give the same bits. An average is summed in float64, member by
member in their order, then divided by the number of members, or by the sum of the weights, and rounded once, to the
members' own type. Votes are counted in float64, and the share is rounded to float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.models.errors import ConfigError
from modelstream.operators.answers import Fields

if TYPE_CHECKING:
    from modelstream.operators.model_call import ScoringModel

__all__ = ["Combiner", "Ensemble", "average", "is_label", "joined_version", "majority"]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How one answer is made of several.

    Parameters
    ----------
    name : str
        What it stands under.
    mode : {"mean", "weighted", "vote", "stack"}
        Average, average with weights, majority of the labels, or a model that reads the members' answers.
    members : tuple of str
        Names of models, ensembles or cascades of the same stage.
    weights : tuple of float
        Of ``weighted``: one for each member.
    model : ScoringModel, optional
        Of ``stack``: the model.
    """

    name: str
    mode: Literal["mean", "weighted", "vote", "stack"]
    members: tuple[str, ...]
    weights: tuple[float, ...] = ()
    model: ScoringModel | None = None


def is_label(column: Column) -> bool:
    """Say whether an output field holds labels, which are voted on: text, or one integer a row."""
    return isinstance(column, list) or column.dtype == object or (column.ndim == 1 and column.dtype.kind in "biu")


def average(columns: Sequence[NDArray[Any]], weights: Sequence[float]) -> NDArray[Any]:
    """Return the average of numbers.

    Parameters
    ----------
    columns : sequence of ndarray, shape (n_rows,) or (n_rows, n_values)
        Numbers of one shape.
    weights : sequence of float
        One for each column.

    Returns
    -------
    ndarray
        In the columns' type, the widest where they differ; integers give float64.

    Examples
    --------
    >>> average([np.array([1.0, 2.0], np.float32), np.array([3.0, 2.5], np.float32)], [1, 1])
    array([2.  , 2.25], dtype=float32)
    """
    dtype = np.result_type(*columns)
    # A number too large for its type becomes infinite, and its row is rejected.
    with np.errstate(all="ignore"):
        total = columns[0].astype(np.float64) if weights[0] == 1 else weights[0] * columns[0].astype(np.float64)
        for column, weight in zip(columns[1:], weights[1:], strict=True):
            total += column if weight == 1 else weight * column.astype(np.float64)
        total /= float(sum(weights))
        return total.astype(dtype if dtype.kind == "f" else np.float64, copy=False)


def majority(columns: Sequence[Column], weights: Sequence[float]) -> tuple[Column, NDArray[np.float32]]:
    """Return the label with the most votes, of equals that of the first member named, and its share of the votes.

    Parameters
    ----------
    columns : sequence of Column, n_rows entries each
        Labels: all text, or all integers.
    weights : sequence of float
        Votes of each column.

    Examples
    --------
    >>> majority([["late", "late"], ["on time", "late"], ["on time", "early"]], [1, 1, 1])
    (['on time', 'late'], array([0.6666667, 0.6666667], dtype=float32))
    """
    text = isinstance(columns[0], list)
    labels = np.stack([np.fromiter(one, object, len(one)) if isinstance(one, list) else one for one in columns])
    votes = np.zeros(labels.shape, np.float64)
    for row, mine in zip(votes, labels, strict=True):
        for other, weight in zip(labels, weights, strict=True):
            row += np.where(mine == other, float(weight), 0.0)
    winner = votes.argmax(axis=0)  # the first of equals
    rows = np.arange(labels.shape[1])
    share = (votes[winner, rows] / float(sum(weights))).astype(np.float32)
    won: Column = labels[winner, rows]
    return (won.tolist() if text and isinstance(won, np.ndarray) else won), share


class Combiner:
    """Makes the answer of an ensemble out of its members' answers.

    Parameters
    ----------
    ensemble : Ensemble
        One of the modes ``mean``, ``weighted``, ``vote``.
    samples : sequence of mapping of str to Column
        For each member, how its fields look: any number of rows.

    Raises
    ------
    ConfigError
        The members' answers do not go together.
    """

    def __init__(self, ensemble: Ensemble, samples: Sequence[Fields]) -> None:
        self._ensemble = ensemble
        self._weights = ensemble.weights or (1.0,) * len(ensemble.members)
        shared = [name for name in samples[0] if all(name in sample for sample in samples)]
        columns = {name: [sample[name] for sample in samples] for name in shared}
        for name, each in columns.items():
            self._check(name, each)
        self._labels = tuple(name for name, each in columns.items() if is_label(each[0]))
        self._numbers = tuple(name for name in shared if name not in self._labels)
        self._order = tuple(shared)
        path = f"ensembles.{ensemble.name}"
        told = "; ".join(f"{member}: {', '.join(s)}" for member, s in zip(ensemble.members, samples, strict=True))
        if ensemble.mode == "vote" and len(self._labels) != 1:
            raise ConfigError(path, f"vote needs members with one label field in common; they answer {told}")
        if not shared:
            raise ConfigError(path, f"its members have no output field in common; they answer {told}")

    def _check(self, name: str, columns: Sequence[Column]) -> None:
        kinds = {_kind(column) for column in columns}
        if len(kinds) > 1:
            raise ConfigError(
                f"ensembles.{self._ensemble.name}",
                f"field {name!r} is {' and '.join(sorted(kinds))} in its members' answers; give the fields other names",
            )

    def __call__(self, answers: Sequence[Fields]) -> dict[str, Column]:
        """Return the fields of the ensemble: of a vote the label and its share as ``score``, else all shared fields."""
        if self._ensemble.mode == "vote":
            [name] = self._labels
            label, share = majority([fields[name] for fields in answers], self._weights)
            return {name: label, "score": share}
        return {name: self._combined(name, [fields[name] for fields in answers]) for name in self._order}

    def _combined(self, name: str, columns: Sequence[Any]) -> Column:
        if name in self._labels:
            return majority(columns, self._weights)[0]
        return average(columns, self._weights)


def _kind(column: Column) -> str:
    if isinstance(column, list) or column.dtype == object:
        return "text"
    if is_label(column):
        return "a whole number"
    return "a number" if column.ndim == 1 else f"a vector of {'x'.join(map(str, column.shape[1:]))}"


def joined_version(members: Sequence[str], versions: Mapping[str, str], plain: Mapping[str, bool]) -> str:
    """Return the version text of an ensemble: members that are made of others have theirs in brackets.

    Parameters
    ----------
    members : sequence of str
        Names.
    versions : mapping of str to str
        Version texts by name.
    plain : mapping of str to bool
        Which of them are models.

    Examples
    --------
    >>> joined_version(["a", "blend"], {"a": "1", "blend": "b@2+c@1"}, {"a": True, "blend": False})
    'a@1+blend(b@2+c@1)'
    """
    return "+".join(f"{name}@{versions[name]}" if plain[name] else f"{name}({versions[name]})" for name in members)
