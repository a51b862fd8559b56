"""``modelstream validate``: every check that `run` makes, without joining."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from modelstream.streams.build import BuiltPipeline
from modelstream.streams.caching import cache_settings, what_is_wrong
from modelstream.streams.cli.common import (
    broker_option,
    broker_settings,
    pipeline_argument,
    read_pipeline,
    redis_option,
    set_option,
)
from modelstream.streams.cli.models_text import describe_field, describe_model
from modelstream.streams.graph import cascade_lines, ensemble_line, rules_lines
from modelstream.streams.infer_spec import ModelSpec
from modelstream.streams.input_notes import input_notes
from modelstream.streams.known_columns import unchecked_notes
from modelstream.streams.required_topics import require_worker_topics
from modelstream.streams.spec import DeclaredColumns, PresentFields, StageSpec
from modelstream.streams.stage_spec import RulesSpec
from modelstream.streams.wording import counted
from modelstream.streams.worker_limits import limits_of

__all__ = ["command"]


@click.command(
    "validate",
    epilog="""\b
Examples:
  modelstream validate examples/flights/pipeline.yaml
  modelstream validate pipeline.yaml --broker localhost:9092
  modelstream validate pipeline.yaml --set stages[1].infer.models[0]=arrival_delay@2 --offline
""",
)
@pipeline_argument
@broker_option
@redis_option
@set_option
@click.option("--offline", is_flag=True, help="Do not ask the broker, even if one is named.")
def command(pipeline: Path, broker: str | None, redis: str | None, overrides: tuple[str, ...], offline: bool) -> None:
    """Check PIPELINE: its file, its functions, its models against their contracts, and its topics.

    The topics are checked if a broker is named, by --broker, MODELSTREAM_BROKER or the file; and that the broker can do
    exactly-once, if the pipeline asks for it. Exit code 0 means that `run` would start, 2 that something is wrong with
    the configuration, 1 that the broker does not answer or refuses.
    """
    described = read_pipeline(pipeline, overrides)
    cache = cache_settings(described.spec, redis, os.environ)
    built = described.build(redis_url=cache.url if cache else None)
    topics = _check_topics(pipeline, built, broker, offline)
    for label, text in _summary(built):
        click.echo(f"{label:<9} {text}")
    if cache is not None:
        # Not a failure where it does not: a worker would start, and compute every answer until it does.
        problem = what_is_wrong(cache)
        click.echo(f"{'redis':<9} {f'does not answer: {problem}' if problem else 'answers'}")
    click.echo(f"{'broker':<9} {topics}")
    click.echo("ok")


def _check_topics(pipeline: Path, built: BuiltPipeline, broker: str | None, offline: bool) -> str:
    spec = built.spec
    if offline:
        return "not asked (--offline)"
    if not (broker or os.environ.get("MODELSTREAM_BROKER") or spec.broker):
        return "not asked; none is named"
    settings = broker_settings(broker, spec.broker)
    counts = require_worker_topics(settings, spec, pipeline)
    if spec.delivery == "exactly_once":
        # Imported here: most pipelines are checked without an app.
        from modelstream.streams.app import App

        app = App(spec.pipeline, settings=settings, limits=limits_of(spec), built=built)
        if (exactly_once := app.exactly_once) is not None:
            exactly_once.check(spec.source.topic)
    return f"{settings.bootstrap}, has " + ", ".join(
        f"{topic} ({counted(n, 'partition')})" for topic, n in counts.items()
    )


def _summary(built: BuiltPipeline) -> Iterator[tuple[str, str]]:
    spec = built.spec
    source = spec.source
    fields = {"key": source.key, "event_id": source.event_id, "event_time": source.event_time}
    yield "pipeline", f"{spec.pipeline}, {spec.delivery.replace('_', ' ')}"
    format_ = source.format if isinstance(source.format, str) else f"f32[{source.format.f32}]"
    yield "source", ", ".join([source.topic, format_, *(f"{k} {v}" for k, v in fields.items() if v)])
    for stage in spec.stages:
        yield "stage", f"{stage.id}: {stage.kind} {_describe(stage)}"
        if stage.infer is not None:
            for name, ensemble in stage.infer.ensembles.items():
                yield "  gives", f"{name}: {ensemble_line(ensemble)}"
            for name, cascade in stage.infer.cascades.items():
                yield "  gives", f"{name}: {', '.join(cascade_lines(cascade))}"
    for model in built.models:
        yield "model", describe_model(model)
        for note in model.notes:
            yield "  note", note
    for note in (*input_notes(spec), *unchecked_notes(spec)):
        yield "note", note
    yield "sink", f"{spec.sink.topic}, dead letters to {spec.sink.dead_letter}"


def _describe(stage: StageSpec) -> str:
    if stage.infer is not None:
        cached = f", answers kept for {stage.infer.cache.ttl_s} s" if stage.infer.cache else ""
        models = ", ".join(_name_model(entry) for entry in stage.infer.models)
        return f"{models}, at most {stage.infer.batch.most_rows} rows at once{cached}"
    step = getattr(stage, stage.kind)
    if isinstance(step, DeclaredColumns):
        return ", ".join(describe_field(column.as_column(name)) for name, column in step.columns.items())
    if isinstance(step, PresentFields):
        return f"present {', '.join(step.present)}"
    if isinstance(step, RulesSpec):
        return "; ".join(rules_lines(step))
    return str(step)


def _name_model(model: ModelSpec) -> str:
    return f"{model.name} = {model.model}" if model.is_renamed else model.model
