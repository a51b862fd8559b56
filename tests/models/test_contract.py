from __future__ import annotations

import pytest

from modelstream.models.contract import FieldSpec, InputSpec, ModelContract, merge_fields
from modelstream.models.errors import ConfigError


def test_required_fields_are_listed_once_in_the_order_of_the_inputs():
    inputs = (
        InputSpec("a", (FieldSpec("x", "float32"), FieldSpec("y", "float32"))),
        InputSpec("b", (FieldSpec("z", "string"),)),
        InputSpec("c", (FieldSpec("x", "float32"),)),
    )
    contract = ModelContract("m", "1", "0" * 64, inputs, (), {}, {})
    assert [field.name for field in contract.required_fields] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("first", "second", "widest"),
    [
        ("float32", "float64", "float64"),
        ("int64", "float32", "float64"),
        ("int32", "int64", "int64"),
        ("bool", "float32", "float32"),
        ("bool", "int32", "int32"),
        ("string", "string", "string"),
    ],
)
def test_a_field_of_several_tensors_gets_the_widest_type(first, second, widest):
    for pair in ((first, second), (second, first)):
        assert merge_fields([FieldSpec("x", dtype) for dtype in pair]) == (FieldSpec("x", widest),)


def test_a_field_cannot_be_text_and_number():
    with pytest.raises(ConfigError, match="field 'x' is read as string and as int64"):
        merge_fields([FieldSpec("x", "string"), FieldSpec("x", "int64")])


def test_a_field_cannot_have_two_widths():
    with pytest.raises(ConfigError, match="field 'x' is read as a scalar and as a vector of 3"):
        merge_fields([FieldSpec("x", "float32"), FieldSpec("x", "float32", 3)])
