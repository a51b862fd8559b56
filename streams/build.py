"""From a pipeline's description to what runs: functions found, models loaded, and each checked against the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelstream.models.threads import cpu_budget
from modelstream.operators.answers import OutputSchema
from modelstream.operators.cache import CacheCounters, CachedInfer
from modelstream.operators.codecs import Codec
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.extract import Extract
from modelstream.operators.filter import Filter
from modelstream.operators.infer import Infer
from modelstream.operators.operator import Operator
from modelstream.operators.rules import Rules
from modelstream.streams.build_infer import ModelLoader, build_infer
from modelstream.streams.fields_read import find_fields
from modelstream.streams.formats import make_codec
from modelstream.streams.functions import FunctionResolver
from modelstream.streams.infer_spec import CacheSpec
from modelstream.streams.known_columns import known_columns
from modelstream.streams.rules import answers_of, make_rules
from modelstream.streams.spec import DeclaredColumns, PipelineSpec, PresentFields, StageSpec
from modelstream.streams.stage_spec import RulesSpec

if TYPE_CHECKING:
    from modelstream.models.onnx_model import OnnxModel

__all__ = ["BuiltPipeline", "BuiltStage", "build"]


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
    codec : Codec
        Records to events.
    stages : tuple of BuiltStage
        In the order in which events pass them.
    encoder : PredictionEncoder
        Events with the models' answers to prediction records.
    models : tuple of OnnxModel
        The models of all stages, with the versions that the references came out as.
    answers : mapping of str to OutputSchema
        What the predictions say, as far as it is known before there is one.
    """

    spec: PipelineSpec
    codec: Codec
    stages: tuple[BuiltStage, ...]
    encoder: PredictionEncoder
    models: tuple[OnnxModel, ...]
    answers: Mapping[str, OutputSchema]

    @property
    def threads(self) -> int:
        """How many threads all models may use together."""
        return self.spec.threads or cpu_budget()

    @property
    def caches(self) -> dict[str, CacheCounters]:
        """What the caches have done so far, by step id; empty where no stage has one."""
        return {
            stage.step_id: stage.operator.counters for stage in self.stages if isinstance(stage.operator, CachedInfer)
        }

    def close(self, timeout_s: float = 1.0) -> None:
        """Let the caches write what they are to keep, for so many seconds at most, and close their connections."""
        for stage in self.stages:
            if isinstance(stage.operator, CachedInfer):
                stage.operator.close(timeout_s)


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
        if stage.infer is None and not isinstance(stage.rules, RulesSpec)
    }
    loader = ModelLoader(models_dir)
    answers: dict[str, OutputSchema] = {}
    infers: list[Infer] = []
    for i, stage in enumerate(spec.stages):
        if stage.infer is not None:
            infer = build_infer(stage, spec.stages[:i], answers, loader, f"stages[{i}]", spec.source)
            infers.append(infer)
            cache = stage.infer.cache
            operators[i] = infer if redis_url is None or cache is None else _cached(infer, cache, redis_url)
            answers |= infer.schema
        elif isinstance(stage.rules, RulesSpec):
            known = {name: schema.fields for name, schema in answers.items()}
            columns = known_columns(spec.stages[:i], spec.source)
            operators[i] = rules = make_rules(stage.id, stage.rules, columns, known, f"stages[{i}].rules")
            answers |= {name: OutputSchema(fields) for name, fields in answers_of(rules).items()}
    return BuiltPipeline(
        spec=spec,
        codec=make_codec(spec.source, find_fields(spec, infers)),
        stages=tuple(BuiltStage(stage.id, operators[i]) for i, stage in enumerate(spec.stages)),
        encoder=PredictionEncoder(_seed_text(spec, operators.values(), infers)),
        models=loader.models,
        answers=answers,
    )


def _function_operator(stage: StageSpec, functions: FunctionResolver, path: str) -> Operator:
    if isinstance(stage.extract, DeclaredColumns):
        return Extract(stage.id, columns=[column.as_column(name) for name, column in stage.extract.columns.items()])
    if stage.extract is not None:
        return Extract(stage.id, function=functions.resolve(stage.extract, f"{path}.extract"))
    if isinstance(stage.filter, PresentFields):
        return Filter(stage.id, present=stage.filter.present)
    if stage.filter is not None:
        return Filter(stage.id, function=functions.resolve(stage.filter, f"{path}.filter"))
    assert stage.rules is not None and not isinstance(stage.rules, RulesSpec)  # the spec has checked that it is one
    return Rules(stage.id, function=functions.resolve(stage.rules, f"{path}.rules"))


def _cached(infer: Infer, cache: CacheSpec, redis_url: str) -> CachedInfer:
    # Imported here: not every pipeline needs a client of Redis.
    from modelstream.operators.redis_store import open_store

    return CachedInfer(
        infer,
        open_store(redis_url, cache.timeout_ms / 1000),
        cache.ttl_s,
        l1_rows=cache.l1_rows,
        write_behind_rows=cache.write_behind_rows,
        bypass=cache.bypass,
    )


def _seed_text(spec: PipelineSpec, operators: Iterable[Operator], infers: Sequence[Infer]) -> str:
    """Return what predictions come from; events that are delivered again get the same ids from the same models."""
    lines = [spec.pipeline, *(f"{infer.step_id} {infer.recipe}" for infer in infers)]
    # After the models, so that pipelines without rules keep the ids that they had.
    lines += [f"{rules.step_id} {rules.version}" for rules in operators if isinstance(rules, Rules) and rules.version]
    return "\n".join(lines)
