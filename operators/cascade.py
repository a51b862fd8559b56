"""Cascades: a model sees only the rows that the one before it is unsure of, and the last one that saw a row answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.models.errors import ConfigError
from modelstream.operators.answers import Fields
from modelstream.operators.ensemble import is_label
from modelstream.operators.expressions import Frame, Kind, compile_expression
from modelstream.operators.vector_logic import true_rows

__all__ = ["Cascade", "CascadePlan"]


@dataclass(frozen=True, slots=True)
class Cascade:
    """Which models are asked one after the other, and when the next one is.

    Parameters
    ----------
    name : str
        What its answer stands under.
    steps : tuple of str
        Names of models of the same stage.
    unsure : str
        Expression over the output fields of a step: true for the rows that the next one is to see.
    """

    name: str
    steps: tuple[str, ...]
    unsure: str


class CascadePlan:
    """A cascade, checked against what its models answer.

    Parameters
    ----------
    cascade : Cascade
        The cascade.
    samples : sequence of mapping of str to Column
        For each step, how its fields look: any number of rows.

    Raises
    ------
    ConfigError
        The steps answer with different fields, or the expression does not go with them.

    Examples
    --------
    >>> plan = CascadePlan(Cascade("late", ("quick", "thorough"), "score < 0.8"), [{"score": np.zeros(0)}] * 2)
    >>> unsure = plan.unsure({"score": np.array([0.9, 0.6])}, 2)
    >>> plan.merge([{"score": np.array([0.9, 0.6])}, {"score": np.array([0.0, 0.7])}], [unsure])
    ({'score': array([0.9, 0.7])}, array([0, 1], dtype=int8))
    """

    def __init__(self, cascade: Cascade, samples: Sequence[Fields]) -> None:
        self.name, self.steps = cascade.name, cascade.steps
        path = f"cascades.{cascade.name}"
        first = samples[0]
        for step, sample in zip(cascade.steps[1:], samples[1:], strict=True):
            if set(sample) != set(first):
                raise ConfigError(
                    f"{path}.steps",
                    f"all steps must answer with the same fields, but {cascade.steps[0]} has {', '.join(first)} "
                    f"and {step} has {', '.join(sample)}",
                )
        self._dtypes = {name: _shared_dtype(path, name, [sample[name] for sample in samples]) for name in first}
        kinds: dict[str, Kind] = {
            name: "text" if dtype is None else "number"
            for name, dtype in self._dtypes.items()
            if isinstance(first[name], list) or np.ndim(first[name]) == 1
        }
        self._unsure = compile_expression(cascade.unsure, f"{path}.unsure", kinds)
        if self._unsure.kind == "text":
            raise ConfigError(f"{path}.unsure", "gives text; it must say true or false, as in score < 0.8")

    def unsure(self, fields: Fields, n_rows: int) -> NDArray[np.bool_]:
        """Return the rows that the next step is to see. Where the expression has no value, that is none."""
        columns = {name: fields[name] for name in self._unsure.names}
        return true_rows(self._unsure.evaluate(Frame(columns, n_rows)))

    def merge(
        self, steps: Sequence[Fields], reached: Sequence[NDArray[np.bool_]]
    ) -> tuple[dict[str, Column], NDArray[np.int8]]:
        """Return the cascade's answer and the step that gave it.

        Parameters
        ----------
        steps : sequence of mapping of str to Column, n_rows entries each
            The answers of each step, fillers for rows that it did not see.
        reached : sequence of ndarray of bool, shape (n_rows,)
            For each step but the first, the rows that it answered to.
        """
        n_rows = len(next(iter(steps[0].values())))
        step = np.zeros(n_rows, np.int8)
        merged = {name: _writable(steps[0][name], dtype) for name, dtype in self._dtypes.items()}
        for k, (fields, rows) in enumerate(zip(steps[1:], reached, strict=True), 1):
            if rows.any():
                step[rows] = k
                for name, dtype in self._dtypes.items():
                    merged[name][rows] = _writable(fields[name], dtype)[rows]
        fields = {
            name: column if self._dtypes[name] is not None else column.tolist() for name, column in merged.items()
        }
        return fields, step


def _shared_dtype(path: str, name: str, columns: Sequence[Column]) -> np.dtype[np.generic] | None:
    """Return the type of a field of all steps, None for text."""
    text = [isinstance(column, list) or column.dtype == object for column in columns]
    if all(text):
        return None
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if any(text) or len({array.shape[1:] for array in arrays}) > 1 or len({is_label(array) for array in arrays}) > 1:
        raise ConfigError(f"{path}.steps", f"field {name!r} does not look alike in the answers of all steps")
    return np.result_type(*arrays)


def _writable(column: Column, dtype: np.dtype[np.generic] | None) -> NDArray[np.generic]:
    """Return a copy."""
    return np.fromiter(column, object, len(column)) if dtype is None else np.array(column, dtype)
