"""The table of formats."""

from __future__ import annotations

from typing import get_args

import pytest

from modelstream.operators.codecs import Codec
from modelstream.operators.f32_format import VectorFormat
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.msgpack_format import MsgpackFormat
from modelstream.streams.formats import NAMED_FORMATS, make_codec, source_columns
from modelstream.streams.spec import FormatName, SourceSpec


def test_every_name_of_the_pipeline_file_is_in_the_table() -> None:
    assert get_args(FormatName) == tuple(NAMED_FORMATS)


@pytest.mark.parametrize(
    ("keys", "codec"),
    [
        ({}, Codec(JsonFormat(1024))),
        (
            {"format": "msgpack", "max_depth": 7, "event_id": "a.b", "event_time": "t", "priority": {"field": "p"}},
            Codec(MsgpackFormat(7), event_id="a.b", event_time="t", priority="p"),
        ),
        (
            {"format": {"f32": 3, "field": "x"}, "max_record_bytes": 50, "priority": {"header": "p"}},
            Codec(VectorFormat(3, "x"), max_record_bytes=50),
        ),
    ],
)
def test_a_source_has_its_codec(keys: dict[str, object], codec: Codec) -> None:
    assert make_codec(SourceSpec.model_validate({"topic": "in", **keys})) == codec


def test_only_vectors_come_as_columns() -> None:
    assert source_columns(SourceSpec(topic="in")) == {}
    source = SourceSpec.model_validate({"topic": "in", "format": {"f32": 3, "field": "x"}})
    assert source_columns(source) == {"x": ColumnSpec("x", "float32", 3)}
