"""Infer: what models say about a batch, one call a model, and never about a row that was rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import FieldSpec, merge_fields
from modelstream.models.errors import ConfigError, InferenceError
from modelstream.models.outputs import non_finite_rows
from modelstream.operators.batch import (
    Column,
    EventBatch,
    Fault,
    ModelOutput,
    RowStatus,
    concat_columns,
    select_rows,
)
from modelstream.operators.fields import ColumnSpec, read_column

__all__ = ["Infer", "ModelInputs", "ScoringModel"]


class ScoringModel(Protocol):
    """What `Infer` needs of a model; `modelstream.models.onnx_model.OnnxModel` is one."""

    @property
    def name(self) -> str:
        """Name of the model: its predictions stand under it."""
        ...

    @property
    def version(self) -> str:
        """The version that answers."""
        ...

    @property
    def required_fields(self) -> tuple[FieldSpec, ...]:
        """The columns that it reads."""
        ...

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> Mapping[str, Column]:
        """Return its output fields for a batch, each with one entry per row; of no rows, columns of the same types."""
        ...


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What models are to see of a batch.

    Parameters
    ----------
    columns : mapping of str to Column
        The columns, without the rows that were rejected.
    n_rows : int
        Rows of the columns.
    rows : ndarray of int or None
        Which rows of the batch they are; None where they are all.
    """

    columns: Mapping[str, Column]
    n_rows: int
    rows: NDArray[np.intp] | None


class Infer:
    """Asks models about a batch.

    A column that a model reads is taken from the batch where an earlier stage has made it, else from the field of that
    name in the events; a row without it is rejected, as is one for which a model answers with something that is not
    finite. The models see the other rows only.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    models : sequence of ScoringModel
        Models of distinct names.
    max_size : int, optional
        A model is called with so many rows at most.

    Raises
    ------
    ConfigError
        If there is no model, two have one name, or they read one field in ways that do not go together.
    """

    def __init__(self, step_id: str, models: Sequence[ScoringModel], max_size: int | None = None) -> None:
        names = [model.name for model in models]
        if not names or len(set(names)) < len(names):
            raise ConfigError(step_id, f"infer needs models of distinct names, not [{', '.join(names)}]")
        if max_size is not None and max_size < 1:
            raise ConfigError(step_id, f"max_size must be 1 or more, not {max_size}")
        self._step_id = step_id
        self._models = tuple(models)
        self._max_size = max_size
        fields = merge_fields(field for model in models for field in model.required_fields)
        self._specs = tuple(ColumnSpec(field.name, field.dtype, field.width) for field in fields)

    @property
    def step_id(self) -> str:
        """Name of the stage."""
        return self._step_id

    @property
    def models(self) -> tuple[ScoringModel, ...]:
        """The models, in the order of their answers."""
        return self._models

    @property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """The columns that the models read."""
        return self._specs

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Add an output for each model; none if every row was rejected.

        Raises
        ------
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        inputs = self.read(batch)
        if inputs.n_rows:
            self.write(batch, inputs, self.predict(inputs.columns, inputs.n_rows))
        return batch

    def read(self, batch: EventBatch) -> ModelInputs:
        """Return what the models are to see of a batch; rows without it are rejected."""
        columns = dict(batch.columns)
        for spec in self._specs:
            if spec.name not in columns:
                columns[spec.name] = read_column(batch, spec, self.step_id)
        if batch.status is None:
            return ModelInputs(columns, len(batch), None)
        kept = np.flatnonzero(batch.status == RowStatus.KEPT)
        return ModelInputs({name: select_rows(column, kept) for name, column in columns.items()}, len(kept), kept)

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> list[Mapping[str, Column]]:
        """Return the output fields of each model, for rows that are all fit to be seen.

        Raises
        ------
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        return [self._predict(model, columns, n_rows) for model in self._models]

    def write(self, batch: EventBatch, inputs: ModelInputs, answers: Sequence[Mapping[str, Column]]) -> None:
        """Add the models' answers to the batch, and reject the rows for which one is not finite."""
        for model, fields in zip(self._models, answers, strict=True):
            self._reject_non_finite(batch, model, fields, inputs.rows)
            if inputs.rows is not None:
                fields = {name: _scatter(column, inputs.rows, len(batch)) for name, column in fields.items()}
            batch.outputs[model.name] = ModelOutput(model.version, fields)

    def _predict(self, model: ScoringModel, columns: Mapping[str, Column], n_rows: int) -> Mapping[str, Column]:
        size = self._max_size or n_rows
        if n_rows <= size:
            return _predict(model, columns, n_rows)
        parts = []
        for start in range(0, n_rows, size):
            part = {name: column[start : start + size] for name, column in columns.items()}
            parts.append(_predict(model, part, min(size, n_rows - start)))
        return {name: concat_columns([part[name] for part in parts]) for name in parts[0]}

    def _reject_non_finite(
        self, batch: EventBatch, model: ScoringModel, fields: Mapping[str, Column], kept: NDArray[np.intp] | None
    ) -> None:
        for name, column in fields.items():
            for row in np.flatnonzero(non_finite_rows({name: column})).tolist():
                detail = f"model {model.name}@{model.version}: output {name!r} is not finite"
                batch.reject(row if kept is None else int(kept[row]), Fault(self.step_id, "non_finite", detail))


def _predict(model: ScoringModel, columns: Mapping[str, Column], n_rows: int) -> Mapping[str, Column]:
    fields = model.predict(columns, n_rows)
    for name, column in fields.items():
        if len(column) != n_rows:
            problem = f"output {name!r} has {len(column)} rows for {n_rows} events"
            raise InferenceError(model.name, model.version, problem)
    return fields


def _scatter(column: Column, rows: NDArray[np.intp], n_rows: int) -> Column:
    """Return a column of the whole batch with the values at the rows that they belong to."""
    if isinstance(column, np.ndarray):
        whole = np.zeros((n_rows, *column.shape[1:]), column.dtype)
        whole[rows] = column
        return whole
    cells: list[Any] = [""] * n_rows
    for row, value in zip(rows.tolist(), column, strict=True):
        cells[row] = value
    return cells
