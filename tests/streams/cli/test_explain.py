"""``modelstream explain``: how one prediction came about, or why there is none."""

from __future__ import annotations

import json

import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition
from support.kafka_tools import Outgoing, produce_all, read_all

pytestmark = pytest.mark.kafka

RECORD = {
    "batch": "host-1-7",
    "size": 512,
    "close_reason": "idle",
    "queue_us": 310,
    "age_us": 4_100,
    "service_us": 950,
    "models": {"delay": "1"},
    "cache": "redis",
}


def prediction(number: int, key: bytes, *, recorded: bool = True) -> Outgoing:
    value = {
        "id": f"{number:032x}",
        "event_id": f"event {number}",
        "key": key.decode(),
        "event_time": "2013-01-01T10:15:00Z",
        "predictions": {"delay": {"version": "1", "value": number + 0.5}},
    }
    headers = [("modelstream.flight.score", json.dumps(RECORD).encode()), ("other", b"\xff")] if recorded else []
    return Outgoing(
        json.dumps(value, separators=(",", ":")).encode(), key, timestamp_ms=1_000 + number, headers=headers
    )


@pytest.fixture
def predictions(trial):
    produce_all(trial["broker"], trial["sink"], [prediction(i, b"key-%d" % (i % 7)) for i in range(100)])
    return trial


@pytest.mark.parametrize("wanted", ["event 93", f"{93:032x}"])
def test_one_event_by_either_id(run, predictions, wanted):
    done = run("explain", predictions["file"], wanted)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"prediction {93:032x} at {predictions['sink']}[")
    assert lines[1:] == [
        "  event event 93, key key-2, event time 2013-01-01T10:15:00Z",
        "  delay@1: value 93.5",
        "  stage score: batch host-1-7 of 512 rows, closed: idle; "
        "oldest event 4.1 ms old, of that 0.3 ms in the queue; delay@1 took 0.9 ms; cache: redis",
    ]


def test_the_latest_of_a_key_as_json(run, predictions):
    done = run("explain", predictions["file"], "key-2", "-n", "3", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["prediction"]["event_id"] for each in found] == ["event 79", "event 86", "event 93"]
    assert found[0]["stages"] == {"score": RECORD}
    assert found[0]["timestamp_ms"] == 1_079


def test_a_prediction_without_a_record_says_how_to_get_one(run, trial):
    produce_all(trial["broker"], trial["sink"], [prediction(1, b"k", recorded=False)])
    done = run("explain", trial["file"], "k")
    assert done.stdout.splitlines()[-1] == "  no flight record; one is kept with sink.flight_record: true"


def test_values_are_those_of_the_record(run, trial):
    answer = {"version": "1", "late": True, "value": None, "label": "no", "scores": [0.5, None]}
    told = {"id": "0" * 32, "event_id": "e", "key": None, "event_time": None, "predictions": {"delay": answer}}
    produce_all(trial["broker"], trial["sink"], [Outgoing(json.dumps(told, separators=(",", ":")).encode(), b"k")])
    lines = run("explain", trial["file"], "k").stdout.splitlines()
    assert lines[1:3] == [
        "  event e, key null, event time null",
        "  delay@1: late true, value null, label no, scores [0.5,null]",
    ]


def test_a_key_that_is_no_text(run, trial):
    produce_all(trial["broker"], trial["sink"], [Outgoing(prediction(5, b"k").value, b"\xff\x01")])
    assert "event event 5, key k" in run("explain", trial["file"], "\udcff\x01").stdout
    unknown = run("explain", trial["file"], "\udcfe")
    assert (unknown.returncode, "Traceback" in unknown.stderr) == (1, False)
    assert "no prediction with the key" in unknown.stderr


def letter(number: int, key: bytes, **said: str) -> Outgoing:
    value = json.dumps({"id": f"event {number}", "reading": "warm"}).encode()
    headers = [(f"modelstream.{name}", text.encode()) for name, text in said.items()]
    return Outgoing(value, key, timestamp_ms=1_357_035_300_000 + number, headers=headers)


FAULT = {"reason": "wrong_type", "stage": "score", "detail": "reading: 'warm' is no number"}


@pytest.mark.parametrize("wanted", ["event 200", "key-200"])
def test_an_event_that_failed_by_its_id_or_key(run, predictions, wanted):
    produce_all(predictions["broker"], predictions["dead"], [letter(i, b"key-%d" % i, **FAULT) for i in (199, 200)])
    done = run("explain", predictions["file"], wanted)
    assert done.returncode == 0
    place, lines = done.stdout.split()[2], done.stdout.splitlines()
    assert lines == [
        f"dead letter {place} of {predictions['dead']}, written 2013-01-01T10:15:00Z",
        "  stage score: wrong_type: reading: 'warm' is no number",
        f"  `modelstream dlq show {predictions['file']} {place}` has the event",
    ]
    assert run("dlq", "show", predictions["file"], place, "--raw").stdout == '{"id": "event 200", "reading": "warm"}'


def test_a_key_with_predictions_and_dead_letters_has_both(run, predictions):
    written = [letter(i, b"key-2", **FAULT, attempts=str(i)) for i in (1, 2, 3)]
    produce_all(predictions["broker"], predictions["dead"], written)
    done = run("explain", predictions["file"], "key-2", "-n", "2", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["prediction"]["event_id"] for each in found[:2]] == ["event 86", "event 93"]
    assert [each["attempts"] for each in found[2:]] == [2, 3]
    assert found[2]["reason"] == "wrong_type"


def test_nothing_of_that_name(run, predictions):
    done = run("explain", predictions["file"], "event 1000")
    assert done.returncode == 1
    assert f"{predictions['sink']} has no prediction with the key, event id or id 'event 1000', and " in done.stderr
    assert f"{predictions['dead']} no dead letter with that key or text" in done.stderr
    assert f"nor has {predictions['source']} such an event" in done.stderr


def test_an_event_without_an_answer_was_passed_or_is_still_to_come(run, trial):
    produce_all(trial["broker"], trial["source"], [Outgoing(b'{"id": "seen"}', b"a"), Outgoing(b'{"id":"new"}', b"a")])
    [place] = {record.partition for record in read_all(trial["broker"], trial["source"])}
    told = run("explain", trial["file"], "new").stderr
    assert f"its event is at {trial['source']}[{place}] offset 1, and the workers of group " in told
    assert "have not come to it: they have committed nothing yet there" in told
    group = yaml.safe_load(trial["file"].read_text())["pipeline"]
    consumer = Consumer({"bootstrap.servers": trial["broker"], "group.id": group})
    consumer.commit(offsets=[TopicPartition(trial["source"], place, 1)], asynchronous=False)
    consumer.close()
    assert "have not come to it: they have committed up to 1 there" in run("explain", trial["file"], "new").stderr
    told = run("explain", trial["file"], "seen").stderr
    assert f"[{place}] offset 0, and the workers have passed it: a filter or a rule took it out, or its answer" in told
