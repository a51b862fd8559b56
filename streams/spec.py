"""The pipeline file as values: what its keys mean and which values they take. `docs/pipeline.md` is their reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationError, model_validator

from modelstream.models.errors import did_you_mean
from modelstream.streams.infer_spec import InferSpec
from modelstream.streams.settings import bootstrap_problem, redis_problem
from modelstream.streams.spec_errors import TAG, Location, collect, problem, to_config_error
from modelstream.streams.spec_types import Name, Path, Spec, Text, Topic, checked, not_empty, tag_of
from modelstream.streams.stage_spec import DeclaredColumn, DeclaredColumns, PresentFields, RulesSpec, StageSpec

__all__ = [
    "DeclaredColumn",
    "DeclaredColumns",
    "F32Format",
    "FormatName",
    "InferSpec",
    "PipelineSpec",
    "PresentFields",
    "PrioritySpec",
    "SinkSpec",
    "SourceSpec",
    "StageSpec",
    "Threads",
    "parse_spec",
    "validated",
]

_S = TypeVar("_S", bound=Spec)

#: How many threads all models may use together.
Threads = Annotated[int, Field(strict=True, ge=1, le=1024)]

#: The largest record librdkafka can be told to fetch (message.max.bytes).
_MAX_RECORD_BYTES = 1_000_000_000
#: orjson itself gives up on deeper nesting.
_MAX_DEPTH = 1024
#: Numbers of one raw vector: more do not fit into the largest record.
_MAX_VECTOR = _MAX_RECORD_BYTES // 4


def _no_password(url: str) -> str:
    if "@" in url or "?" in url:
        raise problem("user name and password do not belong in a pipeline file; set MODELSTREAM_REDIS to this URL")
    return url


class F32Format(Spec):
    """``source.format: {f32: N}``: a record's value is N little-endian float32 numbers, and nothing else."""

    f32: Annotated[int, Field(strict=True, ge=1, le=_MAX_VECTOR)]
    #: The column that they become.
    field: Text = "features"


#: Formats that are told by their name; `modelstream.streams.formats` has them.
FormatName = Literal["json", "msgpack"]
FormatSpec = Annotated[
    Annotated[FormatName, Tag(f"{TAG}name")] | Annotated[F32Format, Tag(f"{TAG}keys")],
    Discriminator(tag_of),
]


def _known_format(value: object) -> object:
    names = get_args(FormatName)
    if isinstance(value, str) and value not in names:
        hint = did_you_mean(value, names)
        raise problem(f"must be {', '.join(names)} or {{f32: N, field: NAME}}, not {value!r}{hint}")
    return value


class PrioritySpec(Spec):
    """``source.priority``: which events go first; a whole number from 0 to 9 in a field or a header, 0 without one."""

    field: Path | None = None
    header: Text | None = None

    @model_validator(mode="after")
    def _one_place(self) -> PrioritySpec:
        if (self.field is None) == (self.header is None):
            raise problem("needs exactly one of field, header")
        return self


class SourceSpec(Spec):
    """``source``: the topic that events come from, and how to read them."""

    topic: Topic
    format: Annotated[FormatSpec, BeforeValidator(_known_format)] = "json"
    key: Path | None = None
    event_id: Path | None = None
    event_time: Path | None = None
    max_record_bytes: Annotated[int, Field(strict=True, ge=1, le=_MAX_RECORD_BYTES)] = 1_048_576
    max_depth: Annotated[int, Field(strict=True, ge=1, le=_MAX_DEPTH)] = _MAX_DEPTH
    priority: PrioritySpec | None = None
    on_gap: Literal["earliest", "latest", "fail"] = "earliest"

    @property
    def code_fields(self) -> set[str]:
        """Fields that name an event, whose text is not to change: the key and the id."""
        return {field for field in (self.key, self.event_id) if field is not None}

    @model_validator(mode="after")
    def _vectors_have_no_fields(self) -> SourceSpec:
        collect(_vector_problems(self))
        return self


#: What to do instead where a raw vector has no field to name.
_INSTEAD = {
    "key": "records keep the keys that they are produced with; leave it out",
    "event_id": "leave it out: TOPIC/PARTITION/OFFSET is the id",
    "event_time": "leave it out: the record's timestamp is the time",
}


