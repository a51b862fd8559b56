"""Where the fields of a model come from: columns, event fields, and the answers of other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelstream.models.contract import ANY_WIDTH, Column, FieldSpec
from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.answers import ASKED, Fields, OutputSchema, find_answer
from modelstream.operators.ensemble import is_label
from modelstream.operators.fields import type_text
from modelstream.operators.model_call import ModelCall

__all__ = ["Wiring", "check_fields", "stack_wiring"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where the fields of one model come from.

    Parameters
    ----------
    columns : mapping of str to str
        For fields that come from outside of the stage, the column.
    reads : mapping of str to tuple of (str, str)
        For fields that are answers of this stage, the answer and its field; several make a vector.
    earlier : mapping of str to (str, str)
        For columns that are answers of stages before, the answer and its field.
    masks : tuple of str
        Columns that say about which rows those stages were asked, where they may not have been.
    nodes : tuple of str
        All answers of this stage that are needed.
    """

    columns: Mapping[str, str]
    reads: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    earlier: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @classmethod
    def of(cls, call: ModelCall, names: Sequence[str], earlier: Mapping[str, OutputSchema]) -> Wiring:
        """Return the wiring of a model.

        Parameters
        ----------
        call : ModelCall
            The model.
        names : sequence of str
            All answers of the stage.
        earlier : mapping of str to OutputSchema
            Those of the stages before.
        """
        columns, reads, before = {}, {}, {}
        for name, source in call.sources.items():
            # A field that is named like an answer is no more than that; only `inputs` reads answers.
            found = find_answer(source, (*names, *earlier)) if source != name else None
            if found is None or found[0] in earlier:
                columns[name] = source
                if found is not None:
                    before[source] = found
            else:
                reads[name] = (found,)
        masks = dict.fromkeys(f"{ASKED} {answer}" for answer, _ in before.values() if earlier[answer].partial)
        nodes = dict.fromkeys(answer for places in reads.values() for answer, _ in places)
        return cls(columns, reads, before, tuple(masks), tuple(nodes))


def stack_wiring(call: ModelCall, members: Mapping[str, Fields]) -> Wiring:
    """Return the wiring of a model that reads the answers of an ensemble's members.

    A field named ``MEMBER.FIELD`` is that; one named like a member is its only field of numbers. If there is neither,
    the model's one vector field gets all fields of numbers side by side. Other fields come from the events.

    Parameters
    ----------
    call : ModelCall
        The model.
    members : mapping of str to mapping of str to Column
        What the members' answers look like, in their order.

    Raises
    ------
    ConfigError
        The model reads nothing of the members.
    """
    numbers = {
        name: [one for one, column in fields.items() if not is_label(column)] for name, fields in members.items()
    }
    reads: dict[str, tuple[tuple[str, str], ...]] = {}
    for name in call.sources:
        found = find_answer(name, members)
        if found is not None:
            reads[name] = (found,)
        elif len(numbers.get(name, ())) == 1:
            reads[name] = ((name, numbers[name][0]),)
    vectors = [one for one in call.model.required_fields if one.width is not None]
    if not reads and len(vectors) == 1:
        places = tuple((name, one) for name, fields in numbers.items() for one in fields)
        width = sum(_n_values(members[name][one]) for name, one in places)
        if width == vectors[0].width:
            reads[vectors[0].name] = places
    if not reads:
        told = "; ".join(f"{name}: {', '.join(fields)}" for name, fields in members.items())
        raise ConfigError(
            call.path,
            f"model {call.told} reads no answer of those that are stacked; name its fields MEMBER.FIELD, of {told}, "
            "or let it read one vector of all their numbers",
        )
    columns = {name: source for name, source in call.sources.items() if name not in reads}
    return Wiring(columns, reads, nodes=tuple(members))


def check_fields(
    call: ModelCall, wiring: Wiring, samples: Mapping[str, Fields], earlier: Mapping[str, OutputSchema]
) -> None:
    """Check that the answers which a model reads are there, and go into its fields.

    Parameters
    ----------
    call : ModelCall
        The model.
    wiring : Wiring
        Where its fields come from.
    samples : mapping of str to mapping of str to Column
        What the answers of this stage look like.
    earlier : mapping of str to OutputSchema
        Those of the stages before.

    Raises
    ------
    ConfigError
        There is no such field, or it holds text for a number, or a vector of another width.
    """
    specs = {one.name: one for one in call.model.required_fields}
    for name, column in wiring.columns.items():
        if column in wiring.earlier and name in specs:
            answer, output = wiring.earlier[column]
            _check_one(call, specs[name], f"{answer}.{output}", _look_up(call, name, answer, output, earlier))
    schemas = {answer: OutputSchema(fields) for answer, fields in samples.items()}
    for name, places in wiring.reads.items():
        for answer, output in places:
            column_ = _look_up(call, name, answer, output, schemas)
            if len(places) == 1 and name in specs:
                _check_one(call, specs[name], f"{answer}.{output}", column_)


def _look_up(
    call: ModelCall, name: str, answer: str, output: str, schemas: Mapping[str, OutputSchema]
) -> Column | None:
    known = schemas[answer].fields
    if output not in known:
        hint = did_you_mean(output, known) or f"; it has {', '.join(known)}"
        path = f"{call.path}.inputs.{name}" if call.sources[name] != name else call.path
        raise ConfigError(path, f"{answer!r} answers with no field {output!r}{hint}")
    return known[output]


def _check_one(call: ModelCall, spec: FieldSpec, source: str, column: Column | None) -> None:
    if column is None:  # of which only data can tell
        return
    text = isinstance(column, list) or column.dtype == object
    width = None if isinstance(column, list) or column.ndim == 1 else column.shape[1]
    whole = isinstance(column, np.ndarray) and column.dtype.kind in "iu"
    wrong = text != (spec.dtype == "string") and not (whole and spec.dtype == "string")
    fits = width is not None if spec.width == ANY_WIDTH else (width or 1) == (spec.width or 1)
    if wrong or not fits:
        holds = "text" if text else str(column.dtype)  # type: ignore[union-attr]
        raise ConfigError(
            f"{call.path}.inputs.{spec.name}" if call.sources[spec.name] != spec.name else call.path,
            f"model {call.told} reads field {spec.name!r} as {type_text(spec)}, "
            f"but {source} is {holds if width is None else f'{holds}[{width}]'}",
        )


def _n_values(column: Column) -> int:
    return 1 if isinstance(column, list) or column.ndim == 1 else int(np.prod(column.shape[1:]))
