"""One model of a stage: where its fields come from, how many rows it gets at once, and whether it is asked at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from modelstream.models.contract import ANY_WIDTH, Column, FieldSpec
from modelstream.models.errors import ConfigError, InferenceError, did_you_mean
from modelstream.operators.answers import Fields, no_rows
from modelstream.operators.circuit import Circuit
from modelstream.operators.columns import concat_columns, select_rows
from modelstream.operators.padding import BUCKET, Padder, PaddingCounters, put_back

__all__ = ["ModelCall", "NamedModel", "ScoringModel"]


class ScoringModel(Protocol):
    """What a stage needs of a model; `modelstream.models.onnx_model.OnnxModel` is one."""

    @property
    def name(self) -> str:
        """Name of the model: its predictions stand under it, where the stage gives it no other name."""
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
class NamedModel:
    """A model with what a stage says of it.

    Parameters
    ----------
    model : ScoringModel
        The model.
    name : str, optional
        What its predictions stand under; by default its own name.
    inputs : mapping of str to str
        Where fields of the model come from, if not from the column or event field of their name: another column or
        field, or ``ANSWER.FIELD`` of another model, ensemble or cascade.
    """

    model: ScoringModel
    name: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.model.name)


class ModelCall:
    """Calls one model.

    Parameters
    ----------
    named : NamedModel
        The model.
    path : str
        Where it stands in the stage, for errors.
    max_size : int, optional
        It gets so many rows at once at most.
    circuit : Circuit, optional
        When to leave it alone.
    pad_to : sequence of int, optional
        Lengths that its rows are padded to, where they may differ in length.
    bucket_by : str, optional
        Column or answer whose values group the rows: one call for each.
    padding : PaddingCounters, optional
        Counts what is padded.

    Raises
    ------
    ConfigError
        An input is given to a field that it does not read.
    """

    def __init__(
        self,
        named: NamedModel,
        path: str,
        max_size: int | None = None,
        circuit: Circuit | None = None,
        *,
        pad_to: Sequence[int] = (),
        bucket_by: str | None = None,
        padding: PaddingCounters | None = None,
    ) -> None:
        self.name = named.name
        self.path = path
        self.model = named.model
        self.circuit = circuit
        self._max_size = max_size
        #: One row that the model has answered to: whether it is to blame when it fails is seen by asking again.
        self._answered: dict[str, Column] | None = None
        if circuit is not None:
            circuit.still_answers = self._still_answers
        known = [one.name for one in self.model.required_fields]
        for name in named.inputs:
            if name not in known:
                hint = did_you_mean(name, known) or f"; it reads {', '.join(known)}"
                raise ConfigError(f"{path}.inputs.{name}", f"model {self.told} reads no field {name!r}{hint}")
        #: Every field of the model, and where it comes from.
        self.sources = {one: named.inputs.get(one, one) for one in known}
        if bucket_by is not None:
            self.sources[BUCKET] = bucket_by
        ragged = [one.name for one in self.model.required_fields if one.width == ANY_WIDTH]
        #: Whether its rows may differ in length.
        self.takes_any_width = bool(ragged)
        self._padder: Padder | None = None
        if ragged or bucket_by is not None:
            neutral = getattr(self.model, "padding_is_neutral", True)
            self._padder = Padder(ragged, pad_to, by_value=bucket_by is not None, counters=padding, exact=not neutral)

    @property
    def told(self) -> str:
        """The model and its version, for a person."""
        return f"{self.model.name}@{self.model.version}"

    @property
    def renames(self) -> bool:
        """Whether a field comes from a column of another name."""
        return any(name != source for name, source in self.sources.items())

    def empty(self) -> Fields:
        """Return its answer to no rows."""
        return self.model.predict({one.name: no_rows(one) for one in self.model.required_fields}, 0)

    def __call__(self, columns: Mapping[str, Column], n_rows: int) -> Fields:
        """Return the model's answer.

        Parameters
        ----------
        columns : mapping of str to Column
            At least the fields of the model.
        n_rows : int
            Rows of the columns; none show how its answer looks, and count for nothing.

        Raises
        ------
        ModelUnavailable
            It is left alone for now.
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        if not n_rows:
            return self._predict_at_once(columns, 0)
        if self.circuit is None:
            return self._predict(columns, n_rows)
        self.circuit.admit()
        try:
            fields = self._predict(columns, n_rows)
        except InferenceError as error:
            self.circuit.failed(error)
            raise
        self.circuit.succeeded()
        if self._answered is None:
            # A copy: a view would keep the whole batch.
            row = np.arange(1)
            self._answered = {name: select_rows(columns[name], row) for name in self.sources}
        return fields

    def _still_answers(self) -> bool | None:
        if self._answered is None:
            return None
        try:
            self._predict(self._answered, 1)
        except InferenceError:
            return False
        return True

    def _predict(self, columns: Mapping[str, Column], n_rows: int) -> Fields:
        if self._padder is None:
            return self._predict_group(columns, n_rows)
        groups = self._padder.groups({name: columns[name] for name in self.sources}, n_rows)
        parts = [self._predict_group(group.columns, len(group.rows)) for group in groups]
        try:
            return put_back(groups, parts)
        except ValueError as error:
            problem = f"its answers have another shape for each length of the rows: {error}"
            raise InferenceError(self.model.name, self.model.version, problem) from None

    def _predict_group(self, columns: Mapping[str, Column], n_rows: int) -> Fields:
        size = self._max_size or n_rows
        if n_rows <= size:
            return self._predict_at_once(columns, n_rows)
        parts = []
        for start in range(0, n_rows, size):
            part = {name: column[start : start + size] for name, column in columns.items()}
            parts.append(self._predict_at_once(part, min(size, n_rows - start)))
        return {name: concat_columns([part[name] for part in parts]) for name in parts[0]}

    def _predict_at_once(self, columns: Mapping[str, Column], n_rows: int) -> Fields:
        fields = self.model.predict(columns, n_rows)
        for name, column in fields.items():
            if len(column) != n_rows:
                problem = f"output {name!r} has {len(column)} rows for {n_rows} events"
                raise InferenceError(self.model.name, self.model.version, problem)
        return fields
