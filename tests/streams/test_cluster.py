"""What is asked of a cluster about consumer groups."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.kafka_tools import admin_client, group_member

from modelstream.streams.cluster import Cluster
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka


def test_members_of_a_group_are_counted(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    (topic,) = make_topics(kafka, "events")
    cluster = Cluster(BrokerSettings(kafka.bootstrap))
    assert cluster.member_count(topic) == 0  # nobody has ever heard of it
    with group_member(kafka.bootstrap, group=topic, topic=topic):
        assert cluster.member_count(topic) == 1
    assert cluster.member_count(topic) == 0


def test_a_group_is_deleted_once_a_member_that_was_killed_is_out(
    kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    (topic,) = make_topics(kafka, "events")
    with group_member(kafka.bootstrap, group=topic, topic=topic) as member:
        # Leaves while the deletion is tried, as the broker has a dead member leave when its session times out.
        leaving = threading.Timer(1.0, member.close)
        leaving.start()
        Cluster(BrokerSettings(kafka.bootstrap)).delete([topic], group=topic)
        leaving.join()
    admin = admin_client(kafka.bootstrap)
    assert topic not in {one.group_id for one in admin.list_consumer_groups().result().valid}
