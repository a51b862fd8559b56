"""A worker that is told to stop does not wait for its group to come together, nor for a broker that is away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupState
from support.kafka_server import ApacheKafka
from support.kafka_tools import admin_client, create_topic
from support.streams import KnownStream, wait_for

pytestmark = pytest.mark.kafka

#: A worker whose death its group notices only after half a minute.
_LONG_SESSION = """\
import functools

from modelstream.streams import app as engine, worker_limits
from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker import log_to_stderr, run_worker

worker_limits.EngineLimits = functools.partial(EngineLimits, session_timeout_s=30.0)
app = engine.app_from_environment()
log_to_stderr("info")
run_worker(app)
"""


def test_sigterm_in_the_middle_of_a_rebalance(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(100))
    script = stream.folder / "long_session.py"
    script.write_text(_LONG_SESSION, encoding="utf-8")
    with stream.script(script) as member:
        stream.wait_until_committed(member)
        member.kill()
    with stream.worker() as worker:
        # It asks to join, and the group waits for the answer of the one that is dead.
        wait_for(lambda: _state(stream) == ConsumerGroupState.PREPARING_REBALANCING, "the rebalance", worker)
        worker.stop()  # exit code 0 within its deadline, long before the rebalance could end
    assert stream.outcome(range(100)).is_clean


def test_sigterm_while_the_broker_is_away(start_kafka: Callable[..., ApacheKafka], tmp_path: Path) -> None:
    kafka = start_kafka()
    topics = ("events", "predictions", "dead")
    for topic in topics:
        create_topic(kafka.bootstrap, topic, 2)
    stream = KnownStream(kafka.bootstrap, tmp_path, *topics, group="alone")
    stream.send(range(100))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        kafka.kill()
        # By then aiokafka knows that its coordinator is dead, and looks for it.
        wait_for(lambda: "not answered for 5 s" in str(worker.health("ready")), "the outage", worker)
        worker.stop()  # exit code 0: it neither waits for the broker nor gives up


def _state(stream: KnownStream) -> ConsumerGroupState:
    admin = admin_client(stream.bootstrap)
    return admin.describe_consumer_groups([stream.group])[stream.group].result().state
