"""Letters marked as done: each once, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.kafka_tools import produce_all
from support.letters import letter

from modelstream.streams import dead_letter_marking
from modelstream.streams.dead_letter_marking import mark_done
from modelstream.streams.dead_letter_reading import read_letters
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka


def test_more_letters_than_the_producer_holds(
    kafka: Any, make_topics: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dead_letter_marking._CONFIG, "queue.buffering.max.messages", 10)
    dead, other = make_topics(kafka, "dead", "other", partitions=1)
    produce_all(kafka.bootstrap, dead, [letter(other, n) for n in range(100)])
    settings = BrokerSettings(kafka.bootstrap)
    letters = read_letters(settings, dead)
    assert len(letters) == 100
    mark_done(settings, dead, letters[:99])
    assert [found.place.offset for found in read_letters(settings, dead)] == [99]
