"""F14: the wall clock of the workers is wrong, jumps, and events say that they are of another day."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from support.evidence import Event, known_event
from support.faketime import WrongClock
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_tools import read_all
from support.load import require_bite

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

_DAY_S = 86_400
#: A target for the latency makes the engine compare records' timestamps with its clock.
TARGET = "--set=stages[1].infer.batch={target_p99_ms: 100}"


def event_of_another_day(number: int) -> Event:
    """Return an event whose time is a day early, right, or a day late."""
    event = known_event(number)
    at_ms = int(now_ms()) + 1000 * _DAY_S * (number % 3 - 1)
    value = orjson.dumps({**orjson.loads(event.record.value or b""), "at": at_ms})
    return event._replace(record=event.record._replace(value=value))


def _cross(run: FaultRun) -> None:
    text = run.stream.file.read_text(encoding="utf-8")
    run.stream.file.write_text(text.replace("event_id: id", "event_id: id, event_time: at"), encoding="utf-8")


@pytest.mark.parametrize("kind", ["-1 h", "+1 h", "jumps of 10 min"])
def test_f14_the_workers_clock_is_wrong(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], kind: str
) -> None:
    offset_s = {"-1 h": -3600.0, "+1 h": 3600.0}.get(kind, 0.0)
    with make_run(event_of=event_of_another_day) as run:
        _cross(run)
        [right] = run.workers(1, TARGET)
        pause(1)
        right_ms = now_ms()
        pause(6)
        right_end_ms = now_ms()
        right.stop()
        clock = WrongClock(run.stream.folder, offset_s)
        workers = [run.worker(TARGET, environ=clock.environ) for _ in range(2)]
        run.wait_for_shares(*workers)
        run.wait_until_recovered(now_ms(), *workers)
        pause(1)
        wrong_ms = now_ms()
        for jump_s in (600.0, -600.0, 600.0):
            if kind.startswith("jumps"):
                clock.jump(jump_s)
            pause(3)
        wrong_end_ms = now_ms()
        verdict = run.settle(*workers)
    produced = [r.timestamp_ms - now_ms() for r in read_all(run.stream.bootstrap, run.stream.sink)]
    publish(
        f"workers' clock wrong: {kind}, events' times ±1 day", verdict, bound=0,
        recovery_s=run.recoveries_s([wrong_ms]),
        p99_ms_right=run.p99_ms(right_ms, right_end_ms), p99_ms_wrong=run.p99_ms(wrong_ms, wrong_end_ms), by=clock.by,
    )  # fmt: skip
    if clock.by == "libfaketime":  # else the producer's own clock is right
        furthest_s = max(map(abs, produced)) / 1000
        require_bite(furthest_s > 500, f"no prediction has a wrong timestamp, {furthest_s:.0f} s at the most")
    assert verdict.is_right
    assert (verdict.duplicated, verdict.n_dead) == (0, 0)
