"""From fields of events to typed columns: one pass over a batch, and row by row only where a row does not fit."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain, starmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import NUMPY_DTYPES, DType
from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.batch import Column, EventBatch, Fault
from modelstream.operators.paths import Unfit, field_getter, look_up, show
from modelstream.operators.rows import SURPRISES, convert_rows

__all__ = ["MISSING", "ColumnSpec", "read_column", "read_columns"]


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


#: Default of a column that has none: events must have its field.
MISSING: Final = _Missing.MISSING

#: How `struct` packs a value. It takes numbers and truth values only, which makes it the check as well as the cast,
#: and is twice as fast as `numpy.array`, which would take text too. Truth values are packed as small integers, since
#: struct's own "?" takes anything.
_CODES = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "B"}


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
        For a field that holds a list of values: how many. The column has the shape (n_rows, width).
    path : str, optional
        Where the value stands in the event, by default the field of the column's name; ``a.b`` is the field ``b`` of
        the object ``a``.
    default : object, optional
        Value for events where the field is absent or null. Without one, such events are rejected.

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

    def __post_init__(self) -> None:
        if self.dtype not in NUMPY_DTYPES:
            raise ConfigError(self.name, f"there is no dtype {self.dtype!r}{did_you_mean(self.dtype, NUMPY_DTYPES)}")
        if self.width is not None and self.width < 1:
            raise ConfigError(self.name, "the width must be 1 or more")
        if self.default is not MISSING and not _fits(self.default, self):
            raise ConfigError(self.name, f"the default {show(self.default)} is not {_kind(self)}")

    @property
    def source(self) -> str:
        """Where the value stands in the event: `path`, or the name."""
        return self.path or self.name


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
    try:
        column = _pack(_values(batch.events, spec), spec)
    except SURPRISES:
        column = _read_around(batch, spec, stage)
    for row in _unsound(column, spec):
        fault = _fault_of_number(batch.events[row], spec)
        batch.reject(row, Fault(stage, fault.reason, fault.detail))
        column[row] = 0
    return column if spec.dtype != "bool" else column.view(np.bool_)  # type: ignore[union-attr]


def _values(events: Sequence[dict[str, Any]], spec: ColumnSpec) -> list[Any]:
    source, default = spec.source, spec.default
    if default is MISSING:
        return list(map(field_getter(source), events))
    if "." in source:
        return [default if (value := look_up(event, source)) is None else value for event in events]
    return [default if (value := event.get(source)) is None else value for event in events]


def _pack(values: list[Any], spec: ColumnSpec) -> Column:
    """Return values as a column; raise where one is of another type or width."""
    if spec.dtype == "string":
        return _pack_text(values, spec.width)
    shape = len(values) if spec.width is None else (len(values), spec.width)
    return np.ndarray(shape, "uint8" if spec.dtype == "bool" else spec.dtype, _pack_numbers(values, spec))


def _pack_numbers(values: list[Any], spec: ColumnSpec) -> bytearray:
    code = _CODES[spec.dtype]
    if spec.width is None:
        return bytearray(struct.pack(f"{len(values)}{code}", *values))
    return bytearray().join(starmap(struct.Struct(f"{spec.width}{code}").pack, values))


def _pack_text(values: list[Any], width: int | None) -> Column:
    # Joining raises where one is not text, and is the cheapest check there is.
    if width is None:
        "".join(values)
        return values
    "".join(chain.from_iterable(values))
    if set(map(type, values)) - {list} or set(map(len, values)) - {width}:
        raise ValueError
    return np.array(values, object).reshape(len(values), width)


def _read_around(batch: EventBatch, spec: ColumnSpec, stage: str) -> Column:
    """Return the column with a filler where a row does not fit."""
    filler: Any = "" if spec.dtype == "string" else 0
    if spec.width is not None:
        filler = [filler] * spec.width
    faults: dict[int, Fault] = {}
    values = convert_rows(
        batch.events, partial(_packable, spec=spec), partial(_read_value, spec=spec), filler, stage, faults
    )
    for row, fault in faults.items():
        batch.reject(row, fault)
    return _pack(values, spec)


def _packable(events: Sequence[dict[str, Any]], spec: ColumnSpec) -> list[Any]:
    values = _values(events, spec)
    try:
        _pack(values, spec)
    except SURPRISES:
        values = [_converted(value, spec.dtype) for value in values]
        _pack(values, spec)
    return values


def _read_value(event: dict[str, Any], spec: ColumnSpec) -> Any:
    value = look_up(event, spec.source)
    if value is None:
        if spec.default is MISSING:
            raise Unfit("missing_field", f"field {spec.source!r} is missing")
        return spec.default
    converted = _converted(value, spec.dtype)
    try:
        (_pack if spec.dtype == "string" else _pack_numbers)([converted], spec)
    except SURPRISES:
        raise Unfit("wrong_type", _misfit(value, spec)) from None
    return converted


def _converted(value: Any, dtype: DType) -> Any:
    """Return what may be packed where the value may not, and else the value."""
    if isinstance(value, list):
        return [_converted_scalar(part, dtype) for part in value]
    return _converted_scalar(value, dtype)


def _converted_scalar(value: Any, dtype: DType) -> Any:
    if dtype == "string":
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if dtype in ("float32", "float64"):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unsound(column: Column, spec: ColumnSpec) -> list[int]:
    """Return the rows with numbers that could be packed, but are none of the dtype: not finite, or no truth value."""
    sound: NDArray[np.bool_]
    if spec.dtype in ("float32", "float64"):
        sound = np.isfinite(column)
    elif spec.dtype == "bool":
        sound = np.less_equal(column, 1)
    else:
        return []
    if sound.all():
        return []
    rows: list[int] = np.flatnonzero(~(sound if spec.width is None else sound.all(axis=1))).tolist()
    return rows


def _fits(value: Any, spec: ColumnSpec) -> bool:
    try:
        return not _unsound(_pack([value], spec), spec)
    except SURPRISES:
        return False


def _fault_of_number(event: dict[str, Any], spec: ColumnSpec) -> Unfit:
    value = look_up(event, spec.source)
    if spec.dtype == "bool":
        return Unfit("wrong_type", _misfit(value, spec))
    return Unfit("non_finite", f"field {spec.source!r}: {show(value)} is not finite in {spec.dtype}")


def _misfit(value: Any, spec: ColumnSpec) -> str:
    if isinstance(value, list) and spec.width is not None and len(value) != spec.width:
        return f"field {spec.source!r}: {len(value)} values, not {spec.width}"
    return f"field {spec.source!r}: {show(value)} is not {_kind(spec)}"


def _kind(spec: ColumnSpec) -> str:
    article = "an" if spec.dtype.startswith("int") else "a"
    return f"{article} {spec.dtype}" if spec.width is None else f"a list of {spec.width} {spec.dtype}"
