"""What is told of a group that does not take a worker, and how often it may happen."""

from __future__ import annotations

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, InvalidSessionTimeoutError, KafkaError, for_code

from modelstream.models.errors import BrokerRefused, BrokerUnavailable, ConfigError
from modelstream.streams.group import Expulsions, refusal
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.static_member import FencedInstanceIdError

SETTINGS = BrokerSettings("broker:9092")


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (FencedInstanceIdError("one"), BrokerUnavailable, "another worker has joined the group 'g' under the name"),
        # As aiokafka raises what it does not expect.
        (KafkaError(repr(for_code(82)())), BrokerUnavailable, "another worker has joined the group 'g' under the name"),
        (InvalidSessionTimeoutError(), ConfigError, "--session-timeout: the broker broker:9092 does not allow 1.5 s"),
        (GroupAuthorizationFailedError("g"), BrokerRefused, "may not READ group 'g'; an ACL"),
        (KafkaError("so it is"), BrokerUnavailable, "the group 'g' does not take this worker: KafkaError: so it is"),
    ],
)
def test_why_the_group_does_not_take_a_worker(error: KafkaError, kind: type[Exception], told: str) -> None:
    found = refusal(error, SETTINGS, "g", 1.5)
    assert type(found) is kind
    assert told in str(found)


def test_a_worker_that_is_expelled_again_and_again_ends() -> None:
    expulsions = Expulsions(SETTINGS, "g")
    for _ in range(9):
        expulsions.note("unknown member")
    expulsions.forget()
    for _ in range(9):
        expulsions.note("unknown member")
    with pytest.raises(BrokerUnavailable, match="refused the commits of this worker 10 times in a row: unknown member"):
        expulsions.note("unknown member")
