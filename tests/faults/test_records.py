"""F12, F13, F21: records that are broken, too large, or come several times and out of order."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import orjson
import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from support.evidence import Event, known_event
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_tools import DEADLINE_S, Outgoing, admin_client
from support.load import require_bite
from support.poison import AT_MS, KINDS, good_event, write_pipeline
from support.streams import wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def wide_event(number: int) -> Event:
    """Return an event for the pipeline that every kind of poison can fail in."""
    value = good_event(f"e{number}", seq=number, slot=number % 10)
    return Event(Outgoing(value, b"key-%d" % (number % 500)), f"e{number}", 3.0 * number + 1.0)


def broken(kind: str, number: int, partition: int | None = None) -> Event:
    """Return a broken record that must become a dead letter."""
    return Event(KINDS[kind].record(number, partition), f"broken-{number}", None)


@pytest.mark.quick
def test_f12_poison_alone_mixed_in_and_in_a_run(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], quick: bool
) -> None:
    kinds = list(KINDS)
    with make_run(event_of=wide_event) as run:
        write_pipeline(run.stream)
        workers = run.workers(1 if quick else 2)
        pause(2)
        calm_ms = now_ms()
        pause(1 if quick else 6)
        poisoned_ms = now_ms()
        run.note()
        # Each kind once among good ones.
        for i in range(0, len(kinds), 4):
            run.load.send(broken(kind, i + j) for j, kind in enumerate(kinds[i : i + 4]))
            pause(0.1)
        # 1 in 100 of what comes.
        for i in range(100 if quick else 1_000):
            run.load.send([broken(run.rng.choice(kinds), 1_000 + i)])
            pause(0.01)
        mixed_ms = now_ms()
        # A run of them in one partition.
        run.load.send(broken(kinds[i % len(kinds)], 3_000 + i, partition=0) for i in range(1_000))
        pause(1 if quick else 5)
        verdict = run.settle(*workers)
    publish(
        f"poison of {len(kinds)} kinds: each, 1 % mixed in, 1,000 in a run", verdict, bound=0,
        recovery_s=run.recoveries_s([mixed_ms]), dead=verdict.n_dead,
        p99_ms_before=run.p99_ms(calm_ms, poisoned_ms), p99_ms_with=run.p99_ms(poisoned_ms, mixed_ms),
    )  # fmt: skip
    require_bite(verdict.n_dead > 0, "nothing became a dead letter")
    assert verdict.is_right
    assert verdict.duplicated == 0
    assert verdict.n_dead == len(kinds) + (100 if quick else 1_000) + 1_000


def _sized(n_bytes: int, number: int, answer: float | None) -> Event:
    head = b'{"id":"large-%d","seq":%d,"padding":"' % (number, number)
    value = head + b"x" * (n_bytes - len(head) - 2) + b'"}'
    assert len(value) == n_bytes
    return Event(Outgoing(value, b"large-%d" % number), f"large-{number}", answer)


def _output_too_large(number: int) -> Event:
    """Return an event whose record fits, but not its prediction, which holds its key and id twice."""
    event_id = f"wide-{number}-" + "é" * 450_000
    return Event(Outgoing(orjson.dumps({"id": event_id, "seq": 3}), b"k" * 60_000), f"wide-{number}", None)


def test_f13_records_and_predictions_that_are_too_large(
    make_run: Callable[..., FaultRun], publish: Callable[..., None]
) -> None:
    limit = 1_048_576
    with make_run() as run:
        topic = ConfigResource(
            ResourceType.TOPIC, run.stream.source,
            incremental_configs=[
                ConfigEntry("max.message.bytes", "20000000", incremental_operation=AlterConfigOpType.SET)
            ],
        )  # fmt: skip
        admin = admin_client(run.stream.bootstrap)  # held: a client that is collected leaves its futures unanswered
        [done] = admin.incremental_alter_configs([topic]).values()
        done.result(DEADLINE_S)
        workers = run.workers(2)
        calm_ms = now_ms()
        pause(5)
        moment = run.note()
        for i in range(20):
            n = 10 * i
            run.load.send([_sized(limit - 1, n, 3.0 * n + 1.0), _sized(limit, n + 1, 3.0 * n + 4.0),
                           _sized(limit + 1, n + 2, None), _output_too_large(n + 3)])  # fmt: skip
            if i % 10 == 0:
                run.load.send([_sized(10_000_000, n + 4, None)])
            pause(0.5)
        large_ms = now_ms()
        verdict = run.settle(*workers)
    publish(
        "records of 1 MiB, 1 MiB + 1 byte, 10 MB; predictions above the limit", verdict, bound=0,
        recovery_s=run.recoveries_s([large_ms - 1000]), dead=verdict.n_dead,
        p99_ms_before=run.p99_ms(calm_ms, moment.at_ms), p99_ms_with=run.p99_ms(moment.at_ms, large_ms),
    )  # fmt: skip
    require_bite(verdict.n_dead > 0, "nothing became a dead letter")
    assert verdict.is_right
    assert verdict.duplicated == 0
    assert verdict.n_dead == 20 + 20 + 2


@pytest.mark.quick
def test_f21_records_come_several_times_and_shuffled(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], quick: bool
) -> None:
    n_chunks, chunk = (3 if quick else 40), 1_000
    with make_run(per_s=0) as run:
        # Without a time of their own, copies are as old as their records, and so differ.
        text = run.stream.file.read_text(encoding="utf-8")
        run.stream.file.write_text(text.replace("event_id: id", "event_id: id, event_time: at"), encoding="utf-8")
        workers = run.workers_without_load(1 if quick else 2)
        n_sent = 0
        for i in range(n_chunks):
            events = _repeated(range(i * chunk, (i + 1) * chunk), run.rng)
            n_sent += len(events)
            run.load.send(events)
            pause(0.2)
        wait_for(lambda: run.watcher.count >= n_sent, "everything to be answered", *workers)
        verdict = run.settle(*workers)
    n_predictions = run.watcher.count
    publish(
        "each record produced 1-3 times, shuffled within 1,000", verdict, bound=0,
        answers=n_predictions, copies_that_differ=len(verdict.unequal),
    )  # fmt: skip
    require_bite(n_sent > n_chunks * chunk, "nothing came twice")
    # No deduplication: as many answers as records, and equal ones for equal events, so that a reader can tell.
    assert n_predictions == n_sent
    assert verdict.is_right
    assert verdict.duplicated == 0


def _timed_event(number: int) -> Event:
    event = known_event(number)
    value = orjson.dumps({**orjson.loads(event.record.value or b""), "at": AT_MS + number})
    return event._replace(record=event.record._replace(value=value))


def _repeated(numbers: range, rng: Random) -> list[Event]:
    events = [_timed_event(number) for number in numbers for _ in range(rng.randint(1, 3))]
    rng.shuffle(events)
    return events
