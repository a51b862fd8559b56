"""The ``infer`` stage of the pipeline file: models, how they work together, micro-batches, and the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from modelstream.models.errors import ConfigError
from modelstream.operators.answers import find_answer
from modelstream.operators.dependencies import dependencies, evaluation_order, member_problems
from modelstream.streams.spec_errors import Location, collect, problem
from modelstream.streams.spec_types import ModelReference, Name, Spec, Text, not_empty

__all__ = [
    "BatchSpec",
    "CacheSpec",
    "CascadeSpec",
    "CircuitSpec",
    "EnsembleSpec",
    "InferSpec",
    "ModelSpec",
]

#: Far above the knee of any model (a few hundred rows); a larger batch costs memory and latency for nothing.
_MAX_BATCH = 65_536
#: A year: longer than any model version answers.
_MAX_TTL_S = 31_536_000
#: Longer than anyone waits for a batch to fill; a mistake in the unit is more likely.
_MAX_WAIT_MS = 4_000

#: Of a tiny model 1,024 rows stay in the processor's cache from decoding to encoding. With a target its cost curve sets
#: the size, and at a million rows a second a cap of 1,024 takes a fifth of the capacity (`make bench-batching`).
_MOST_ROWS, _MOST_ROWS_WITH_TARGET = 1024, 4096

Rows = Annotated[int, Field(strict=True, ge=1, le=_MAX_BATCH)]
Weight = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
#: A model of the stage, or an ensemble or cascade of it, by the name that its answers stand under.
Member = Text


class BatchSpec(Spec):
    """``infer.batch``: how events are gathered for a model."""

    max_size: Rows | None = None
    max_wait_ms: Annotated[float, Field(strict=True, ge=0, le=_MAX_WAIT_MS)] = 0
    max_bytes: Annotated[int, Field(strict=True, ge=1)] | None = None
    target_p99_ms: Annotated[float, Field(strict=True, ge=1, le=60_000)] | None = None
    in_flight: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    queue_rows: Annotated[int, Field(strict=True, ge=1)] = 65_536
    queue_bytes: Annotated[int, Field(strict=True, ge=1)] = 64 * 1024 * 1024
    pad_to: Annotated[tuple[Rows, ...], AfterValidator(not_empty)] | None = None
    bucket_by: Text | None = None

    @property
    def most_rows(self) -> int:
        """Rows of a micro-batch at most: `max_size`, or what leaves the size to the target where there is one."""
        if self.max_size is not None:
            return self.max_size
        return _MOST_ROWS if self.target_p99_ms is None else _MOST_ROWS_WITH_TARGET


class CacheSpec(Spec):
    """``infer.cache``: keep answers in the process and in Redis, and do not compute them again."""

    ttl_s: Annotated[int, Field(strict=True, ge=1, le=_MAX_TTL_S)] = 300
    l1_rows: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 65_536
    timeout_ms: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 50
    write_behind_rows: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] = 65_536
    bypass: Annotated[bool, Field(strict=True)] = True


class CircuitSpec(Spec):
    """``infer.circuit``: when to stop asking a model that fails, and for how long."""

    max_failures: Annotated[int, Field(strict=True, ge=1)] = 5
    rest_s: Annotated[float, Field(strict=True, gt=0, le=3600)] = 5


class ModelSpec(Spec):
    """One entry of ``infer.models``. ``arrival_delay@1`` alone is short for its ``model``."""

    model: ModelReference
    as_: Annotated[Name | None, Field(alias="as")] = None
    #: Where fields of the model come from, where not from the column or event field of their name.
    inputs: dict[Text, Text] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its answers stand under: ``as``, or the model's name."""
        return self.as_ or self._own_name

    @property
    def is_renamed(self) -> bool:
        """Whether that is another name than the model's."""
        return self.name != self._own_name

    @property
    def _own_name(self) -> str:
        return self.model.partition("@")[0]

    @model_serializer(mode="wrap")
    def _shortest(self, serialize: SerializerFunctionWrapHandler) -> Any:
        return self.model if self.as_ is None and not self.inputs else serialize(self)


