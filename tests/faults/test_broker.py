"""F05, F06: the broker goes away and comes back, or the network to it is bad, while events keep coming."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_server import ApacheKafka
from support.kafka_tools import create_topic
from support.load import committed_and_repeated, require_bite, slow_down, wait_until_biting
from support.proxied_kafka import proxied_kafka
from support.proxy import FaultProxy
from support.streams import KnownStream, wait_for
from support.vitals import VitalsLog

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

AWAY_S = 8.0
#: Longer than the session timeout: the group goes on without those behind the hole.
BAD_S = 12.0
#: What a worker may grow by, in MB: bounded, whatever piles up.
MAX_GROWTH_MB = 100.0


def make_stream(kafka: ApacheKafka, folder: Path, batch_s: float = 0.0) -> KnownStream:
    """Make a stream on a broker of the test's own."""
    for topic in ("events", "predictions", "dead"):
        create_topic(kafka.bootstrap, topic, 6)
    stream = KnownStream(kafka.bootstrap, folder, "events", "predictions", "dead", group="group")
    if batch_s:
        slow_down(stream, batch_s)
    return stream


def _stop_cleanly(kafka: ApacheKafka) -> None:
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGTERM)
    wait_for(lambda: not kafka.running, "the broker to end")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_f05_the_broker_goes_away_and_comes_back(
    start_kafka: Callable[..., Any], tmp_path: Path, publish: Callable[..., None], seed: int, how: str
) -> None:
    n_times, backs, answered_s, bound = 2, [], [], 0
    kafka = start_kafka()
    with FaultRun(make_stream(kafka, tmp_path, batch_s=0.2), Random(seed)) as run:
        workers = run.workers(2)
        with VitalsLog(*(worker.pid for worker in workers)) as vitals:
            for _ in range(n_times):
                wait_until_biting(*workers)
                moment = run.note()
                require_bite(moment.uncommitted > 0, "nothing was under way when the broker went")
                answered = run.watcher.count
                if how == "SIGKILL":
                    kafka.kill()
                else:
                    _stop_cleanly(kafka)
                pause(AWAY_S)
                require_bite(run.load.count > run.load.n_acked, "no event had to wait for the broker")
                bound += run.at_risk(moment.mark)
                kafka.restart()
                backs.append(now_ms())
                back = time.monotonic()
                wait_for(lambda before=answered: run.watcher.count > before, "an answer", *workers)
                answered_s.append(time.monotonic() - back)
                run.wait_until_recovered(backs[-1], *workers)
        verdict = run.settle(*workers)  # the workers have lived through it
    publish(
        f"broker {how} x{n_times}, away {AWAY_S:.0f} s", verdict, bound=bound,
        recovery_s=run.recoveries_s(backs), first_answer_s=answered_s, rss_growth_mb=vitals.rss_growth_mb,
        refused=run.load.n_refused,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= bound
    assert committed_and_repeated(run.stream, *(moment.mark for moment in run.moments)) == 0
    assert vitals.rss_growth_mb <= MAX_GROWTH_MB


class Network:
    """A kind of bad network, for some time."""

    def __init__(self, kind: str, proxy: FaultProxy) -> None:
        self._kind, self._proxy = kind, proxy

    def be_bad(self) -> None:
        """Be bad, and then good again."""
        proxy = self._proxy
        if self._kind == "black hole":
            proxy.black_hole()
        elif self._kind == "+100 ms":
            proxy.delay(0.1)
        elif self._kind == "0.5 Mbit/s":
            proxy.throttle(500_000 / 8)
        elif self._kind == "half-open":
            proxy.half_open()
        else:
            for _ in range(int(BAD_S)):
                proxy.reset()
                pause(1)
            return
        pause(BAD_S)
        proxy.heal()


@pytest.mark.parametrize("kind", ["black hole", "+100 ms", "0.5 Mbit/s", "reset each second", "half-open"])
def test_f06_the_network_to_the_broker_is_bad(
    start_kafka: Callable[..., Any], tmp_path: Path, publish: Callable[..., None], seed: int, kind: str
) -> None:
    with (
        proxied_kafka(start_kafka) as (kafka, proxy),
        FaultRun(make_stream(kafka, tmp_path), Random(seed), broker=f"127.0.0.1:{proxy.port}") as run,
    ):
        workers = run.workers(2)
        calm_ms = now_ms()
        pause(4)
        with VitalsLog(*(worker.pid for worker in workers)) as vitals:
            moment = run.note()
            held, broken = proxy.n_held, proxy.n_broken
            Network(kind, proxy).be_bad()
            healed_ms = now_ms()
            require_bite(proxy.n_held > held or proxy.n_broken > broken, "the proxy held nothing and broke nothing")
            run.wait_until_recovered(healed_ms, *workers, deadline_s=180.0)
            # A worker that was cut off for longer than its session may answer what waited before it is told so.
            bound = run.at_risk(moment.mark)
        verdict = run.settle(*workers, deadline_s=180.0)  # the workers have lived through it
    publish(
        f"network to the broker: {kind}, {BAD_S:.0f} s", verdict, bound=bound,
        recovery_s=run.recoveries_s([healed_ms]), p99_ms_before=run.p99_ms(calm_ms, moment.at_ms - 1000),
        p99_ms_during=run.p99_ms(moment.at_ms, healed_ms), rss_growth_mb=vitals.rss_growth_mb,
    )  # fmt: skip
    assert verdict.is_right
    assert verdict.duplicated <= bound
    assert committed_and_repeated(run.stream, moment.mark) == 0
    assert vitals.rss_growth_mb <= MAX_GROWTH_MB
