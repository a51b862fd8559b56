"""Which fields of its events a pipeline reads, where that is all that it reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from modelstream.operators.fields import MISSING, ColumnSpec
from modelstream.operators.json_fields import JsonFields, VectorField
from modelstream.operators.json_format import DEEPEST
from modelstream.streams.stage_spec import DeclaredColumns, RulesSpec, StageSpec

if TYPE_CHECKING:
    from modelstream.operators.infer import Infer
    from modelstream.streams.spec import PipelineSpec

__all__ = ["find_fields"]

# A vector of fewer numbers is read as quickly by orjson (measured).
_WORTHWHILE_WIDTH = 8

# A name that JSON writes in one way, unless some character is given by its number.
_PLAIN_NAME = re.compile(r"[\w :-]+", re.ASCII)


def find_fields(spec: PipelineSpec, infers: Iterable[Infer]) -> JsonFields | None:
    """Return what reads all that a pipeline reads of its events; None where orjson should decode them.

    That is so where functions look at events, where a field may be absent or stands deeper in the event, and where
    there is no vector, since only vectors are read faster.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.
    infers : iterable of Infer
        Its stages that infer, in their order.
    """
    source = spec.source
    columns = list(_columns_read(spec.stages, infers))
    whole = source.format != "json" or source.max_depth < DEEPEST or source.priority is not None
    if whole or any(column is None or not _is_plain(column) for column in columns):
        return None
    names = [name for name in (source.event_id, source.event_time) if name is not None]
    names += [column.source for column in columns if column is not None and column.width is None]
    read_as = {
        (column.source, VectorField(column.width, column.separator))
        for column in columns
        if column is not None and column.width is not None
    }
    vectors = dict(read_as)
    if len(vectors) < len(read_as) or not all(map(_PLAIN_NAME.fullmatch, (*names, *vectors))):
        return None
    widest = max((vector.width for vector in vectors.values()), default=0)
    return JsonFields(names, vectors) if widest >= _WORTHWHILE_WIDTH else None


def _columns_read(stages: Sequence[StageSpec], infers: Iterable[Infer]) -> Iterator[ColumnSpec | None]:
    """Yield what stages read of events; None where that is not known, or might be anything."""
    known: set[str] = set()
    by_step = {infer.step_id: infer for infer in infers}
    for stage in stages:
        if stage.infer is not None:
            yield from (column for column in by_step[stage.id].fields if column.name not in known)
        elif isinstance(stage.extract, DeclaredColumns):
            yield from (keys.as_column(name) for name, keys in stage.extract.columns.items())
            known |= stage.extract.columns.keys()
        elif isinstance(stage.rules, RulesSpec):
            yield from (keys.as_column(name) for name, keys in stage.rules.fields.items())
            known |= stage.rules.fields.keys() | stage.rules.columns.keys()
        else:
            yield None


def _is_plain(column: ColumnSpec) -> bool:
    if column.default is not MISSING:
        return False
    return column.width is None or (column.width > 0 and column.dtype.startswith("float"))
