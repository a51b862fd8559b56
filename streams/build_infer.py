"""From an ``infer`` stage of the pipeline file to the operator: models loaded, and checked against what they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelstream.models.contract import ANY_WIDTH
from modelstream.models.errors import ConfigError
from modelstream.models.registry import find_version
from modelstream.operators.answers import OutputSchema
from modelstream.operators.cascade import Cascade
from modelstream.operators.circuit import Circuit
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.fields import ColumnSpec, type_text
from modelstream.operators.infer import Infer, NamedModel, ScoringModel
from modelstream.streams.infer_spec import EnsembleSpec, InferSpec
from modelstream.streams.known_columns import KnownColumns, known_columns
from modelstream.streams.spec_errors import joined
from modelstream.streams.stage_spec import StageSpec

if TYPE_CHECKING:
    from modelstream.models.contract import FieldSpec
    from modelstream.models.onnx_model import OnnxModel
    from modelstream.streams.spec import SourceSpec

__all__ = ["ModelLoader", "build_infer", "check_models_exist"]


class ModelLoader:
    """Loads models, each version once, however it is named, and whatever time stages give it.

    Parameters
    ----------
    models_dir : Path
        Folder of the models.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._loaded: dict[tuple[Path, str], OnnxModel] = {}

    @property
    def models(self) -> tuple[OnnxModel, ...]:
        """All models, in the order in which they were asked for."""
        return tuple(self._loaded.values())

    def load(self, reference: str, infer: InferSpec, path: str) -> OnnxModel:
        """Return a model for a stage; `path` is where the reference stands.

        Raises
        ------
        ConfigError
            There is no such model or version, or no such provider.
        ModelLoadError
            It is broken.
        """
        # Imported here: what only reads pipeline files needs no ONNX Runtime.
        from modelstream.models.loading import load_model

        key = find_version(self._models_dir, reference, path).directory, infer.provider
        if key not in self._loaded:
            self._loaded[key] = load_model(self._models_dir, reference, path=path, provider=infer.provider)
        model = self._loaded[key]
        return model if infer.timeout_ms is None else model.with_timeout(infer.timeout_ms / 1000)


def build_infer(
    stage: StageSpec,
    before: Sequence[StageSpec],
    earlier: Mapping[str, OutputSchema],
    loader: ModelLoader,
    path: str,
    source: SourceSpec | None = None,
) -> Infer:
    """Return the operator of a stage that infers.

    Parameters
    ----------
    stage : StageSpec
        The stage.
    before : sequence of StageSpec
        The stages before it.
    earlier : mapping of str to OutputSchema
        What they answer.
    loader : ModelLoader
        Where models come from.
    path : str
        Where the stage stands, such as ``stages[1]``.
    source : SourceSpec, optional
        Where events come from: raw vectors have a column, and no fields.

    Raises
    ------
    ConfigError
        There is no such model, or models, fields, columns and answers do not go together.
    ModelLoadError
        A model is broken.
    """
    spec = stage.infer
    assert spec is not None
    if spec.provider != "cpu":
        # Each model would say so, too, but at the path of its name.
        from modelstream.models.providers import find_provider

        find_provider(spec.provider, f"{path}.infer.provider")
    places = [f"{path}.infer.models[{j}]" for j in range(len(spec.models))]
    named = [
        NamedModel(loader.load(entry.model, spec, place), entry.name, entry.inputs)
        for place, entry in zip(places, spec.models, strict=True)
    ]
    ensembles = [
        _ensemble(name, entry, spec, loader, joined(f"{path}.infer.ensembles", name))
        for name, entry in spec.ensembles.items()
    ]
    known = known_columns(before, source)
    for place, one in zip(places, named, strict=True):
        _check_columns(one, known, place)
        if known.given and not any(stage.extract or stage.rules for stage in before):
            _check_vector(one, known.given, place)
    try:
        return Infer(
            stage.id,
            named,
            spec.batch.most_rows,
            ensembles=ensembles,
            cascades=[Cascade(name, entry.steps, entry.unsure) for name, entry in spec.cascades.items()],
            earlier=earlier,
            non_finite=spec.non_finite,
            circuit=lambda model: _circuit(model, spec),
            pad_to=spec.batch.pad_to or (),
            bucket_by=spec.batch.bucket_by,
        )
    except ConfigError as error:
        within = f".{error.path}" if error.path else ""
        raise ConfigError(f"{path}.infer{within}", error.problem) from None


def check_models_exist(stages: Iterable[StageSpec], models_dir: Path) -> None:
    """Look for the models that stages name, and load none: it is a matter of folders and their names.

    Parameters
    ----------
    stages : iterable of StageSpec
        All stages of a pipeline.
    models_dir : Path
        Folder of the models.

    Raises
    ------
    ConfigError
        There is no such model or version.
    """
    for i, stage in enumerate(stages):
        if stage.infer is None:
            continue
        path = f"stages[{i}].infer"
        for j, entry in enumerate(stage.infer.models):
            find_version(models_dir, entry.model, f"{path}.models[{j}]")
        for name, ensemble in stage.infer.ensembles.items():
            if ensemble.model is not None:
                find_version(models_dir, ensemble.model, f"{joined(f'{path}.ensembles', name)}.model")


def _ensemble(name: str, entry: EnsembleSpec, spec: InferSpec, loader: ModelLoader, path: str) -> Ensemble:
    model = None if entry.model is None else loader.load(entry.model, spec, f"{path}.model")
    return Ensemble(name, entry.mode, entry.members, tuple((entry.weighted or {}).values()), model)


def _circuit(model: ScoringModel, spec: InferSpec) -> Circuit:
    return Circuit(model.name, model.version, spec.circuit.max_failures, spec.circuit.rest_s)


def _check_columns(named: NamedModel, known: KnownColumns, place: str) -> None:
    """Compare what a model reads with what is declared; what functions make, or events hold, only data can tell."""
    for field in named.model.required_fields:
        column = known.columns.get(named.inputs.get(field.name, field.name))
        if column is not None and not _goes_into(column.spec, field):
            raise ConfigError(
                place,
                f"model {named.model.name}@{named.model.version} reads field {field.name!r} as {type_text(field)}, "
                f"but {column.place} is {type_text(column.spec)}",
            )


def _check_vector(named: NamedModel, given: Mapping[str, ColumnSpec], place: str) -> None:
    """Compare what a model reads with what there is, where events have no fields and no stage has made columns."""
    for field in named.model.required_fields:
        read = named.inputs.get(field.name, field.name)
        if read not in given and read not in named.inputs.values():
            [column] = given
            way = f"write source.format.field: {read}, or inputs: {{{read}: {column}}}"
            raise ConfigError(
                place,
                f"model {named.model.name}@{named.model.version} reads field {read!r}; a record of format f32 has no "
                f"fields, only the column {column!r}: {way}",
            )


def _goes_into(column: ColumnSpec, field: FieldSpec) -> bool:
    if field.width == ANY_WIDTH:
        if column.width is None:
            return False
    elif (column.width or 1) != (field.width or 1):
        return False
    if field.dtype == "string":
        return column.dtype in ("string", "int32", "int64")  # whole numbers are written out, as categories often come
    return column.dtype != "string"
