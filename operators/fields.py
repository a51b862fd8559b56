"""From fields of events to typed columns: one pass over a batch, and row by row only where a row does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

import numpy as np

from modelstream.models.contract import ANY_WIDTH, NUMPY_DTYPES, DType, FieldSpec
from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.batch import Column, EventBatch, Events, Fault
from modelstream.operators.late_events import LateEvents
from modelstream.operators.packing import filler, numbers_of, pack, unsound_rows
from modelstream.operators.paths import Unfit, find_values, look_up, parse_path, path_of_name, show, values_at
from modelstream.operators.rows import SURPRISES, convert_rows
from modelstream.operators.separated import check_separator, split_numbers

__all__ = ["MISSING", "ColumnSpec", "read_column", "read_columns", "type_text"]


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


#: Default of a column that has none: events must have its field.
MISSING: Final = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column to read from the events.

    Parameters
    ----------
    name : str
        Name of the column.
    dtype : str
        ``float32``, ``float64``: numbers and truth values. ``int32``, ``int64``: the same, without fractions and in
        range. ``bool``: truth values, 0 and 1. ``string``: text, and numbers as text.
    width : int, optional
        For a field that holds a list of values: how many. The column has the shape (n_rows, width). With `ANY_WIDTH`
        each event may have another number of them, but one at least; the column is a list of arrays. Instead of a list
        a field may hold the bytes of its numbers, little-endian.
    path : str, optional
        Where the value stands in the event, by default the field of the column's name; see `parse_path`.
    default : object, optional
        Value for events where the field is absent or null. Without one, such events are rejected.
    separator : str, optional
        For a field that holds its values as text: what stands between them, such as ``,``.

    Raises
    ------
    ConfigError
        If the specification makes no sense, or the default does not fit it.
    """

    name: str
    dtype: DType
    width: int | None = None
    path: str | None = None
    default: Any = MISSING
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in NUMPY_DTYPES:
            raise ConfigError(self.name, f"there is no dtype {self.dtype!r}{did_you_mean(self.dtype, NUMPY_DTYPES)}")
        if self.width is not None and self.width < 1 and self.width != ANY_WIDTH:
            raise ConfigError(self.name, "the width must be 1 or more")
        if self.path is not None:
            self._check_path(self.path)
        if self.separator is not None:
            check_separator(self.name, self.separator)
            if self.width is None or self.dtype == "string":
                raise ConfigError(self.name, "a separator is for numbers, and needs a width")
        if self.default is not MISSING and not _fits(self.default, self):
            raise ConfigError(self.name, f"the default {show(self.default)} is not {_kind(self)}")

    def _check_path(self, path: str) -> None:
        try:
            parse_path(path)
        except ConfigError as error:
            raise ConfigError(self.name, error.problem) from None

    @property
    def source(self) -> str:
        """Where the value stands in the event: `path`, or the name."""
        return self.path or path_of_name(self.name)


def type_text(spec: ColumnSpec | FieldSpec) -> str:
    """Return the type of a column for a person.

    Examples
    --------
    >>> type_text(ColumnSpec("x", "float32")), type_text(ColumnSpec("x", "float32", ANY_WIDTH))
    ('float32', 'float32[any]')
    """
    if spec.width is None:
        return spec.dtype
    return f"{spec.dtype}[{'any' if spec.width == ANY_WIDTH else spec.width}]"


def read_columns(batch: EventBatch, specs: Sequence[ColumnSpec], stage: str) -> None:
    """Fill `EventBatch.columns` from the events; rows that do not fit are rejected.

    Parameters
    ----------
    batch : EventBatch
        Gets the columns, and the faults.
    specs : sequence of ColumnSpec
        The columns to read.
    stage : str
        Step id for the faults: ``missing_field``, ``wrong_type`` or ``non_finite``.

    Examples
    --------
    >>> batch = EventBatch.of_events([{"x": 1}, {"x": "one"}, {"x": 3.5}])
    >>> read_columns(batch, [ColumnSpec("x", "float32")], "features")
    >>> batch.columns["x"], batch.faults[1].detail
    (array([1. , 0. , 3.5], dtype=float32), "field 'x': 'one' is not a float32")
    """
    for spec in specs:
        batch.columns[spec.name] = read_column(batch, spec, stage)


def read_column(batch: EventBatch, spec: ColumnSpec, stage: str) -> Column:
    """Return one column read from the events; rows that do not fit are rejected, and hold zero or the empty string.

    Parameters
    ----------
    batch : EventBatch
        Gets the faults.
    spec : ColumnSpec
        The column to read.
    stage : str
        Step id for the faults.
    """
    if (vectors := _vectors(batch.events, spec)) is not None:
        return vectors
    try:
        column = pack(_values(batch.events, spec), spec.dtype, spec.width)
    except SURPRISES:
        column = _read_around(batch, spec, stage)
    for row in unsound_rows(column, spec.dtype):
        if _is_nan(spec.default) and look_up(batch.events[row], spec.source) is None:
            continue  # the default, for a model that knows what to do where there is no value
        fault = _fault_of_number(batch.events[row], spec)
        batch.reject(row, Fault(stage, fault.reason, fault.detail))
        column[row] = 0 if isinstance(column, np.ndarray) else np.zeros(1, column[row].dtype)
    if spec.dtype != "bool":
        return column
    return column.view(np.bool_) if isinstance(column, np.ndarray) else [row.view(np.bool_) for row in column]


