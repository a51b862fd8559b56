"""F14: the wall clock of the workers is wrong, jumps, runs too fast, and records say that they are of another day."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.evidence import Event, known_event
from support.fault_run import FaultRun, now_ms, pause
from support.load import require_bite
from support.streams import KnownStream
from support.wrong_clock import WrongClock

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

_MINUTE_S = 60
_DAY_S = 86_400
#: A target for the latency makes the engine compare the timestamps of records with its clock.
TARGET = "--set=stages[2].infer.batch={target_p99_ms: 100}"
_NOTE_TIME = """\
import os
import time
from pathlib import Path

def note(batch):
    scratch = Path({file!r} + str(os.getpid()))
    scratch.write_text(str(time.time()))
    scratch.rename({file!r})  # never read half written
    return {{}}
"""


def event_of_another_day(number: int) -> Event:
    """Return an event whose record is a day old, new, or half an hour of the future; Kafka takes one hour."""
    event = known_event(number)
    at_s = time.time() + (-_DAY_S, 0, 30 * _MINUTE_S)[number % 3]
    return event._replace(record=event.record._replace(timestamp_ms=int(1000 * at_s)))


def _note_time(stream: KnownStream) -> Path:
    """Put a stage in front that notes what time it is for the worker, and return the file."""
    file = stream.folder / "worker-time"
    (stream.folder / "noting.py").write_text(_NOTE_TIME.format(file=str(file)), encoding="utf-8")
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(text.replace("stages:", "stages:\n  - id: note\n    extract: noting:note"), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["-1 h", "+1 h", "jumps of 10 min", "runs x1.1"])
def test_f14_the_workers_clock_is_wrong(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], kind: str
) -> None:
    offset_s = {"-1 h": -60.0 * _MINUTE_S, "+1 h": 60.0 * _MINUTE_S}.get(kind, 0.0)
    drifts = kind == "runs x1.1"
    with make_run(event_of=event_of_another_day) as run:
        noted = _note_time(run.stream)
        right = run.workers(2, TARGET)
        run.wait_until_recovered(now_ms(), *right)
        right_ms = now_ms()
        pause(6)
        right_end_ms = now_ms()
        for worker in right:
            worker.stop()
        clock = WrongClock(run.stream.folder, offset_s, rate=1.1 if drifts else 1.0)
        workers = [run.worker(TARGET, environ=clock.environ) for _ in range(2)]
        run.wait_for_shares(*workers)
        run.wait_until_recovered(now_ms(), *workers)
        wrong_ms, off_s = now_ms(), []
        for jump_s in (10.0 * _MINUTE_S, -10.0 * _MINUTE_S, 10.0 * _MINUTE_S):
            if not offset_s and not drifts:
                clock.jump(jump_s)
            pause(3)
            off_s.append(float(noted.read_text()) - time.time())
        wrong_end_ms = now_ms()
        verdict = run.settle(*workers)
    publish(
        f"workers' clock: {kind}; records of -1 day to +30 min", verdict, bound=0,
        recovery_s=run.recoveries_s([wrong_ms]), p99_ms_right=run.p99_ms(right_ms, right_end_ms),
        p99_ms_wrong=run.p99_ms(wrong_ms, wrong_end_ms), clock_off_s=off_s, by="sitecustomize",
    )  # fmt: skip
    least_s = 0.5 if drifts else 9 * _MINUTE_S
    require_bite(all(abs(off) > least_s for off in off_s), f"the clock was off by {off_s} s only")
    assert verdict.is_right
    assert (verdict.duplicated, verdict.n_dead) == (0, 0)