def _reference_alone(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class EnsembleSpec(Spec):
    """One entry of ``infer.ensembles``: one answer made of several models' answers."""

    mean: Annotated[tuple[Member, ...], AfterValidator(not_empty)] | None = None
    weighted: Annotated[dict[Member, Weight], AfterValidator(not_empty)] | None = None
    vote: Annotated[tuple[Member, ...], AfterValidator(not_empty)] | None = None
    stack: Annotated[tuple[Member, ...], AfterValidator(not_empty)] | None = None
    #: Of `stack`: the model that reads the members' answers.
    model: ModelReference | None = None

    @model_validator(mode="after")
    def _one_mode(self) -> EnsembleSpec:
        modes = ("mean", "weighted", "vote", "stack")
        given = [mode for mode in modes if getattr(self, mode) is not None]
        if len(given) != 1:
            raise problem(f"needs exactly one of {', '.join(modes)}{'; has ' + ' and '.join(given) if given else ''}")
        if (self.stack is None) != (self.model is None):
            raise problem("stack and model go together: the model reads the answers of those that are stacked")
        return self

    @property
    def mode(self) -> Literal["mean", "weighted", "vote", "stack"]:
        """How the answer is made."""
        if self.mean is not None:
            return "mean"
        if self.weighted is not None:
            return "weighted"
        return "vote" if self.vote is not None else "stack"

    @property
    def members(self) -> tuple[str, ...]:
        """The models whose answers it is made of."""
        return tuple(self.mean or self.weighted or self.vote or self.stack or ())


class CascadeSpec(Spec):
    """One entry of ``infer.cascades``: a model sees only the rows that the one before it is unsure of."""

    steps: Annotated[tuple[Member, ...], AfterValidator(not_empty)]
    #: An expression over the output fields of the step before, such as ``score > 0.2 and score < 0.8``.
    unsure: Text


def _null_as_word(value: object) -> object:
    # Written without quotation marks YAML takes it for its own null.
    return "null" if value is None else value


class InferSpec(Spec):
    """``infer``: the models that answer, how they work together, their micro-batches, and the cache."""

    models: Annotated[
        tuple[Annotated[ModelSpec, BeforeValidator(_reference_alone)], ...],
        AfterValidator(not_empty),
    ]
    ensembles: dict[Name, EnsembleSpec] = Field(default_factory=dict)
    cascades: dict[Name, CascadeSpec] = Field(default_factory=dict)
    batch: BatchSpec = BatchSpec()
    cache: CacheSpec | None = None
    timeout_ms: Annotated[int, Field(strict=True, ge=1, le=600_000)] | None = None
    circuit: CircuitSpec = CircuitSpec()
    non_finite: Annotated[Literal["reject", "null"], BeforeValidator(_null_as_word)] = "reject"
    provider: Name = "cpu"

    @model_validator(mode="after")
    def _goes_together(self) -> InferSpec:
        collect(_problems(self))
        return self


def _problems(spec: InferSpec) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong with the keys, taken together; what models read and answer is not known here."""
    models = [entry.name for entry in spec.models]
    members = {name: entry.members for name, entry in spec.ensembles.items()}
    modes = {name: (entry.mode, entry.members) for name, entry in spec.ensembles.items()}
    steps = {name: entry.steps for name, entry in spec.cascades.items()}
    problems = list(member_problems(models, modes, steps))
    yield from problems
    if problems:
        return
    names = [*models, *members, *steps]
    if len(set(names)) < len(names):
        return  # which the pipeline finds, as names are distinct across all stages
    inputs = {
        entry.name: [found[0] for source in entry.inputs.values() if (found := find_answer(source, names))]
        for entry in spec.models
    }
    try:
        evaluation_order(dependencies(inputs, members, steps))
    except ConfigError as error:
        yield (), error.problem
