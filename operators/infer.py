"""Infer: what models say about a batch, one call a model, and never about a row that was rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column, FieldSpec, merge_fields
from modelstream.models.errors import ConfigError
from modelstream.operators.answers import ASKED, Fields, OutputSchema
from modelstream.operators.batch import EventBatch, RowStatus
from modelstream.operators.cascade import Cascade
from modelstream.operators.circuit import Circuit
from modelstream.operators.columns import select_rows
from modelstream.operators.dependencies import member_problems, name_problems
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.fields import ColumnSpec, read_column
from modelstream.operators.infer_outputs import Output, outputs_of
from modelstream.operators.model_call import ModelCall, NamedModel, ScoringModel
from modelstream.operators.model_graph import ModelGraph
from modelstream.operators.padding import BUCKET, PaddingCounters
from modelstream.operators.wiring import Wiring

__all__ = ["Infer", "ModelInputs", "NamedModel", "ScoringModel"]


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
    models : sequence of ScoringModel or NamedModel
        Models of distinct names.
    max_size : int, optional
        A model is called with so many rows at most.
    ensembles : sequence of Ensemble, optional
        Further answers, made of several.
    cascades : sequence of Cascade, optional
        Models that see only the rows that others are unsure of.
    earlier : mapping of str to OutputSchema, optional
        What the stages before answer, for models that read it.
    non_finite : {"reject", "null"}
        What becomes of a row for which a model has no finite answer; ``null`` keeps it.
    circuit : callable, optional
        Makes each model's circuit.
    pad_to : sequence of int, optional
        Lengths that rows are padded to, for models whose rows may differ in length; see `Padder`.
    bucket_by : str, optional
        Column or event field whose values group the rows of a batch: a model is called once for each.

    Raises
    ------
    ConfigError
        If there is no model, names are unknown or not distinct, or answers and fields do not go together. Its path
        begins below ``infer``.

    Examples
    --------
    >>> class Double:
    ...     name, version, required_fields = "double", "1", (FieldSpec("x", "float64"),)
    ...     def predict(self, columns, n_rows):
    ...         return {"value": 2 * columns["x"]}
    >>> models = [Double(), NamedModel(Double(), "again", {"x": "double.value"})]
    >>> infer = Infer("stage", models, ensembles=[Ensemble("both", "mean", ("double", "again"))])
    >>> outputs = infer(EventBatch.of_events([{"x": 1}])).outputs
    >>> [(name, output.fields["value"].tolist()) for name, output in outputs.items()]
    [('double', [2.0]), ('again', [4.0]), ('both', [3.0])]
    """

    def __init__(
        self,
        step_id: str,
        models: Sequence[ScoringModel | NamedModel],
        max_size: int | None = None,
        *,
        ensembles: Sequence[Ensemble] = (),
        cascades: Sequence[Cascade] = (),
        earlier: Mapping[str, OutputSchema] | None = None,
        non_finite: Literal["reject", "null"] = "reject",
        circuit: Callable[[ScoringModel], Circuit] | None = None,
        pad_to: Sequence[int] = (),
        bucket_by: str | None = None,
    ) -> None:
        if max_size is not None and max_size < 1:
            raise ConfigError("batch.max_size", f"max_size must be 1 or more, not {max_size}")
        named = [one if isinstance(one, NamedModel) else NamedModel(one) for one in models]
        _check_names(named, ensembles, cascades)
        self._step_id = step_id
        self._max_size = max_size
        self._non_finite = non_finite
        self._make_circuit = circuit
        self._grouping: dict[str, Any] = {"pad_to": pad_to, "bucket_by": bucket_by, "padding": PaddingCounters()}
        self._calls = tuple(self._call(one, f"models[{i}]") for i, one in enumerate(named))
        stacked = {
            one.name: self._call(NamedModel(one.model, one.name), f"ensembles.{one.name}.model", grouped=False)
            for one in ensembles
            if one.model is not None
        }
        self._models = tuple(call.model for call in (*self._calls, *stacked.values()))
        if pad_to and not any(call.takes_any_width for call in self._calls):
            raise ConfigError("batch.pad_to", 'no model of the stage reads a field of width "any"')
        names = [call.name for call in self._calls] + [one.name for one in ensembles] + [one.name for one in cascades]
        wirings = [Wiring.of(call, names, earlier or {}) for call in self._calls]
        self._graph: ModelGraph | None = None
        if ensembles or cascades or any(wiring.nodes or wiring.masks for wiring in wirings):
            self._graph = ModelGraph(self._calls, ensembles, cascades, stacked, earlier, non_finite == "reject")
            wirings = list(self._graph.wirings.values())
        #: For the models that are asked one by one, which columns go by another name.
        self._plain = [
            (call, wiring.columns if call.renames else None)
            for call, wiring in zip(self._calls, wirings[: len(self._calls)], strict=True)
        ]
        self._earlier, self._specs = _outside((*self._calls, *stacked.values()), wirings)
        self._outputs: tuple[Output, ...] = outputs_of(
            step_id, self._calls, ensembles, cascades, stacked, reject_non_finite=non_finite == "reject"
        )
        self._recipe = _recipe(named, ensembles, cascades)

    def _call(self, named: NamedModel, path: str, *, grouped: bool = True) -> ModelCall:
        circuit = self._make_circuit(named.model) if self._make_circuit else None
        return ModelCall(named, path, self._max_size, circuit, **(self._grouping if grouped else {}))

    @property
    def step_id(self) -> str:
        """Name of the stage."""
        return self._step_id

    @property
    def models(self) -> tuple[ScoringModel, ...]:
        """The models, in the order of their answers, and then those that stack others."""
        return self._models

    @property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """The columns that the models read: all that an answer depends on."""
        return self._specs

    @property
    def fields(self) -> tuple[ColumnSpec, ...]:
        """Those of them that are fields of the events, where no stage before makes such a column."""
        return tuple(spec for spec in self._specs if spec.name not in self._earlier)

    @property
    def padding(self) -> PaddingCounters:
        """What was padded so far, of all models."""
        counters: PaddingCounters = self._grouping["padding"]
        return counters

    @property
    def recipe(self) -> str:
        """What answers come from, but for the columns: names and versions of the models, and how they work together."""
        return self._recipe

    @cached_property
    def identity(self) -> bytes:
        """All that the answers to a row depend on, but for the row: stages of one identity may share a cache."""
        lines = [self._recipe, self._non_finite, repr((tuple(self._grouping["pad_to"]), self._grouping["bucket_by"]))]
        for model in self._models:
            contract = getattr(model, "contract", None)
            # The digest is of the ONNX file; which class a score is of, say, stands in model.toml.
            said = [getattr(contract, part, "") for part in ("sha256", "inputs", "outputs")]
            lines.append(f"{model.name}@{model.version} {said!r}")
        lines += [repr(spec.name) for spec in self._specs]
        return "\n".join(lines).encode()

    @cached_property
    def schema(self) -> Mapping[str, OutputSchema]:
        """What the answers look like, by name."""
        if self._graph is not None:
            return self._graph.schema
        return {call.name: OutputSchema(call.empty()) for call in self._calls}

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Add an output for each model, ensemble and cascade; none if every row was rejected.

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
        for name, (answer, field) in self._earlier.items():
            output = batch.outputs[answer]
            if field == ASKED:
                columns[name] = np.ones(len(batch), np.bool_) if output.answered is None else output.answered
            else:
                columns[name] = output.fields[field]
        for spec in self._specs:
            if spec.name not in columns:
                columns[spec.name] = read_column(batch, spec, self.step_id)
        if batch.status is None:
            return ModelInputs(columns, len(batch), None)
        kept = np.flatnonzero(batch.status == RowStatus.KEPT)
        return ModelInputs({name: select_rows(column, kept) for name, column in columns.items()}, len(kept), kept)

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> list[Fields]:
        """Return all answers in their order, for rows that are all fit to be seen.

        Raises
        ------
        InferenceError
            As the model raised it, or if it returned the wrong number of rows.
        """
        if self._graph is not None:
            return self._graph.predict(columns, n_rows)
        return [
            call(columns if renamed is None else {name: columns[source] for name, source in renamed.items()}, n_rows)
            for call, renamed in self._plain
        ]

    def write(self, batch: EventBatch, inputs: ModelInputs, answers: Sequence[Fields]) -> None:
        """Add the answers to the batch, and reject the rows for which one is not finite, or a model is left alone."""
        for output, fields in zip(self._outputs, answers, strict=True):
            output.write(batch, inputs.rows, fields)


