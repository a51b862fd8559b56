"""What the demo counts: a summary that is clean must be clean."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from confluent_kafka import Message

from modelstream.streams.demo import Summary, Tally


def prediction(event_id: str, key: bytes | None = b"k", at_ms: int = 1_000) -> Message:
    value = orjson.dumps({"event_id": event_id, "predictions": {"m": {"version": "1", "value": 1.5}}})
    return Message(topic="t", partition=0, offset=0, key=key, value=value, timestamp=(1, at_ms))


@pytest.fixture
def tally() -> Tally:
    return Tally(["a", "b", "c", "d"], np.array([True, True, False, True]))


def test_every_due_event_once_and_in_order_is_clean(tally: Tally) -> None:
    tally.add([prediction(event_id) for event_id in "abd"])
    assert (tally.predictions, tally.missing, tally.duplicates, tally.out_of_order) == (3, 0, 0, 0)


def test_a_missing_prediction_is_counted(tally: Tally) -> None:
    tally.add([prediction("a"), prediction("d")])
    assert (tally.missing, tally.duplicates) == (1, 0)


@pytest.mark.parametrize("extra", ["a", "c", "unknown"])
def test_a_second_an_undue_and_an_unknown_prediction_are_duplicates(tally: Tally, extra: str) -> None:
    tally.add([prediction(event_id) for event_id in ("a", "b", "d", extra)])
    assert (tally.missing, tally.duplicates) == (0, 1)


def test_order_is_counted_within_a_key(tally: Tally) -> None:
    tally.add([prediction("b", b"k"), prediction("a", b"other"), prediction("d", None)])
    assert tally.out_of_order == 0
    tally.add([prediction("a", b"k")])
    assert tally.out_of_order == 1


def test_latency_is_from_production_to_prediction(tally: Tally) -> None:
    tally.sent_at_ms[:] = [100, 200, 300, 400]
    tally.add([prediction("a", at_ms=150), prediction("d", at_ms=1_400)])
    assert tally.latencies_ms().tolist() == [50, 1_000]


def test_values_are_kept_on_request(tally: Tally) -> None:
    tally.add([prediction("a")])
    tally.add([prediction("b")], keep_values=True)
    assert tally.values == {"b": {"m": {"version": "1", "value": 1.5}}}


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("missing", "1 events without a prediction"),
        ("duplicates", "1 predictions more than once"),
        ("out_of_order", "1 predictions out of order"),
        ("dead_letters", "1 dead letters"),
    ],
)
def test_a_summary_names_its_problems(field: str, problem: str) -> None:
    counts = {"events": 10, "filtered": 2, "predictions": 8, "dead_letters": 0, "missing": 0, "duplicates": 0}
    clean = {**counts, "out_of_order": 0, "events_per_s": 1.0, "p50_ms": 1.0, "p99_ms": 1.0, "seconds": 1.0}
    assert Summary(**clean).problems() == []
    assert problem in Summary(**{**clean, field: 1}).problems()
    assert "1 events unaccounted for" in Summary(**{**clean, "filtered": 1}).problems()
