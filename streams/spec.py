"""The pipeline file as values: what its keys mean and which values they take. `docs/pipeline.md` is their reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from modelstream.models.contract import DType
from modelstream.models.errors import ConfigError
from modelstream.operators.fields import MISSING, ColumnSpec
from modelstream.streams.settings import bootstrap_problem, redis_problem
from modelstream.streams.spec_errors import TAG, Location, collect, problem, to_config_error
from modelstream.streams.yaml_file import describe

__all__ = [
    "BatchSpec",
    "CacheSpec",
    "DeclaredColumn",
    "DeclaredColumns",
    "InferSpec",
    "PipelineSpec",
    "PresentFields",
    "SinkSpec",
    "SourceSpec",
    "StageSpec",
    "parse_spec",
    "validated",
]

_S = TypeVar("_S", bound="_Spec")
_C = TypeVar("_C", bound=Sized)

_NAME = re.compile(r"[a-z0-9._-]{1,200}")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(@[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

#: The largest record librdkafka can be told to fetch (message.max.bytes).
_MAX_RECORD_BYTES = 1_000_000_000
#: orjson itself gives up on deeper nesting.
_MAX_DEPTH = 1024
#: Far above the knee of any model (a few hundred rows); a larger batch costs memory and latency for nothing.
_MAX_BATCH = 65_536
#: A year: longer than any model version answers.
_MAX_TTL_S = 31_536_000


def _matching(pattern: re.Pattern[str], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise problem(f"{describe(text)} {rule}")
        return text

    return AfterValidator(check)


def _not_dots(text: str) -> str:
    if text in (".", ".."):
        raise problem(f"{text!r} is no Kafka topic name")
    return text


def _without_problem(find: Callable[[str], str | None]) -> AfterValidator:
    def check(text: str) -> str:
        if found := find(text):
            raise problem(found)
        return text

    return AfterValidator(check)


def _not_empty(values: _C) -> _C:
    # Not pydantic's min_length, which calls a list empty when all its entries are wrong.
    if not values:
        raise problem("must not be empty")
    return values


def _no_password(url: str) -> str:
    if "@" in url or "?" in url:
        raise problem("user name and password do not belong in a pipeline file; set MODELSTREAM_REDIS to this URL")
    return url


Name = Annotated[str, _matching(_NAME, "is no name; use lower-case letters, digits, '.', '_' and '-'")]
Topic = Annotated[
    str,
    _matching(_TOPIC, "is no Kafka topic name; use at most 249 letters, digits, '.', '_' and '-'"),
    AfterValidator(_not_dots),
]
ModelReference = Annotated[str, _matching(_MODEL, "is no model; write NAME or NAME@VERSION")]
Text = Annotated[str, AfterValidator(_not_empty)]
#: A function of the user's: by name as in the file, or itself, in a pipeline built in Python.
Function = (
    Annotated[Annotated[str, _matching(_FUNCTION, "is no function; write module:function")], Tag(f"{TAG}name")]
    | Annotated[Callable[..., Any], Tag(f"{TAG}callable")]
)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return f"{TAG}name"
    return f"{TAG}callable" if callable(value) else f"{TAG}keys"


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSpec(_Spec):
    """``source``: the topic that events come from, and how to read them."""

    topic: Topic
    format: Literal["json"] = "json"
    key: Text | None = None
    event_id: Text | None = None
    event_time: Text | None = None
    max_record_bytes: Annotated[int, Field(strict=True, ge=1, le=_MAX_RECORD_BYTES)] = 1_048_576
    max_depth: Annotated[int, Field(strict=True, ge=1, le=_MAX_DEPTH)] = _MAX_DEPTH


class DeclaredColumn(_Spec):
    """One declared column: a field of the event, cast to a dtype. ``float32`` alone is short for its dtype."""

    dtype: DType
    from_: Annotated[Text | None, Field(alias="from")] = None
    width: Annotated[int | None, Field(strict=True, ge=1)] = None
    default: Any = None

    @model_validator(mode="after")
    def _default_fits(self) -> DeclaredColumn:
        try:
            self.as_column("x")
        except ConfigError as error:
            raise problem(error.problem) from None
        return self

    def as_column(self, name: str) -> ColumnSpec:
        """Return the column as operators read it. A default of null is none: null means absent in events too."""
        default = MISSING if self.default is None else self.default
        return ColumnSpec(name, self.dtype, self.width, self.from_, default)


def _dtype_alone(value: object) -> object:
    return {"dtype": value} if isinstance(value, str) else value


class DeclaredColumns(_Spec):
    """``extract: {columns: …}``: columns by name."""

    columns: Annotated[
        dict[Text, Annotated[DeclaredColumn, BeforeValidator(_dtype_alone)]],
        AfterValidator(_not_empty),
    ]


class PresentFields(_Spec):
    """``filter: {present: …}``: keep the events in which every named field is there and not null."""

    present: Annotated[tuple[Text, ...], AfterValidator(_not_empty)]


class BatchSpec(_Spec):
    """``infer.batch``: how events are gathered for a model."""

    max_size: Annotated[int, Field(strict=True, ge=1, le=_MAX_BATCH)] = 1024


class CacheSpec(_Spec):
    """``infer.cache``: keep answers in Redis, and do not compute them again."""

    ttl_s: Annotated[int, Field(strict=True, ge=1, le=_MAX_TTL_S)] = 300


class InferSpec(_Spec):
    """``infer``: the models that answer, their micro-batches, and whether answers are kept."""

    models: Annotated[tuple[ModelReference, ...], AfterValidator(_not_empty)]
    batch: BatchSpec = BatchSpec()
    cache: CacheSpec | None = None


ExtractSpec = Annotated[Function | Annotated[DeclaredColumns, Tag(f"{TAG}keys")], Discriminator(_kind)]
FilterSpec = Annotated[Function | Annotated[PresentFields, Tag(f"{TAG}keys")], Discriminator(_kind)]


class StageSpec(_Spec):
    """One entry of ``stages``: a step id and what the step does."""

    id: Name
    extract: ExtractSpec | None = None
    filter: FilterSpec | None = None
    infer: InferSpec | None = None

    @model_validator(mode="after")
    def _one_operator(self) -> StageSpec:
        kinds = ("extract", "filter", "infer")
        given = [kind for kind in kinds if kind in self.model_fields_set]
        if len(given) != 1:
            raise problem(f"needs exactly one of {', '.join(kinds)}{'; has ' + ' and '.join(given) if given else ''}")
        if getattr(self, given[0]) is None:
            collect([((given[0],), "must not be empty")])
        return self

    @property
    def kind(self) -> str:
        """Which operator it is: ``extract``, ``filter`` or ``infer``."""
        return "extract" if self.extract is not None else "filter" if self.filter is not None else "infer"


class SinkSpec(_Spec):
    """``sink``: the topics that predictions and dead letters go to."""

    topic: Topic
    dead_letter: Annotated[Topic, Field(default_factory=lambda sink: f"{sink['topic']}.dead", validate_default=True)]


class PipelineSpec(_Spec):
    """A whole pipeline, as its file says it."""

    pipeline: Name
    source: SourceSpec
    models_dir: Text = "models"
    stages: Annotated[tuple[StageSpec, ...], AfterValidator(_not_empty)]
    sink: SinkSpec
    delivery: Literal["at_least_once"] = "at_least_once"
    broker: Annotated[str, _without_problem(bootstrap_problem)] | None = None
    redis: Annotated[str, _without_problem(redis_problem), AfterValidator(_no_password)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineSpec:
        collect([*_topic_problems(self), *_stage_problems(self.stages), *_model_problems(self.stages)])
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """Yield every model reference with its path, in the order of the file."""
        for i, stage in enumerate(self.stages):
            for j, reference in enumerate(stage.infer.models if stage.infer else ()):
                yield f"stages[{i}].infer.models[{j}]", reference


def _topic_problems(spec: PipelineSpec) -> Iterator[tuple[Location, str]]:
    source, sink = spec.source.topic, spec.sink
    if sink.topic == source:
        yield ("sink", "topic"), f"{sink.topic!r} is the source's topic; a pipeline must not read its own predictions"
    if sink.dead_letter == source:
        yield ("sink", "dead_letter"), f"{source!r} is the source's topic; a pipeline must not read its dead letters"
    if sink.dead_letter == sink.topic:
        yield ("sink", "dead_letter"), f"{sink.topic!r} is the topic of the predictions; dead letters need their own"


def _stage_problems(stages: tuple[StageSpec, ...]) -> Iterator[tuple[Location, str]]:
    first: dict[str, int] = {}
    for i, stage in enumerate(stages):
        if stage.id in ("source", "sink"):
            yield ("stages", i, "id"), f"{stage.id!r} is what dead letters call an end of the pipeline; choose another"
        elif stage.id in first:
            yield ("stages", i, "id"), f"{stage.id!r} is the id of stages[{first[stage.id]}] already"
        first.setdefault(stage.id, i)
    if not any(stage.infer for stage in stages):
        yield ("stages",), "no stage infers; add one with infer: {models: [NAME]}"


def _model_problems(stages: tuple[StageSpec, ...]) -> Iterator[tuple[Location, str]]:
    # By name, not by version: predictions stand under the model's name.
    first: dict[str, str] = {}
    for i, stage in enumerate(stages):
        for j, reference in enumerate(stage.infer.models if stage.infer else ()):
            name = reference.partition("@")[0]
            if name in first:
                yield ("stages", i, "infer", "models", j), f"model {name!r} stands at {first[name]} already"
            first.setdefault(name, f"stages[{i}].infer.models[{j}]")


def validated(model: type[_S], raw: Any, prefix: str = "") -> _S:
    """Return raw data as a value of a part of the pipeline file.

    Parameters
    ----------
    model : type
        The part.
    raw : object
        Plain data, as YAML or Python gives it.
    prefix : str
        The part's path in the pipeline, for errors.

    Raises
    ------
    ConfigError
        The data does not fit; the message lists every problem, one a line, each with its path.

    Examples
    --------
    >>> validated(SinkSpec, {"topic": "out"}, "sink").dead_letter
    'out.dead'
    >>> validated(SinkSpec, {"topc": "out"}, "sink")
    Traceback (most recent call last):
    modelstream.models.errors.ConfigError: sink.topc: unknown key; did you mean 'topic'?
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise to_config_error(error, model, raw, prefix) from None


def parse_spec(raw: Mapping[str, Any]) -> PipelineSpec:
    """Return what the data of a pipeline file says.

    Raises
    ------
    ConfigError
        As for `validated`.
    """
    return validated(PipelineSpec, raw)
