"""Which columns there are after some stages, and how they look, as far as the pipeline's file tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelstream.operators.answers import find_answer
from modelstream.operators.expressions import compile_expression
from modelstream.operators.fields import ColumnSpec
from modelstream.streams.formats import source_columns
from modelstream.streams.stage_spec import DeclaredColumns, RulesSpec, StageSpec

if TYPE_CHECKING:
    from modelstream.streams.spec import PipelineSpec, SourceSpec

__all__ = ["KnownColumn", "KnownColumns", "known_columns", "unchecked_notes"]


@dataclass(frozen=True, slots=True)
class KnownColumn:
    """A column whose type is written down.

    Parameters
    ----------
    place : str
        Where, such as ``stages[0].rules.fields.x``.
    spec : ColumnSpec
        Its type and width.
    """

    place: str
    spec: ColumnSpec


@dataclass(slots=True)
class KnownColumns:
    """The columns that there are after some stages.

    Parameters
    ----------
    columns : dict of str to KnownColumn or None
        By name; None where only data can tell how one looks.
    given : dict of str to ColumnSpec
        Those that decoding gives: events that have them have no fields.
    is_open : bool
        Whether a function may have made others.
    """

    columns: dict[str, KnownColumn | None] = field(default_factory=dict)
    given: dict[str, ColumnSpec] = field(default_factory=dict)
    is_open: bool = False


def known_columns(stages: Sequence[StageSpec], source: SourceSpec | None = None) -> KnownColumns:
    """Return the columns that there are after some stages.

    Parameters
    ----------
    stages : sequence of StageSpec
        The first stages of a pipeline.
    source : SourceSpec, optional
        Where events come from: raw vectors have a column, and no fields.

    Examples
    --------
    >>> rules = StageSpec.model_validate({"id": "r", "rules": {"fields": {"x": "float64"}, "columns": {"y": "x * 2"}}})
    >>> known = known_columns([rules])
    >>> known.columns["x"].place, known.columns["y"], known.is_open
    ('stages[0].rules.fields.x', None, False)
    >>> known_columns([rules, StageSpec.model_validate({"id": "f", "extract": "features:departure"})])
    KnownColumns(columns={'x': None, 'y': None}, given={}, is_open=True)
    """
    given = {} if source is None else source_columns(source)
    known = KnownColumns({name: KnownColumn("source.format", spec) for name, spec in given.items()}, given)
    for i, stage in enumerate(stages):
        if isinstance(stage.extract, DeclaredColumns):
            for name, keys in stage.extract.columns.items():
                known.columns[name] = KnownColumn(f"stages[{i}].extract.columns.{name}", keys.as_column(name))
        elif isinstance(stage.rules, RulesSpec):
            for name, keys in stage.rules.fields.items():
                known.columns[name] = KnownColumn(f"stages[{i}].rules.fields.{name}", keys.as_column(name))
            known.columns |= dict.fromkeys(stage.rules.columns)
        elif stage.extract is not None or stage.rules is not None:
            known.columns = dict.fromkeys(known.columns)  # the function may replace any of them
            known.is_open = True
    return known


def unchecked_notes(spec: PipelineSpec) -> Iterator[str]:
    """Yield a line for each stage whose expressions read what only a function can have made, if it has.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.

    Examples
    --------
    >>> from modelstream.streams.spec import PipelineSpec
    >>> spec = PipelineSpec.model_validate({
    ...     "pipeline": "p", "source": {"topic": "t"}, "sink": {"topic": "s"},
    ...     "stages": [{"id": "a", "extract": "m:f"}, {"id": "b", "rules": {"keep": "distance > 0"}},
    ...                {"id": "c", "infer": {"models": ["worth"]}}],
    ... })
    >>> for note in unchecked_notes(spec):
    ...     print(note)  # doctest: +NORMALIZE_WHITESPACE
    stages[1].rules: nothing checks 'distance', which a function of a stage before must make;
    fields of the events are declared under rules.fields
    """
    answers: list[str] = []
    for i, stage in enumerate(spec.stages):
        if isinstance(stage.rules, RulesSpec):
            known = known_columns(spec.stages[:i], spec.source)
            others = _names(stage.rules) - known.columns.keys() - stage.rules.fields.keys() - stage.rules.columns.keys()
            names = [name for name in sorted(others) if find_answer(name, answers) is None]
            if names and known.is_open:
                where = "" if known.given else "; fields of the events are declared under rules.fields"
                read = ", ".join(map(repr, names))
                yield f"stages[{i}].rules: nothing checks {read}, which a function of a stage before must make{where}"
        answers += stage.answers


def _names(rules: RulesSpec) -> frozenset[str]:
    outputs = [text for fields in rules.outputs.values() for text in fields.values()]
    texts = [*rules.columns.values(), *([] if rules.keep is None else [rules.keep]), *rules.reject.values(), *outputs]
    return frozenset[str]().union(*(compile_expression(text, "").names for text in texts))
