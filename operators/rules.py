"""Rules: business logic before and after models, as expressions over columns or as a user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.answers import find_answer
from modelstream.operators.batch import Column, EventBatch, Fault, ModelOutput
from modelstream.operators.expressions import Expression, Frame
from modelstream.operators.fields import ColumnSpec, read_columns
from modelstream.operators.user_functions import call_user_function
from modelstream.operators.vector_logic import true_rows
from modelstream.operators.vectors import Vector

__all__ = ["Rules", "RulesFunction"]

#: A user's function: changes the batch that it is given.
RulesFunction = Callable[[EventBatch], Any]


@dataclass(frozen=True)
class Rules:
    """Adds columns and predictions to a batch, takes rows out and rejects rows.

    The order is: `fields`, `columns`, `keep`, `reject`, `outputs`. An expression may read columns that stand before it,
    of this stage or an earlier one, and what models said, as ``MODEL.FIELD``: null for a row that the model was not
    asked about. A row for which an expression has no finite result is rejected, unless `keep` takes it out.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    fields : sequence of ColumnSpec
        Fields of the events to read, as `Extract` does.
    columns : mapping of str to Expression
        Columns to add, in this order. A row for which one is null is rejected.
    keep : Expression, optional
        Where it is false or null, the row is taken out.
    reject : mapping of str to Expression
        Rules by name: where one is true, the row is rejected.
    outputs : mapping of str to mapping of str to Expression
        What to add to the predictions: by name the fields, which may be null.
    function : callable
        Instead of all these: changes a whole batch. It adds columns and outputs, rejects and filters; events, keys, ids
        and the number of rows stay. Where it raises, what it did is undone, and it is called on parts of the batch
        until only the rows that make it raise are rejected.

    Raises
    ------
    ConfigError
        There is nothing to do, or both a function and expressions.

    Examples
    --------
    >>> from modelstream.operators.expressions import compile_expression as expression
    >>> rules = Rules(
    ...     "check",
    ...     fields=[ColumnSpec("x", "float64")],
    ...     columns={"double": expression("x * 2", "double")},
    ...     keep=expression("x > 0", "keep"),
    ...     reject={"too far": expression("double > 9000", "too far")},
    ... )
    >>> settled = rules(EventBatch.of_events([{"x": 1}, {"x": -1}, {"x": 5000}])).settle()
    >>> settled.kept.columns["double"], len(settled.filtered), settled.rejected.faults[0].detail
    (array([2.]), 1, "rule 'too far': double > 9000")
    """

    step_id: str
    fields: Sequence[ColumnSpec] = ()
    columns: Mapping[str, Expression] = field(default_factory=dict)
    keep: Expression | None = None
    reject: Mapping[str, Expression] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Expression]] = field(default_factory=dict)
    function: RulesFunction | None = None

    def __post_init__(self) -> None:
        if bool(self.columns or self.keep or self.reject or self.outputs) == (self.function is not None):
            raise ConfigError(self.step_id, "rules needs expressions or a function, and not both")

    @cached_property
    def version(self) -> str:
        """Text that changes with the expressions that predictions depend on; empty without such, and of a function."""
        if not self.columns and not self.outputs:
            return ""
        said = [
            [(spec.name, spec.dtype, spec.width, spec.source, repr(spec.default)) for spec in self.fields],
            [(name, column.text) for name, column in self.columns.items()],
            [(name, [(key, part.text) for key, part in fields.items()]) for name, fields in self.outputs.items()],
        ]
        return f"rules-{xxhash.xxh3_64_hexdigest(repr(said).encode())[:8]}"

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Apply the rules."""
        if self.function is not None:
            return self._call(self.function, batch)
        read_columns(batch, self.fields, self.step_id)
        try:
            with np.errstate(all="ignore"):
                self._apply(batch, self._frame(batch))
        except (KeyError, TypeError) as error:  # what only data can tell; it is so for all rows
            missing = isinstance(error, KeyError)
            hint = "; if it is a field of the events, declare it under rules.fields"
            detail = f"there is no column {error.args[0]!r}{hint}" if missing else str(error)
            reason = "operator_failed" if missing else "wrong_type"
            self._reject(batch, np.ones(len(batch), np.bool_), reason, detail)
        return batch

    # Expressions

    def _apply(self, batch: EventBatch, frame: Frame) -> None:
        columns: dict[str, Vector] = {}
        for name, expression in self.columns.items():
            columns[name] = expression.evaluate(frame)
            frame.put(name, columns[name])
        if self.keep is not None:
            kept = self.keep.evaluate(frame)
            batch.filter_out(~true_rows(kept) if kept.bad is None else ~true_rows(kept) & ~kept.bad)
            self._reject_bad(batch, kept, "keep")
        for name, vector in columns.items():
            self._reject_bad(batch, vector, f"column {name!r}")
            if vector.null is not None:
                self._reject(batch, vector.null, "missing_field", f"column {name!r} is null")
            batch.columns[name] = _plain(vector)
        for name, expression in self.reject.items():
            found = expression.evaluate(frame)
            self._reject_bad(batch, found, f"rule {name!r}")
            self._reject(batch, true_rows(found), "rule", f"rule {name!r}: {expression.text}")
        for name, fields in self.outputs.items():
            vectors = {key: part.evaluate(frame) for key, part in fields.items()}
            for key, vector in vectors.items():
                self._reject_bad(batch, vector, f"output '{name}.{key}'")
            batch.outputs[name] = ModelOutput(self.version, {key: _nullable(part) for key, part in vectors.items()})

    def _frame(self, batch: EventBatch) -> Frame:
        columns, nulls = dict(batch.columns), {}
        for name in self._names - columns.keys():
            answer, key = find_answer(name, batch.outputs) or ("", "")
            if answer and key in (output := batch.outputs[answer]).fields:
                columns[name] = output.fields[key]
                if output.answered is not None:
                    nulls[name] = ~output.answered
        return Frame(columns, len(batch), nulls)

    @cached_property
    def _names(self) -> frozenset[str]:
        outputs = [expression for fields in self.outputs.values() for expression in fields.values()]
        keep = [] if self.keep is None else [self.keep]
        return frozenset().union(
            *(part.names for part in (*self.columns.values(), *keep, *self.reject.values(), *outputs))
        )

    def _reject_bad(self, batch: EventBatch, vector: Vector, what: str) -> None:
        if vector.bad is not None:
            self._reject(batch, vector.bad, "non_finite", f"{what} has no finite result")

    def _reject(self, batch: EventBatch, mask: NDArray[np.bool_], reason: str, detail: str) -> None:
        batch.reject_where(mask, Fault(self.step_id, reason, detail))

    # A function

    def _call(self, function: RulesFunction, batch: EventBatch) -> EventBatch:
        changed, returned = call_user_function(self.step_id, function, batch)
        if returned is not None:
            raise OperatorError(
                self.step_id, f"the function returned {type(returned).__name__}; it must change the batch that it gets"
            )
        return changed


def _plain(vector: Vector) -> Column:
    if vector.is_text:
        texts: list[str] = vector.values.tolist()
        return texts
    return np.ascontiguousarray(vector.values)


def _nullable(vector: Vector) -> Column:
    """Return a column of predictions: what is null in it stands as null in the record."""
    null, values = vector.null, vector.values
    if null is None:
        return _plain(vector)
    if vector.is_text:
        texts: list[Any] = np.where(null, None, values).tolist()  # type: ignore[call-overload]
        return texts
    if values.dtype.kind == "f":
        return np.where(null, np.nan, values).astype(values.dtype)  # JSON has no NaN: it is written as null
    return np.where(null, None, values)  # type: ignore[call-overload, no-any-return]