def _check_names(named: Sequence[NamedModel], ensembles: Sequence[Ensemble], cascades: Sequence[Cascade]) -> None:
    if not named:
        raise ConfigError("models", "infer needs models of distinct names, not []")
    models = [one.name for one in named]
    members = {one.name: (one.mode, one.members) for one in ensembles}
    steps = {one.name: one.steps for one in cascades}
    problems = (*name_problems(models, members, steps), *member_problems(models, members, steps))
    for (top, *rest), text in problems:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
        raise ConfigError(f"{top}{path}", text)


def _outside(
    calls: Sequence[ModelCall], wirings: Sequence[Wiring]
) -> tuple[dict[str, tuple[str, str]], tuple[ColumnSpec, ...]]:
    """Return the columns that are answers of stages before, and all columns from outside of the stage."""
    earlier: dict[str, tuple[str, str]] = {}
    fields: list[FieldSpec] = []
    buckets: dict[str, FieldSpec] = {}  # read as text, if no model reads them as something else
    for call, wiring in zip(calls, wirings, strict=True):
        specs = {one.name: one for one in call.model.required_fields}
        for name, source in wiring.columns.items():
            if name == BUCKET:
                buckets[source] = FieldSpec(source, "string")
            else:
                fields.append(FieldSpec(source, specs[name].dtype, specs[name].width))
        fields += [FieldSpec(mask, "bool") for mask in wiring.masks]
        earlier |= wiring.earlier
        earlier |= {mask: (mask.removeprefix(f"{ASKED} "), ASKED) for mask in wiring.masks}
    known = {field.name for field in fields}
    fields += [field for source, field in buckets.items() if source not in known]
    try:
        merged = merge_fields(fields)
    except ConfigError as error:
        raise ConfigError("models", error.problem) from None
    return earlier, tuple(ColumnSpec(field.name, field.dtype, field.width) for field in merged)


def _recipe(named: Sequence[NamedModel], ensembles: Sequence[Ensemble], cascades: Sequence[Cascade]) -> str:
    lines = []
    for one in named:
        told = f"{one.model.name}@{one.model.version}"
        plain = one.name == one.model.name and not one.inputs
        lines.append(told if plain else f"{one.name}={told}{sorted(one.inputs.items())}")
    for ensemble in ensembles:
        model = f" {ensemble.model.name}@{ensemble.model.version}" if ensemble.model else ""
        lines.append(f"{ensemble.name}={ensemble.mode}{[*ensemble.members]}{[*ensemble.weights]}{model}")
    lines += [f"{cascade.name}=cascade{[*cascade.steps]}{cascade.unsure!r}" for cascade in cascades]
    return " ".join(lines)
