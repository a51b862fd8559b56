"""A pipeline as a value: built in Python or read from a file, the same either way; ready to build, or to simulate."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from modelstream.models.errors import ConfigError
from modelstream.streams.build import BuiltPipeline, BuiltStage, build
from modelstream.streams.build_infer import check_models_exist
from modelstream.streams.functions import function_name
from modelstream.streams.overrides import apply_overrides
from modelstream.streams.python_steps import Source, Step, extract, filter_events, infer, rules
from modelstream.streams.spec import PipelineSpec, SinkSpec, SourceSpec, StageSpec, parse_spec, validated
from modelstream.streams.yaml_file import read_yaml

if TYPE_CHECKING:
    from modelstream.streams.simulation import Simulation

__all__ = [
    "BuiltPipeline",
    "BuiltStage",
    "Pipeline",
    "Source",
    "extract",
    "filter_events",
    "infer",
    "load_pipeline",
    "rules",
]


@dataclass(frozen=True, init=False, slots=True)
class Pipeline:
    """From a topic of events through stages to a topic of predictions; nothing runs until it is built.

    Every method returns a new pipeline, or something else entirely; none changes this one. Two pipelines are equal if
    their files would say the same.

    Parameters
    ----------
    name : str
        Name of the pipeline, and of its consumer group.
    source : Source or str
        Where events come from: the keys of ``source`` in the pipeline file, or just the topic.
    models_dir : str
        Folder of the models, relative to `folder`.
    delivery : str
        The guarantee.
    threads : int, optional
        Threads for all models together; by default as many as the process may use CPUs.
    broker, redis : str, optional
        Where Kafka and Redis are, unless the environment or an option says otherwise.
    folder : path
        What relative names start from, and where modules of functions are looked for first. A pipeline read from a
        file has the file's folder. Two pipelines may be equal and have different ones.

    Raises
    ------
    ConfigError
        A value is wrong; here, in `then`, or at the latest in `to`.

    Examples
    --------
    >>> pipeline = (
    ...     Pipeline("flights", source={"topic": "flights.events", "event_id": "id"})
    ...     .then("features", extract("features:departure"))
    ...     .then("delay", infer(["arrival_delay"]))
    ...     .to("flights.predictions")
    ... )
    >>> pipeline.spec.sink.dead_letter
    'flights.predictions.dead'
    """

    name: str
    source: SourceSpec
    stages: tuple[StageSpec, ...]
    sink: SinkSpec | None
    models_dir: str
    delivery: str
    transaction_interval_ms: float | None
    threads: int | None
    broker: str | None
    redis: str | None
    folder: Path = field(compare=False)

    def __init__(
        self,
        name: str,
        source: Source | SourceSpec | Mapping[str, Any] | str,
        *,
        models_dir: str = "models",
        delivery: str = "at_least_once",
        transaction_interval_ms: float | None = None,
        threads: int | None = None,
        broker: str | None = None,
        redis: str | None = None,
        folder: str | Path = ".",
    ) -> None:
        self._set(
            name=name,
            source=validated(SourceSpec, {"topic": source} if isinstance(source, str) else source, "source"),
            stages=(),
            sink=None,
            models_dir=models_dir,
            delivery=delivery,
            transaction_interval_ms=transaction_interval_ms,
            threads=threads,
            broker=broker,
            redis=redis,
            folder=Path(folder),
        )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _with(self, **changes: Any) -> Pipeline:
        changed = copy.copy(self)
        changed._set(**changes)
        return changed

    def then(self, step_id: str, step: Step) -> Pipeline:
        """Return this pipeline with one more stage.

        Parameters
        ----------
        step_id : str
            Name of the stage, for dead letters and metrics.
        step : Step
            What `extract`, `filter_events`, `rules` or `infer` returns.
        """
        stage = validated(StageSpec, {"id": step_id, **step}, f"stages[{len(self.stages)}]")
        return self._with(stages=(*self.stages, stage))

    def to(self, topic: str, *, dead_letter: str | None = None, flight_record: bool = False) -> Pipeline:
        """Return this pipeline with its sink; it is complete then, and checked as a whole.

        Parameters
        ----------
        topic : str
            Where predictions go.
        dead_letter : str, optional
            Where events go that cannot be processed; ``TOPIC.dead`` by default.
        flight_record : bool
            Whether predictions tell in headers how they came about.
        """
        keys: dict[str, Any] = {"topic": topic, "flight_record": flight_record}
        if dead_letter is not None:
            keys["dead_letter"] = dead_letter
        complete = self._with(sink=validated(SinkSpec, keys, "sink"))
        _ = complete.spec
        return complete

    @property
    def spec(self) -> PipelineSpec:
        """What the pipeline's file says.

        Raises
        ------
        ConfigError
            The pipeline is not complete, or its parts do not fit together.
        """
        if self.sink is None:
            raise ConfigError("sink", "missing; end the pipeline with .to(TOPIC)")
        keys = {name: getattr(self, name) for name in PipelineSpec.model_fields if name != "pipeline"}
        return parse_spec({"pipeline": self.name, **keys})

    def to_yaml(self) -> str:
        """Return the text of a pipeline file that says the same; defaults are left out.

        Raises
        ------
        ConfigError
            The pipeline is not complete, or has a function that no file can name.

        Examples
        --------
        >>> print(Pipeline("p", "in").then("m", infer(["a"])).to("out").to_yaml())
        pipeline: p
        source:
          topic: in
        stages:
        - id: m
          infer:
            models:
            - a
        sink:
          topic: out
          dead_letter: out.dead
        <BLANKLINE>
        """
        data = self.spec.model_dump(by_alias=True, exclude_defaults=True)
        for i, stage in enumerate(data["stages"]):
            for kind, step in stage.items():
                if callable(step):
                    stage[kind] = function_name(step, f"stages[{i}].{kind}")
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)

    def build(self, models_dir: str | Path | None = None, *, redis_url: str | None = None) -> BuiltPipeline:
        """Return the pipeline ready to run: functions found, models loaded and checked against their contracts.

        Parameters
        ----------
        models_dir : path, optional
            Folder of the models, instead of the pipeline's own.
        redis_url : str, optional
            Where stages with a ``cache`` keep their answers; without it every answer is computed.

        Raises
        ------
        ConfigError, ModelLoadError
            Something that the pipeline names is missing or does not fit.
        """
        models = self.folder / self.models_dir if models_dir is None else Path(models_dir)
        return build(self.spec, self.folder, models, redis_url)

    def check_models_exist(self) -> None:
        """Look for the models that the stages name, without loading one: what is cheap of `build`.

        Raises
        ------
        ConfigError
            There is no such model or version.
        """
        check_models_exist(self.stages, self.folder / self.models_dir)

    def simulate(
        self, events: Iterable[Mapping[str, Any] | bytes | None], *, models_dir: str | Path | None = None
    ) -> Simulation:
        """Run events through the pipeline in this process, without Kafka; see `simulate` in `streams.simulation`.

        Parameters
        ----------
        events : iterable of mapping or bytes
            Events, or the raw bytes of records, broken ones too.
        models_dir : path, optional
            Folder of the models, instead of the pipeline's own.
        """
        from modelstream.streams.simulation import simulate

        return simulate(self.build(models_dir), events)


def load_pipeline(path: str | Path, overrides: Iterable[str] = ()) -> Pipeline:
    """Return the pipeline that a file describes.

    Parameters
    ----------
    path : path
        The pipeline file, in YAML.
    overrides : iterable of str
        Single values to set, as ``sink.topic=other``.

    Raises
    ------
    ConfigError
        The file cannot be read, or something in it is wrong; the message lists every problem with its path.
    """
    file = Path(path)
    spec = parse_spec(apply_overrides(read_yaml(file), overrides))
    pipeline = Pipeline(
        spec.pipeline,
        spec.source,
        models_dir=spec.models_dir,
        delivery=spec.delivery,
        transaction_interval_ms=spec.transaction_interval_ms,
        threads=spec.threads,
        broker=spec.broker,
        redis=spec.redis,
        folder=file.parent,
    )
    return pipeline._with(stages=spec.stages, sink=spec.sink)
