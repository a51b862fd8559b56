from __future__ import annotations

import pytest

from modelstream.models.contract import ContractBreach
from modelstream.models.contract_file import parse_contract

HEAD = f'name = "m"\nversion = "1"\nsha256 = "{"aB" * 32}"\n'


def test_a_whole_file():
    file = parse_contract(
        (
            HEAD
            + """
[inputs.features]
fields = ["dep_delay", "distance"]
[inputs.x]
field = "readings"
width = 20
[outputs.score]
tensor = "probabilities"
class = "late"
classes = ["late", "on time"]
[outputs.p90]
kind = "value"
[examples]
carrier = ["AA"]
[metrics]
mae = 11.5
[metrics.by_month]
july = 12
[training]
data = "nycflights13"
"""
        ).encode()
    )
    assert file.inputs["features"].fields == ["dep_delay", "distance"]
    assert (file.inputs["x"].field, file.inputs["x"].width) == ("readings", 20)
    assert file.outputs["score"].of_class == "late"
    assert file.metrics == {"mae": 11.5, "by_month": {"july": 12}}
    assert file.training == {"data": "nycflights13"}


def test_a_whole_number_may_be_the_version():
    assert parse_contract(HEAD.replace('"1"', "1").encode()).version == "1"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[inputs.x]\nfeilds = ['a']", "inputs.x.feilds: unknown key; did you mean 'fields'?"),
        ("[inputs.street]\nfields = [1]", "inputs.street.fields[0]: should be a valid string, not 1"),
        ("[input.x]\nfields = ['a']", "input: unknown key; did you mean 'inputs'?"),
        ("[outputs.value]\nclas = 1", "outputs.value.clas: unknown key; did you mean 'class'?"),
        ("[inputs.x]\nfields = ['a']\nfield = 'a'", "inputs.x: name either `fields` (scalar columns) or `field`"),
        ("[inputs.x]", "inputs.x: name either `fields`"),
        ("[inputs.x]\nfields = []", "inputs.x.fields: List should have at least 1 item"),
        ("[inputs.x]\nfields = ['a', 'a']", "inputs.x: `fields` names a field twice"),
        ("[inputs.x]\nfields = ['a']\nwidth = 1", "inputs.x: `width` goes with `field`"),
        ("[inputs.x]\nfield = 'a'\nwidth = 0", 'inputs.x.width: should be a whole number from 1, or "any", not 0'),
        ("[inputs.x]\nfield = 'a'\nwidth = 'all'", 'inputs.x.width: should be a whole number from 1, or "any", not'),
        ("[inputs.x]\nfields = ['a']\nwidth = 'any'", "inputs.x: `width` goes with `field`"),
        ("[outputs.version]\nkind = 'value'", "outputs.version: this name is taken"),
        ("[outputs.delay]", "outputs.delay: say `kind` = one of value, label, score, vector"),
        ("[outputs.value]\nkind = 'number'", "outputs.value.kind: should be 'value', 'label', 'score' or 'vector'"),
        ("[outputs.value]\nclass = 1", "outputs.value: only a score has a class"),
        ("[outputs.score]\nclass = 1.5", "outputs.score.class: should be an integer or a text, not 1.5"),
        ("[outputs.score]\nclass = true", "outputs.score.class: should be an integer or a text, not True"),
        ("[outputs.score]\nclasses = ['a', 1]", "outputs.score.classes: should list different integers, or different"),
        ("[outputs.score]\nclasses = ['a', 'a']", "outputs.score.classes: should list different integers"),
        ("[outputs.score]\nclasses = [[1]]", "outputs.score.classes: should list different integers"),
        ("[examples]\ncarrier = []", "examples.carrier: List should have at least 1 item"),
        ("metrics = 3", "metrics: should be a valid dictionary, not 3"),
        ("x =", "not TOML: Invalid value (at"),
        ("x = " + "[" * 5000, "not TOML: nested too deep"),
    ],
)
def test_a_wrong_key_is_told_by_its_path(toml, message):
    with pytest.raises(ContractBreach) as caught:
        parse_contract((HEAD + toml).encode())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.file == "model.toml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "name: is missing (and 2 more errors)"),
        (b"\xff\xfe", "not UTF-8 text: byte 0 is 0xff"),
        (HEAD.replace('"1"', "1.10").encode(), "version: should be a valid string, not 1.1"),
        (HEAD.replace("aB", "zz").encode(), "sha256: not a SHA-256 digest of 64 hexadecimal digits"),
    ],
)
def test_a_wrong_head(content, message):
    with pytest.raises(ContractBreach) as caught:
        parse_contract(content)
    assert str(caught.value) == message
