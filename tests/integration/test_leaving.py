"""A worker that is told to stop while its group comes together does not wait for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import ConsumerGroupState
from support.kafka_tools import admin_client
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


def _state(stream: KnownStream) -> ConsumerGroupState:
    admin = admin_client(stream.bootstrap)
    return admin.describe_consumer_groups([stream.group])[stream.group].result().state
