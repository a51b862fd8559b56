"""From what was noted to a result: who answered what, and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Message

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.pipeline import Pipeline, filter_events, infer
from modelstream.streams.replay import collecting
from modelstream.streams.replay.arrivals import Pace
from modelstream.streams.replay.collecting import Answers, LetterReader, Letters
from modelstream.streams.replay.figures import Usage, UsageReading
from modelstream.streams.replay.generator import INTENDED_HEADER
from modelstream.streams.replay.matching import hash_ids
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.result_keys import Labels
from modelstream.streams.replay.session import Observation
from modelstream.streams.replay.shared import Shared
from modelstream.streams.replay.summing_up import sum_up
from modelstream.streams.replay.target import live_target
from modelstream.streams.replay.workers import stage_figures
from modelstream.streams.settings import BrokerSettings

START_US = 1_700_000_000_000_000


def prediction(event_id: str, ms: float, *, stamped: bool = True) -> Message:
    document = b'{"id":"%s","event_id":%s,"key":null}' % (b"0" * 32, orjson.dumps(event_id))
    kind = TIMESTAMP_LOG_APPEND_TIME if stamped else TIMESTAMP_CREATE_TIME
    return Message(topic="out", partition=0, offset=0, value=document, timestamp=(kind, START_US // 1000 + int(ms)))


def letter(due_ms: float, ms: float) -> Message:
    headers = [
        (INTENDED_HEADER, b"%d" % (START_US + due_ms * 1000)),
        ("modelstream.topic", b"in"),
        ("modelstream.partition", b"0"),
        ("modelstream.offset", b"%d" % due_ms),
        ("modelstream.stage", b"score"),
        ("modelstream.reason", b"wrong_type"),
        ("modelstream.detail", b"field 'x' at %d" % due_ms),
    ]
    return Message(
        topic="dead", partition=0, offset=0, value=b"x", headers=headers,
        timestamp=(TIMESTAMP_CREATE_TIME, START_US // 1000 + int(ms)),
    )  # fmt: skip


def summed_up(
    due_ms: Sequence[float], predictions: Sequence[Message], letters: Sequence[Message] = (), *,
    filters: bool = False, **changes: Any,
) -> ReplayResult:  # fmt: skip
    pipeline = Pipeline("p", source={"topic": "in", "event_id": "id"})
    if filters:
        pipeline = pipeline.then("wanted", filter_events(present=["x"]))
    spec = pipeline.then("score", infer(["m"])).to("out", dead_letter="dead").spec
    target = live_target(BrokerSettings("localhost:1"), spec, 2)
    answers, put_aside = Answers(), Letters()
    if predictions:
        answers.add(predictions)
    put_aside.add(letters)
    due_us = START_US + (np.array(due_ms) * 1000).astype(np.int64)
    values: dict[str, Any] = {
        "start_us": START_US, "intended_us": due_us, "sent_us": due_us + 100, "answers": answers,
        "id_hashes": hash_ids(f"e{i}" for i in range(len(due_ms))), "letters": put_aside, "usage": None,
        "stats_before": [], "stats_after": [], "ended_by": None,
    }  # fmt: skip
    labels = Labels("p.yaml", "f.ndjson", Pace(rate_per_s=100), warm_up=0.0)
    return sum_up(Observation(**(values | changes)), target, labels)


def test_latency_runs_from_the_due_time_to_the_brokers_stamp() -> None:
    result = summed_up([0, 10, 20], [prediction("e1", 15), prediction("e0", 30), prediction("e2", 22)])
    assert result.latency_clock == "log_append_time"
    assert result.append_latency is not None
    assert (result.p50_ms, result.max_ms) == (5.0, 30.0)
    assert (result.predictions, result.missing, result.duplicates) == (3, 0, 0)
    assert result.max_send_delay_ms == 0.1
    assert result.max_lag == 2  # e0 and e2 wait, at 20 ms


def test_what_it_cost_is_by_event_and_of_the_time_up_to_the_last_answer() -> None:
    # The last answer comes halfway between the second look and the third, which go on.
    looks = [
        UsageReading(START_US + at_ms * 1000, cpu_s, rss_bytes, 10 * cpu_s)
        for at_ms, cpu_s, rss_bytes in ((0, 5.0, 90_000_000), (100, 5.2, 321_400_000), (300, 5.6, 200_000_000))
    ]
    found = [prediction(f"e{i}", at_ms) for i, at_ms in enumerate((50, 100, 150, 200))]
    result = summed_up([0, 50, 100, 150], found, usage=Usage.of(looks))
    assert result.cpu_us_per_event == pytest.approx(0.4 / 4 * 1e6)
    if result.machine_cpu_us_per_event is not None:  # not in a container with a share of the machine
        assert result.machine_cpu_us_per_event == pytest.approx(4.0 / 4 * 1e6)
    assert result.peak_rss_mb == 321.4
    # From the first event sent, 0.1 ms after it was due.
    assert result.seconds == pytest.approx(0.1999)
    assert result.events_per_s == pytest.approx(4 / 0.1999, abs=0.05)
    assert result.answers_per_s == pytest.approx(3 / 0.15)
    assert result.series[-1].rss_mb == pytest.approx(260.7)


def test_what_is_filtered_long_after_the_last_answer_takes_time_too() -> None:
    due, one = [0.0] * 10, [prediction("e0", 20)]
    late = summed_up(due, one, moved_us=START_US + 2_000_100, filters=True)
    assert (late.seconds, late.events_per_s) == (2.0, 5.0)
    # A look comes a moment after what it finds.
    soon = summed_up(due, one, moved_us=START_US + 500_000, filters=True)
    assert soon.seconds == pytest.approx(0.02, abs=1e-3)


def test_events_that_are_missing_are_in_no_rate() -> None:
    result = summed_up([0.0] * 10, [prediction("e0", 1000), prediction("e1", 1000)])
    assert (result.missing, result.events_per_s) == (8, pytest.approx(2 / 0.9999, abs=0.05))


def test_batches_and_hits_are_of_all_stages_and_workers() -> None:
    cache = {"hits": 10, "duplicates": 3, "coalesced": 2, "misses": 80, "bypassed": 5}
    before = stats() | {"cache": {"score": dict.fromkeys(cache, 1)}}
    after = stats(rows=500, batches={"full": 9, "idle": 2}) | {"cache": {"score": {k: n + 1 for k, n in cache.items()}}}
    other = stats(rows=100, batches={"full": 2}) | {"cache": {"score": cache}}
    result = summed_up([0], [prediction("e0", 5)], stats_before=[before], stats_after=[after, other])
    assert result.mean_batch == (500 - 300 + 100) / (11 - 3 + 2)
    assert result.cache_hit_rate == 2 * 15 / 200


def test_the_generators_delay_is_told_at_its_99th_percentile_and_at_the_most() -> None:
    due_us = START_US + np.arange(101) * 1000
    delays_us = np.append(np.arange(100) * 10, 50_000)
    result = summed_up(list(range(101)), [prediction("e0", 5)], sent_us=due_us + delays_us)
    assert (result.p99_send_delay_ms, result.max_send_delay_ms) == (0.99, 50.0)


def test_a_broker_that_does_not_stamp_leaves_the_consumers_clock() -> None:
    result = summed_up([0], [prediction("e0", 5, stamped=False)])
    assert (result.latency_clock, result.append_latency) == ("consumer", None)
    assert result.consumer_latency is not None
    assert result.p99_ms == result.consumer_latency.p99_ms


def test_what_is_missing_twice_or_anothers_is_told_apart() -> None:
    found = [prediction("e0", 5), prediction("e0", 6), prediction("other", 7)]
    result = summed_up([0, 1, 2], found, [letter(2, 9), letter(777, 9)])
    assert (result.predictions, result.duplicates, result.dead_letters, result.missing) == (2, 1, 1, 1)
    assert result.series[-1].answered == 2


def test_a_letter_that_came_twice_hides_no_missing_event() -> None:
    result = summed_up([0, 1, 2], [prediction("e0", 5)], [letter(1, 8), letter(1, 9)])
    assert (result.dead_letters, result.missing, result.series[-1].answered) == (1, 1, 2)


def test_dead_letters_tell_why() -> None:
    result = summed_up([0, 1, 2], [], [letter(1, 8), letter(2, 9)])
    assert result.dead_letter_reasons == {"wrong_type at 'score'": 2}
    assert result.first_dead_letter == "in/0/1, wrong_type at 'score': field 'x' at 1"
    assert summed_up([0], [prediction("e0", 5)]).first_dead_letter == ""


def test_letters_that_nobody_reads_yet_start_no_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_START_TIMEOUT_S", 0.01)
    reader = LetterReader(BrokerSettings("localhost:1"), "dead", Letters())  # whose thread does not come to it
    with pytest.raises(BrokerUnavailable, match=r"localhost:1: no answer about dead for 0\.01 s"):
        reader.wait_until_started()


def test_the_warm_up_is_left_out_of_latencies_only() -> None:
    found = [prediction(f"e{i}", 1000 * (i == 0) + i + 1) for i in range(4)]
    whole = summed_up([0, 1, 2, 3], found)
    assert whole.max_ms == 1001.0
    labels = Labels("p", "f", Pace(), warm_up=0.25)
    warm = sum_up_with(labels, found)
    assert (warm.max_ms, warm.predictions, warm.append_latency and warm.append_latency.n) == (1.0, 4, 3)


def sum_up_with(labels: Labels, found: Sequence[Message]) -> ReplayResult:
    answers = Answers()
    answers.add(found)
    due_us = START_US + np.arange(4) * 1000
    spec = Pipeline("p", source={"topic": "in", "event_id": "id"}).then("score", infer(["m"])).to("out").spec
    observation = Observation(
        start_us=START_US, intended_us=due_us, sent_us=due_us, id_hashes=hash_ids(f"e{i}" for i in range(4)),
        answers=answers, letters=Letters(), usage=None, stats_before=[], stats_after=[], ended_by=None,
    )  # fmt: skip
    return sum_up(observation, live_target(BrokerSettings("localhost:1"), spec, 1), labels)


def test_the_latest_answers_are_those_of_the_last_fetches() -> None:
    answers = Answers()
    assert [len(part) for part in answers.latest(3)] == [0, 0]
    for ids in ("ab", "c", "de"):
        answers.add([prediction(event_id, 1) for event_id in ids])
    hashes, came_us = answers.latest(3)
    assert hashes.tolist() == hash_ids("cde").tolist()
    assert came_us.tolist() == answers.came_us()[-3:].tolist()
    assert [len(part) for part in answers.latest(100)] == [5, 5]


def test_where_events_may_be_filtered_only_workers_know_what_is_missing() -> None:
    result = summed_up([0, 1], [prediction("e0", 5)], filters=True)
    assert (result.filtered, result.missing) == (None, None)


def test_what_was_interrupted_misses_nothing_for_certain() -> None:
    for ended_by, failure in ((KeyboardInterrupt(), ""), (ModelStreamError("a worker ended"), "a worker ended")):
        result = summed_up([0, 1], [prediction("e0", 5)], ended_by=ended_by)
        assert (result.missing, result.interrupted, result.failure) == (None, not failure, failure)
        assert result.ended_early
        assert (result.sent, result.unanswered) == (2, 1)
    whole = summed_up([0, 1], [prediction("e0", 5)])
    assert (whole.sent, whole.unanswered) == (2, None)


def test_after_a_failure_what_was_sent_behind_the_last_answer_is_left_out() -> None:
    failed = ModelStreamError("the broker is away")
    found = [prediction("e0", 5), prediction("e1", 7)]
    result = summed_up([0, 1, 2, 500, 1000], found, [letter(2, 9)], ended_by=failed)
    assert (result.events, result.predictions, result.dead_letters) == (3, 2, 1)
    assert result.seconds < 0.1
    assert (result.sent, result.unanswered) == (5, 2)
    assert summed_up([0, 1, 2], [], ended_by=failed).events == 0


def test_without_an_answer_there_are_no_latencies() -> None:
    result = summed_up([0, 1], [])
    assert (result.p50_ms, result.consumer_latency, result.answers_per_s, result.missing) == (None, None, None, 2)
    assert ReplayResult.from_json(result.to_json()) == result


def stats(**counts: Any) -> dict[str, Any]:
    batches = {
        "batches": {"full": 2, "idle": 1}, "rows": 300, "sizes": {"64": 1, "128": 2}, "queued_us_total": 3000,
        "service_us_total": 6000,
    }  # fmt: skip
    return {"batches": {"score": batches | counts}}


def test_stages_are_what_came_between_two_looks_over_all_workers() -> None:
    after = [stats(rows=500, batches={"full": 5, "idle": 1}, sizes={"64": 1, "128": 5}, queued_us_total=9000), stats()]
    [stage] = stage_figures(after, [stats(), {}])
    assert (stage.step_id, stage.batches, stage.rows) == ("score", 6, 500)
    assert stage.close_reasons == {"full": 5, "idle": 1}
    assert stage.sizes == {64: 1, 128: 5}
    assert stage.mean_queued_ms == pytest.approx(1.5)
    assert stage.cache is None


def test_counters_of_a_cache_are_added_and_its_state_is_the_last() -> None:
    def look(hits: int, level: str) -> dict[str, Any]:
        return stats() | {"cache": {"score": {"hits": hits, "misses": 2, "level": level, "reads_paused": True}}}

    [stage] = stage_figures([look(7, "memory"), look(5, "off")], [look(1, "redis"), look(1, "redis")])
    assert stage.cache is not None
    assert (stage.cache.hits, stage.cache.misses, stage.cache.level, stage.cache.reads_paused) == (10, 0, "off", True)


def test_what_is_shared_is_seen_by_the_other(tmp_path: Path) -> None:
    mine = Shared.create(tmp_path, 3, np.array([0, 1, 2]))
    other = Shared.open(tmp_path)
    other.is_ready, other.n_sent = True, 2
    other.sent_us[:2] = [5, 6]
    mine.start_us = 7
    assert (mine.is_ready, mine.n_sent, mine.sent_us.tolist()) == (True, 2, [5, 6, 0])
    assert (other.start_us, other.stop, other.is_done) == (7, False, False)
    again = Shared.create(tmp_path, 1, None)
    assert (again.is_ready, again.due_us, len(again.sent_us)) == (False, None, 1)
    assert mine.sent_us.tolist() == [5, 6, 0]  # those who still hold the old files keep them
