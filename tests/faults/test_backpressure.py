"""F22: ten times as many events as the workers can do, for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fault_run import FaultRun, now_ms, pause
from support.load import require_bite
from support.streams import KnownStream, wait_for
from support.vitals import VitalsLog

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

BURST_S = 20.0
MAX_GROWTH_MB = 100.0
_SLOW = """\
import time
from pathlib import Path

def slow(batch):
    # 4 ms an event, so 250 events per second; until somebody says that it is enough.
    for _ in range(len(batch)):
        if Path({flag!r}).exists():
            return {{}}
        time.sleep(0.004)
    return {{}}
"""


def _make_slow(stream: KnownStream) -> None:
    flag = str(stream.folder / "quick")
    (stream.folder / "slow.py").write_text(_SLOW.format(flag=flag), encoding="utf-8")
    text = stream.file.read_text(encoding="utf-8")
    stream.file.write_text(text.replace("stages:", "stages:\n  - id: slow\n    extract: slow:slow"), encoding="utf-8")


def test_f22_ten_times_what_the_workers_can_do(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    with make_run(per_s=200) as run:
        _make_slow(run.stream)
        workers = run.workers(2)
        pause(2)
        with VitalsLog(*(worker.pid for worker in workers)) as vitals:
            run.load.per_s = 5_000
            began_ms, lags = now_ms(), []
            for _ in range(int(BURST_S)):
                pause(1)
                lags.append(run.stream.lag())
                # Nobody was thrown out of the group: heartbeats and polling go on.
                # A web server that is late on a busy machine says nothing.
                told = [found for worker in workers if (found := worker.stats())]
                assert all(len(found["partitions"]) == 3 for found in told)
            run.load.per_s = 200
            (run.stream.folder / "quick").touch()
            ended_ms = now_ms()
            wait_for(lambda: run.stream.lag() < 2_000, "the lag to drain", *workers, every_s=0.2)
            drained_s = (now_ms() - ended_ms) / 1000
        verdict = run.settle(*workers)
    publish(
        f"5,000 events/s for two workers of 250, {BURST_S:.0f} s", verdict, bound=0,
        recovery_s=run.recoveries_s([ended_ms]), peak_lag=max(lags), drained_s=drained_s,
        rss_growth_mb=vitals.rss_growth_mb, p99_ms_in_burst=run.p99_ms(began_ms, ended_ms),
    )  # fmt: skip
    require_bite(max(lags) > 5 * BURST_S * 500, f"the workers kept up: {max(lags)} events behind at the most")
    assert verdict.is_right
    assert verdict.duplicated == 0
    assert vitals.rss_growth_mb <= MAX_GROWTH_MB