def _vectors(events: Events, spec: ColumnSpec) -> Column | None:
    """Return the column where its numbers are known without a look at the events, and finite in its dtype."""
    if not isinstance(events, LateEvents) or spec.width is None or not spec.dtype.startswith("float"):
        return None
    numbers = events.fields.get(spec.source)
    if not isinstance(numbers, np.ndarray) or numbers.shape[1:] != (spec.width,):
        return None
    with np.errstate(over="ignore"):
        column = numbers.astype(spec.dtype)
    return column if np.isfinite(column).all() else None


def _values(events: Sequence[dict[str, Any]], spec: ColumnSpec) -> list[Any]:
    if spec.default is MISSING:
        values = values_at(events, spec.source)
    else:
        values = [spec.default if value is None else value for value in find_values(events, spec.source)]
    return values if spec.separator is None else [_parts(value, spec) for value in values]


def _parts(value: Any, spec: ColumnSpec) -> Any:
    """Return the values of a vector that is text; any other value as it is."""
    return value if spec.separator is None else split_numbers(value, spec.separator)


def _read_around(batch: EventBatch, spec: ColumnSpec, stage: str) -> Column:
    """Return the column with a filler where a row does not fit."""
    faults: dict[int, Fault] = {}
    values = convert_rows(
        batch.events,
        partial(_packable, spec=spec),
        partial(_read_value, spec=spec),
        filler(spec.dtype, spec.width),
        stage,
        faults,
    )
    for row, fault in faults.items():
        batch.reject(row, fault)
    return pack(values, spec.dtype, spec.width)


def _packable(events: Sequence[dict[str, Any]], spec: ColumnSpec) -> list[Any]:
    values = _values(events, spec)
    try:
        pack(values, spec.dtype, spec.width)
    except SURPRISES:
        pass
    else:
        # Bytes are not to stand among lists: other rows may hold those.
        if not (values and isinstance(values[0], bytes)):
            return values
    values = [_converted(value, spec) for value in values]
    pack(values, spec.dtype, spec.width)
    return values


def _read_value(event: dict[str, Any], spec: ColumnSpec) -> Any:
    value = look_up(event, spec.source)
    if value is None:
        if spec.default is MISSING:
            raise Unfit("missing_field", f"field {spec.source!r} is missing")
        value = spec.default
    try:
        converted = _converted(_parts(value, spec), spec)
        pack([converted], spec.dtype, spec.width)
    except SURPRISES:
        raise Unfit("wrong_type", _misfit(value, spec)) from None
    return converted


def _converted(value: Any, spec: ColumnSpec) -> Any:
    """Return what may be packed where the value may not, and else the value."""
    if isinstance(value, bytes) and spec.width is not None:
        return numbers_of(value, spec.dtype)
    if isinstance(value, list):
        return [_converted_scalar(part, spec.dtype) for part in value]
    return _converted_scalar(value, spec.dtype)


def _converted_scalar(value: Any, dtype: DType) -> Any:
    if dtype == "string":
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if dtype in ("float32", "float64"):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _fits(value: Any, spec: ColumnSpec) -> bool:
    if _is_nan(value) and spec.width is None and spec.dtype.startswith("float"):
        return True
    try:
        return not unsound_rows(pack([_parts(value, spec)], spec.dtype, spec.width), spec.dtype)
    except SURPRISES:
        return False


def _fault_of_number(event: dict[str, Any], spec: ColumnSpec) -> Unfit:
    value = look_up(event, spec.source)
    if spec.dtype == "bool":
        return Unfit("wrong_type", _misfit(value, spec))
    return Unfit("non_finite", f"field {spec.source!r}: {show(value)} is not finite in {spec.dtype}")


def _misfit(value: Any, spec: ColumnSpec) -> str:
    parts = value
    with suppress(*SURPRISES):
        parts = _parts(value, spec)
    if (
        isinstance(parts, list)
        and spec.width is not None
        and len(parts) != spec.width
        and (spec.width > 0 or not parts)
    ):
        wanted = "1 or more" if spec.width == ANY_WIDTH else spec.width
        return f"field {spec.source!r}: {len(parts)} values, not {wanted}"
    return f"field {spec.source!r}: {show(value)} is not {_kind(spec)}"


def _kind(spec: ColumnSpec) -> str:
    if spec.width is None:
        return f"{'an' if spec.dtype.startswith('int') else 'a'} {spec.dtype}"
    kind = "a list of" if spec.separator is None else f"text with {spec.separator!r} between"
    return f"{kind} {'' if spec.width == ANY_WIDTH else f'{spec.width} '}{spec.dtype}"
