"""A membership in librdkafka's form: as librdkafka writes it, and refused where that has changed."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.errors import ConfigError
from modelstream.streams import group_metadata as module
from modelstream.streams.group_metadata import group_metadata, require_known_layout

Names = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(group=Names, instance_id=st.none() | Names)
def test_it_is_what_librdkafka_writes_for_a_consumer_without_members(group: str, instance_id: str | None) -> None:
    config: dict[str, Any] = {"group.id": group, "log_level": 0}
    if instance_id is not None:
        config["group.instance.id"] = instance_id
    consumer = Consumer(config)
    try:
        assert consumer.consumer_group_metadata() == group_metadata(group, -1, "", instance_id)
    finally:
        consumer.close()


def test_the_generation_and_the_member_stand_where_librdkafka_has_them() -> None:
    plain, real = group_metadata("group", -1, ""), group_metadata("group", 258, "member-1")
    assert real[:7] == plain[:7]
    assert int.from_bytes(real[7:11], "little") == 258 or int.from_bytes(real[7:11], "big") == 258
    assert real[11:] == b"group\0member-1\0\1"


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_known_layout()
    monkeypatch.setattr(module, "_PREFIX", b"CGMDv3:")
    with pytest.raises(ConfigError, match=r"delivery: exactly_once does not know how librdkafka .* at_least_once"):
        require_known_layout()
