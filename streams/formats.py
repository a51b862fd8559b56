"""The formats that records may have: a new one gets an entry here, and its name in `spec.FormatName`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from modelstream.operators.codecs import Codec, Format
from modelstream.operators.f32_format import VectorFormat
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.json_fields import JsonFields
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.msgpack_format import MsgpackFormat

if TYPE_CHECKING:
    from modelstream.streams.spec import F32Format, SourceSpec

__all__ = ["NAMED_FORMATS", "SourceFormat", "make_codec", "make_format", "source_columns"]

#: The value of ``source.format``.
SourceFormat: TypeAlias = "str | F32Format"

#: Formats with nothing to say but their name: how each is made of ``max_depth`` and of what `Format.write` is to do
#: with values that it does not know.
NAMED_FORMATS: Mapping[str, Callable[[int, Callable[[Any], Any] | None], Format]] = {
    "json": JsonFormat,
    "msgpack": MsgpackFormat,
}


def make_codec(source: SourceSpec, fields: JsonFields | None = None) -> Codec:
    """Return what decodes the records of a source.

    Parameters
    ----------
    source : SourceSpec
        The source.
    fields : JsonFields, optional
        Reads all that is read of its events.

    Examples
    --------
    >>> from modelstream.streams.spec import SourceSpec
    >>> make_codec(SourceSpec(topic="t", format={"f32": 2, "field": "x"})).format
    VectorFormat(width=2, field='x')
    """
    form = make_format(source.format, source.max_depth)
    return Codec(
        form if fields is None or not isinstance(form, JsonFormat) else replace(form, fields=fields),
        max_record_bytes=source.max_record_bytes,
        event_id=source.event_id,
        event_time=source.event_time,
        priority=source.priority.field if source.priority else None,
    )


def make_format(form: SourceFormat, max_depth: int = 1024, default: Callable[[Any], Any] | None = None) -> Format:
    """Return the format that ``source.format`` says.

    Parameters
    ----------
    form : str or F32Format
        The value of ``source.format``.
    max_depth : int
        That of ``source.max_depth``.
    default : callable, optional
        Makes the format's types of what it is to write and does not know.
    """
    if isinstance(form, str):
        return NAMED_FORMATS[form](max_depth, default)
    return VectorFormat(form.f32, form.field)


def source_columns(source: SourceSpec) -> dict[str, ColumnSpec]:
    """Return the columns that decoding gives already, by name; none where events have fields."""
    if isinstance(source.format, str):
        return {}
    return {source.format.field: ColumnSpec(source.format.field, "float32", source.format.f32)}