def _vector_problems(source: SourceSpec) -> Iterator[tuple[Location, str]]:
    if isinstance(source.format, str):
        return
    for key, instead in _INSTEAD.items():
        if getattr(source, key) is not None:
            yield (key,), f"a record of format f32 has no fields; {instead}"
    if source.priority is not None and source.priority.field is not None:
        yield ("priority", "field"), "a record of format f32 has no fields; use priority: {header: NAME}"
    n_bytes = 4 * source.format.f32
    if n_bytes > source.max_record_bytes:
        yield ("max_record_bytes",), f"must be at least {n_bytes}, which {source.format.f32} numbers take"


class SinkSpec(Spec):
    """``sink``: the topics that predictions and dead letters go to."""

    topic: Topic
    dead_letter: Annotated[Topic, Field(default_factory=lambda sink: f"{sink['topic']}.dead", validate_default=True)]
    flight_record: Annotated[bool, Field(strict=True)] = False


class PipelineSpec(Spec):
    """A whole pipeline, as its file says it."""

    pipeline: Name
    source: SourceSpec
    models_dir: Text = "models"
    stages: Annotated[tuple[StageSpec, ...], AfterValidator(not_empty)]
    sink: SinkSpec
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    #: How long a transaction gathers outputs, under exactly_once; None for the default.
    transaction_interval_ms: Annotated[float, Field(ge=10, le=60_000, allow_inf_nan=False)] | None = None
    threads: Threads | None = None
    broker: Annotated[str, checked(bootstrap_problem)] | None = None
    redis: Annotated[str, checked(redis_problem), AfterValidator(_no_password)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineSpec:
        collect(
            [
                *_topic_problems(self),
                *_delivery_problems(self),
                *_stage_problems(self.stages),
                *_field_problems(self),
                *_model_problems(self.stages),
            ]
        )
        return self


def _topic_problems(spec: PipelineSpec) -> Iterator[tuple[Location, str]]:
    source, sink = spec.source.topic, spec.sink
    if sink.topic == source:
        yield ("sink", "topic"), f"{sink.topic!r} is the source's topic; a pipeline must not read its own predictions"
    if sink.dead_letter == source:
        yield ("sink", "dead_letter"), f"{source!r} is the source's topic; a pipeline must not read its dead letters"
    if sink.dead_letter == sink.topic:
        yield ("sink", "dead_letter"), f"{sink.topic!r} is the topic of the predictions; dead letters need their own"


def _delivery_problems(spec: PipelineSpec) -> Iterator[tuple[Location, str]]:
    if spec.transaction_interval_ms is not None and spec.delivery != "exactly_once":
        yield ("transaction_interval_ms",), "only delivery: exactly_once has transactions; add that, or leave it out"


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


def _field_problems(spec: PipelineSpec) -> Iterator[tuple[Location, str]]:
    if isinstance(spec.source.format, str):
        return
    wanted = f"a record of format f32 has no fields; its column is {spec.source.format.field!r}"
    for i, stage in enumerate(spec.stages):
        if isinstance(stage.extract, DeclaredColumns):
            yield ("stages", i, "extract", "columns"), wanted
        if isinstance(stage.filter, PresentFields):
            yield ("stages", i, "filter", "present"), wanted
        if isinstance(stage.rules, RulesSpec) and stage.rules.fields:
            yield ("stages", i, "rules", "fields"), wanted


def _model_problems(stages: tuple[StageSpec, ...]) -> Iterator[tuple[Location, str]]:
    # By name, not by version: predictions stand under it.
    first: dict[str, str] = {}
    for i, stage in enumerate(stages):
        for name, place in _answer_places(stage):
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
            if name in first:
                kind = "model" if place[-2] == "models" else "the name"
                yield ("stages", i, *place), f"{kind} {name!r} stands at {first[name]} already"
            first.setdefault(name, f"stages[{i}]{path}")


def _answer_places(stage: StageSpec) -> Iterator[tuple[str, Location]]:
    """Yield what answers of a stage stand under, each with its place in the stage."""
    if stage.infer is not None:
        for j, entry in enumerate(stage.infer.models):
            yield entry.name, ("infer", "models", j)
        for kind in ("ensembles", "cascades"):
            for name in getattr(stage.infer, kind):
                yield name, ("infer", kind, name)
    elif isinstance(stage.rules, RulesSpec):
        for name in stage.rules.outputs:
            yield name, ("rules", "outputs", name)


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
