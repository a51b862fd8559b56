"""What is said of a replay while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import orjson
from confluent_kafka import Message

from modelstream.streams.replay.collecting import Answers
from modelstream.streams.replay.live_figures import LiveFigures
from modelstream.streams.replay.matching import hash_ids


def predictions(event_ids: Iterable[str]) -> list[Message]:
    return [
        Message(
            topic="out", partition=0, offset=0,
            value=b'{"id":"%s","event_id":%s,"key":null}' % (b"0" * 32, orjson.dumps(event_id)),
        )
        for event_id in event_ids
    ]  # fmt: skip


def test_lag_and_latency_are_right_where_ids_occur_twice() -> None:
    ids = [f"e{i % 1000}" for i in range(2000)]
    live, answers = LiveFigures(hash_ids(ids)), Answers()
    now_us, hour_us = time.time_ns() // 1000, 3_600_000_000
    intended_us = np.repeat([now_us - hour_us, now_us], 1000)
    answers.add(predictions(ids[:1000]))
    live.look(answers)
    assert live.lag(2000) == 1000
    p50_ms, _ = live.percentiles_ms(intended_us)
    assert p50_ms is not None
    assert p50_ms >= hour_us / 1000
    for first in range(1000, 2000, 20):
        answers.add(predictions(ids[first : first + 20]))
        live.look(answers)
        live.look(answers)  # what came is counted once, however often one looks
    assert live.lag(2000) == 0
    p50_ms, p99_ms = live.percentiles_ms(intended_us)
    assert p50_ms is not None
    assert p99_ms is not None
    assert 0 <= p50_ms <= p99_ms < hour_us / 1000


def test_silence_is_time_without_an_answer_while_events_wait() -> None:
    live = LiveFigures(hash_ids("abc"))
    looks = [(5.0, 0, 0), (6.0, 0, 1), (8.0, 0, 2), (9.0, 1, 2), (9.5, 1, 3), (12.0, 3, 3), (20.0, 3, 3)]
    assert [live.silent_s(*look) for look in looks] == [0.0, 1.0, 3.0, 0.0, 0.5, 0.0, 0.0]


def test_where_ids_occur_once_the_last_predictions_are_enough() -> None:
    ids = [f"e{i}" for i in range(3000)]
    live, answers = LiveFigures(hash_ids(ids)), Answers()
    assert (live.lag(0), live.lag(3), live.percentiles_ms(np.zeros(3000, np.int64))) == (0, 3, (None, None))
    answers.add(predictions([*ids[:2000], "others"]))
    live.look(answers)
    assert live.lag(2500) == 500
