"""The ``rules`` stage from its keys: every expression compiled, against the names that stand before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.answers import find_answer
from modelstream.operators.expressions import Expression, Kind, compile_expression
from modelstream.operators.rules import Rules
from modelstream.streams.known_columns import KnownColumns
from modelstream.streams.spec_errors import joined
from modelstream.streams.stage_spec import DeclaredColumn, RulesSpec

if TYPE_CHECKING:
    from modelstream.models.contract import Column
    from modelstream.operators.fields import ColumnSpec

__all__ = ["Answers", "KnownNames", "answers_of", "make_rules"]

#: What models, ensembles, cascades and rules of earlier stages say: by name the output fields, each with a column of no
#: rows, or None where only data can tell.
Answers = Mapping[str, Mapping[str, "Column | None"]]


class KnownNames:
    """The names that an expression may read, with what is known of them.

    Parameters
    ----------
    columns : KnownColumns
        The columns that the stages before this one leave.
    answers : mapping of str to mapping of str to Column or None
        What their models and rules say.
    """

    def __init__(self, columns: KnownColumns, answers: Answers) -> None:
        self.kinds: dict[str, Kind] = {}
        #: Columns with several values a row, which expressions do not take.
        self.vectors: set[str] = set()
        self._before = columns
        for name, fields in answers.items():
            for key, column in fields.items():
                if find_answer(f"{name}.{key}", answers) == (name, key):
                    self._add_answer(f"{name}.{key}", column)
        for name, known in columns.columns.items():
            if known is None:
                self.add(name, "any")
            else:
                self._declare(known.spec)

    def _add_answer(self, name: str, column: Column | None) -> None:
        if column is None:
            self.add(name, "any")
        elif isinstance(column, list):
            self.add(name, "text")
        elif column.ndim > 1:
            self.vectors.add(name)
        else:
            self.add(name, "any" if column.dtype == object else "number")

    def declare(self, columns: Mapping[str, DeclaredColumn]) -> None:
        """Add declared columns."""
        for name, column in columns.items():
            self._declare(column.as_column(name))

    def _declare(self, column: ColumnSpec) -> None:
        if column.width is not None:
            self.kinds.pop(column.name, None)
            self.vectors.add(column.name)
        else:
            self.add(column.name, "text" if column.dtype == "string" else "number")

    def add(self, name: str, kind: Kind) -> None:
        """Add a column."""
        self.vectors.discard(name)
        self.kinds[name] = kind

    def compile(self, text: str, path: str) -> Expression:
        """Return an expression that reads these names only.

        Raises
        ------
        ConfigError
            It reads others, or is wrong otherwise.
        """
        names = compile_expression(text, path).names
        for name in sorted(names - self.kinds.keys()):
            if name in self.vectors:
                raise ConfigError(path, f"{name!r} has several values a row; expressions take one number or text")
            if not self._before.is_open or self._is_answer(name):
                raise ConfigError(path, f"there is no {name!r}{self._advice(name)}")
        return compile_expression(text, path, {**dict.fromkeys(names, "any"), **self.kinds})

    def _is_answer(self, name: str) -> bool:
        """Return whether it is meant as a field of a model's answer, which no function can make."""
        return any(known.rpartition(".")[0] == name.rpartition(".")[0] for known in self.kinds if "." in known)

    def _advice(self, name: str) -> str:
        if hint := did_you_mean(name, self.kinds):
            return hint
        known = f"; known here: {', '.join(self.kinds)}" if self.kinds else ""
        if self._before.given and "." not in name:
            return f"{known}; a record of format f32 has no fields, only the column {next(iter(self._before.given))!r}"
        return (
            known if "." in name else f"{known}; fields of the events are declared, as in fields: {{{name}: float64}}"
        )


def make_rules(step_id: str, spec: RulesSpec, before: KnownColumns, answers: Answers, path: str) -> Rules:
    """Return the operator of a ``rules`` stage that has keys.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    spec : RulesSpec
        Its keys.
    before : KnownColumns
        The columns that the stages before it leave.
    answers : mapping of str to mapping of str to Column or None
        What their models and rules say.
    path : str
        Where the stage stands, such as ``stages[1].rules``.

    Raises
    ------
    ConfigError
        An expression is wrong, or reads what is not there.
    """
    known = KnownNames(before, answers)
    known.declare(spec.fields)
    columns = {}
    for name, text in spec.columns.items():
        columns[name] = known.compile(text, joined(f"{path}.columns", name))
        known.add(name, columns[name].kind)
    return Rules(
        step_id,
        fields=tuple(column.as_column(name) for name, column in spec.fields.items()),
        columns=columns,
        keep=None if spec.keep is None else _condition(known, spec.keep, f"{path}.keep"),
        reject={name: _condition(known, text, joined(f"{path}.reject", name)) for name, text in spec.reject.items()},
        outputs={
            name: {
                key: known.compile(text, joined(joined(f"{path}.outputs", name), key)) for key, text in fields.items()
            }
            for name, fields in spec.outputs.items()
        },
    )


def _condition(known: KnownNames, text: str, path: str) -> Expression:
    expression = known.compile(text, path)
    if expression.kind == "text":
        raise ConfigError(path, "must be true or false, not text; compare it")
    return expression


def answers_of(operator: Rules) -> dict[str, dict[str, Column | None]]:
    """Return what a rules stage adds to the predictions, as later stages want to know it."""
    return {
        name: {key: [] if part.kind == "text" else None for key, part in fields.items()}
        for name, fields in operator.outputs.items()
    }
