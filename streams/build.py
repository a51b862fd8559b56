"""From a pipeline's description to what runs: functions found, models loaded, and each checked against the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch, Lineage, Settled
from modelstream.operators.cache import CacheCounters, CachedInfer, Store
from modelstream.operators.codecs import JsonCodec
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.extract import Extract
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.filter import Filter
from modelstream.operators.infer import Infer
from modelstream.operators.operator import Operator, run_isolated
from modelstream.streams.functions import FunctionResolver
from modelstream.streams.spec import DeclaredColumns, InferSpec, PipelineSpec, PresentFields, StageSpec

if TYPE_CHECKING:
    from modelstream.models.contract import FieldSpec
    from modelstream.models.onnx_model import OnnxModel

__all__ = ["BuiltPipeline", "BuiltStage", "build", "run_stages"]


@dataclass(frozen=True, slots=True)
class BuiltStage:
    """One stage, ready to run.

    Parameters
    ----------
    step_id : str
        Its id in the pipeline.
    operator : Operator
        What it does to a batch.
    """

    step_id: str
    operator: Operator


@dataclass(frozen=True, slots=True)
class BuiltPipeline:
    """A pipeline whose functions and models are loaded.

    Parameters
    ----------
    spec : PipelineSpec
        What its file says.
    codec : JsonCodec
        Records to events.
    stages : tuple of BuiltStage
        In the order in which events pass them.
    encoder : PredictionEncoder
        Events with the models' answers to prediction records.
    models : tuple of OnnxModel
        The models of all stages, with the versions that the references came out as.
    """

    spec: PipelineSpec
    codec: JsonCodec
    stages: tuple[BuiltStage, ...]
    encoder: PredictionEncoder
    models: tuple[OnnxModel, ...]

    @property
    def caches(self) -> dict[str, CacheCounters]:
        """What the caches have done so far, by step id; empty where no stage has one."""
        return {
            stage.step_id: stage.operator.counters for stage in self.stages if isinstance(stage.operator, CachedInfer)
        }


def run_stages(stages: Sequence[BuiltStage], batch: EventBatch) -> Settled:
    """Run a batch through stages, one after the other, and gather what became of its rows.

    Parameters
    ----------
    stages : sequence of BuiltStage
        The stages.
    batch : EventBatch
        Rows, all of them kept.

    Returns
    -------
    Settled
        The rows that all stages kept, in their order; and, stage by stage, those filtered and those rejected.

    Examples
    --------
    >>> known = BuiltStage("known", Filter("known", present=("x",)))
    >>> settled = run_stages([known], EventBatch.of_events([{"x": 1}, {}]))
    >>> settled.kept.events, len(settled.filtered), settled.rejected
    ([{'x': 1}], 1, None)
    """
    filtered: list[Lineage] = []
    rejected: list[EventBatch] = []
    for stage in stages:
        if not len(batch):
            break
        settled = run_isolated(stage.operator, batch)
        batch = settled.kept
        if settled.filtered is not None:
            filtered.append(settled.filtered)
        if settled.rejected is not None:
            rejected.append(settled.rejected)
    return Settled(
        batch,
        Lineage.concat(filtered) if filtered else None,
        EventBatch.concat(rejected) if rejected else None,
    )


def build(spec: PipelineSpec, folder: Path, models_dir: Path, redis_url: str | None = None) -> BuiltPipeline:
    """Return a pipeline ready to run.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.
    folder : Path
        Where modules of functions are looked for first.
    models_dir : Path
        Folder of the models.
    redis_url : str, optional
        Where stages with a ``cache`` keep their answers; without it every answer is computed.

    Raises
    ------
    ConfigError
        There is no such function, model or version, or what a model reads is declared otherwise.
    ModelLoadError
        A model is broken, or does not do what its contract says.
    """
    functions = FunctionResolver(folder)
    # Models last: a typo in a function should not wait for them.
    operators: dict[int, Operator] = {
        i: _function_operator(stage, functions, f"stages[{i}]")
        for i, stage in enumerate(spec.stages)
        if stage.infer is None
    }
    models: dict[str, OnnxModel] = {}
    store = _store(spec, redis_url)
    for i, stage in enumerate(spec.stages):
        if stage.infer is not None:
            answering = _load(stage.infer, models_dir, f"stages[{i}]")
            _check_columns(answering, spec.stages[:i], f"stages[{i}]")
            infer = _infer(stage, answering, f"stages[{i}]")
            cache = stage.infer.cache
            operators[i] = infer if store is None or cache is None else CachedInfer(infer, store, cache.ttl_s)
            models |= answering
    source = spec.source
    return BuiltPipeline(
        spec=spec,
        codec=JsonCodec(
            max_record_bytes=source.max_record_bytes,
            max_depth=source.max_depth,
            event_id=source.event_id,
            event_time=source.event_time,
        ),
        stages=tuple(BuiltStage(stage.id, operators[i]) for i, stage in enumerate(spec.stages)),
        encoder=PredictionEncoder(_seed_text(spec, list(models.values()))),
        models=tuple(models.values()),
    )


def _function_operator(stage: StageSpec, functions: FunctionResolver, path: str) -> Operator:
    if isinstance(stage.extract, DeclaredColumns):
        return Extract(stage.id, columns=[column.as_column(name) for name, column in stage.extract.columns.items()])
    if stage.extract is not None:
        return Extract(stage.id, function=functions.resolve(stage.extract, f"{path}.extract"))
    if isinstance(stage.filter, PresentFields):
        return Filter(stage.id, present=stage.filter.present)
    assert stage.filter is not None  # the spec has checked that it is one of the three
    return Filter(stage.id, function=functions.resolve(stage.filter, f"{path}.filter"))


def _load(infer: InferSpec, models_dir: Path, path: str) -> dict[str, OnnxModel]:
    """Return the models of a stage by the path of their references."""
    from modelstream.models.loading import load_model

    places = [f"{path}.infer.models[{j}]" for j in range(len(infer.models))]
    return {
        place: load_model(models_dir, reference, path=place)
        for place, reference in zip(places, infer.models, strict=True)
    }


def _infer(stage: StageSpec, models: Mapping[str, OnnxModel], path: str) -> Infer:
    assert stage.infer is not None
    try:
        return Infer(stage.id, list(models.values()), stage.infer.batch.max_size)
    except ConfigError as error:  # the models do not go together
        raise ConfigError(f"{path}.infer.models", error.problem) from None


def _store(spec: PipelineSpec, redis_url: str | None) -> Store | None:
    """Return the one store of all stages, since one thread uses it; None where no answer is kept."""
    if redis_url is None or not any(stage.infer and stage.infer.cache for stage in spec.stages):
        return None
    from modelstream.operators.redis_store import RedisStore

    return RedisStore(redis_url)


def _check_columns(models: Mapping[str, OnnxModel], before: Sequence[StageSpec], path: str) -> None:
    """Compare what models read with what is declared. What a function makes, or an event holds, only data can tell."""
    declared: dict[str, tuple[str, ColumnSpec]] = {}
    for i, stage in enumerate(before):
        if isinstance(stage.extract, DeclaredColumns):
            for name, keys in stage.extract.columns.items():
                declared[name] = (f"stages[{i}].extract.columns.{name}", keys.as_column(name))
        elif stage.extract is not None:
            declared.clear()  # the function may replace any column
    for place, model in models.items():
        for field in model.required_fields:
            declared_at, column = declared.get(field.name, ("", None))
            if column is not None and not _goes_into(column, field):
                raise ConfigError(
                    place,
                    f"model {model.name}@{model.version} reads field {field.name!r} as {_say(field)}, "
                    f"but {declared_at} is {_say(column)}",
                )


def _goes_into(column: ColumnSpec, field: FieldSpec) -> bool:
    if (column.width or 1) != (field.width or 1):
        return False
    if field.dtype == "string":
        return column.dtype in ("string", "int32", "int64")  # whole numbers are written out, as categories often come
    return column.dtype != "string"


def _say(field: ColumnSpec | FieldSpec) -> str:
    return field.dtype if field.width is None else f"{field.dtype}[{field.width}]"


def _seed_text(spec: PipelineSpec, models: Sequence[OnnxModel]) -> str:
    """Return what predictions come from; events that are delivered again get the same ids from the same models."""
    versions = {model.name: model.version for model in models}
    lines = [spec.pipeline]
    for stage in spec.stages:
        if stage.infer is not None:
            names = [reference.partition("@")[0] for reference in stage.infer.models]
            lines.append(" ".join([stage.id, *(f"{name}@{versions[name]}" for name in names)]))
    return "\n".join(lines)
