"""F25: one random fault after the other, for as long as SOAK_MINUTES says; ``make soak MINUTES=60``."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median

import pytest
from redis import Redis
from support.evidence import Event, known_event
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_server import ApacheKafka
from support.kafka_tools import Outgoing, create_topic
from support.load import require_bite
from support.poison import KINDS
from support.proxied_kafka import proxied_kafka
from support.proxy import FaultProxy
from support.redis_server import RedisServer
from support.streams import KnownStream, wait_for
from support.vitals import VitalsLog, slope

from modelstream.streams.worker_process import WorkerProcess

MINUTES = float(os.environ.get("SOAK_MINUTES") or 60)
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(MINUTES * 60 + 1200)]

PER_S = 500
#: While the process warms up its memory grows; then it must not. A run that is shorter than twice this tells nothing
#: about memory, and publishes a slope all the same.
WARM_UP_S = 600.0
IS_LONG = MINUTES * 60 >= 2 * WARM_UP_S
MAX_SLOPE_MB_PER_MIN = 1.0
#: Descriptors, threads and asyncio tasks.
MAX_MORE = 5
CACHED = "--set=stages[1].infer.cache={ttl_s: 10, bypass: false}"
#: Kinds that break in the decoder, which every pipeline has.
_POISON = [kind for kind, poison in KINDS.items() if poison.reason in ("undecodable", "too_deep")]


def repeating_event(number: int) -> Event:
    """Return an event of its own id; one in two has a row that comes again."""
    return known_event(number, value=number % 1000 if number % 2 else number % 4_000_000)


def _at_start(counts: list[int]) -> float:
    # A tenth of the looks: one alone may fall into a fault.
    return median(counts[: len(counts) // 10 + 1])


def _at_end(counts: list[int]) -> float:
    return _at_start(counts[::-1])


def _course(counts: list[int]) -> str:
    return f"{_at_start(counts):g} to {_at_end(counts):g} ({min(counts)}-{max(counts)})"


class Nemesis:
    """Does harm. One worker is never killed, so that its memory tells something.

    Parameters
    ----------
    run : FaultRun
        Whose workers and events.
    kafka, kafka_proxy, redis : ApacheKafka, FaultProxy, RedisServer
        The servers.
    start : callable
        Starts another worker.
    """

    def __init__(
        self, run: FaultRun, kafka: ApacheKafka, kafka_proxy: FaultProxy, redis: RedisServer,
        start: Callable[[], WorkerProcess],
    ) -> None:  # fmt: skip
        self._run, self._kafka, self._proxy, self._redis, self._start = run, kafka, kafka_proxy, redis, start
        self.mortal = start()
        self.done: Counter[str] = Counter()
        #: Events that may have come twice: by each fault that repeats, what was not committed before it and what was
        #: sent until the stream had caught up.
        self.n_at_risk = 0
        self._n_poison = 0

    def strike(self, steady: WorkerProcess) -> tuple[str, float]:
        """Do one harm, end it, and return its name and the seconds until the stream had caught up."""
        repeating = [self.kill, self.stop, self.restart_broker, self.kill_broker, self.black_hole, self.reset]
        harmless = [self.terminate, self.third, self.delay, self.kill_redis, self.stop_redis, self.flush_redis,
                    self.poison]  # fmt: skip
        harm = self._run.rng.choice(repeating + harmless)
        moment = self._run.note()
        harm()
        ended, ended_ms = time.monotonic(), now_ms()
        self._run.wait_until_recovered(ended_ms, steady, self.mortal, deadline_s=180.0)
        recovery_s = time.monotonic() - ended
        if harm in repeating:
            self.n_at_risk += self._run.at_risk(moment.mark)
        self.done[harm.__name__] += 1
        return str(harm.__name__), recovery_s

    def kill(self) -> None:
        self.mortal.kill()
        pause(1)
        self.mortal = self._start()

    def terminate(self) -> None:
        self.mortal.stop()
        self.mortal = self._start()

    def stop(self) -> None:
        os.kill(self.mortal.pid, signal.SIGSTOP)
        pause(self._run.rng.uniform(1, 10))
        os.kill(self.mortal.pid, signal.SIGCONT)

    def third(self) -> None:
        worker = self._start()
        worker.wait_until_ready()
        pause(self._run.rng.uniform(1, 5))
        worker.stop()

    def restart_broker(self) -> None:
        pid = self._kafka.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self._kafka.running, "the broker to end")
        pause(self._run.rng.uniform(0, 5))
        self._kafka.restart()

    def kill_broker(self) -> None:
        self._kafka.kill()
        pause(self._run.rng.uniform(0, 5))
        self._kafka.restart()

    def delay(self) -> None:
        self._proxy.delay(0.1)
        pause(5)
        self._proxy.heal()

    def black_hole(self) -> None:
        self._proxy.black_hole()
        pause(self._run.rng.uniform(1, 12))
        self._proxy.heal()

    def reset(self) -> None:
        self._proxy.reset()

    def kill_redis(self) -> None:
        self._redis.kill()
        pause(5)
        self._redis.restart()

    def stop_redis(self) -> None:
        assert self._redis.pid is not None
        os.kill(self._redis.pid, signal.SIGSTOP)
        pause(5)
        os.kill(self._redis.pid, signal.SIGCONT)

    def flush_redis(self) -> None:
        with Redis.from_url(self._redis.url) as client:
            client.flushall()

    def poison(self) -> None:
        for kind in _POISON:
            self._n_poison += 1
            value = KINDS[kind].value(self._n_poison)
            self._run.load.send([Event(Outgoing(value, b"broken"), f"broken-{self._n_poison}", None)])


def test_f25_soak(
    start_kafka: Callable[..., ApacheKafka], tmp_path: Path, publish: Callable[..., None], seed: int
) -> None:
    with ExitStack() as stack:
        kafka, proxy = stack.enter_context(proxied_kafka(start_kafka))
        redis = stack.enter_context(RedisServer())
        for topic in ("events", "predictions", "dead"):
            create_topic(kafka.bootstrap, topic, 6)
        stream = KnownStream(kafka.bootstrap, tmp_path, "events", "predictions", "dead", group="group")
        run = FaultRun(stream, Random(seed), PER_S, repeating_event, broker=f"127.0.0.1:{proxy.port}")
        stack.enter_context(run)

        def start() -> WorkerProcess:
            return run.worker(CACHED, "--redis", redis.url)

        steady = start()
        nemesis = Nemesis(run, kafka, proxy, redis, start)
        run.wait_for_shares(steady, nemesis.mortal)
        vitals = stack.enter_context(VitalsLog(steady.pid, every_s=5.0))
        began, recovery_s, tasks = time.monotonic(), [], []
        while time.monotonic() - began < MINUTES * 60:
            harm, took_s = nemesis.strike(steady)
            recovery_s.append(took_s)
            pause(run.rng.uniform(5, 15))
            at_s, n_tasks = time.monotonic() - began, steady.stats().get("tasks")
            if n_tasks and (at_s >= WARM_UP_S or not IS_LONG):
                tasks.append(n_tasks)
            rss_mb = vitals.found[steady.pid][-1].rss_mb
            print(f"{at_s:7.0f} s  {harm:16s} {took_s:6.1f} s {rss_mb:6.1f} MB {n_tasks} tasks", flush=True)
        verdict = run.settle(steady, nemesis.mortal, deadline_s=180.0)
    looks = vitals.found[steady.pid]
    found = [v for v in looks if v.at_s - looks[0].at_s >= WARM_UP_S] if IS_LONG else looks[len(looks) // 2 :]
    rss_slope = slope([(v.at_s / 60, v.rss_mb) for v in found])
    descriptors, threads = [v.n_descriptors for v in found], [v.n_threads for v in found]
    publish(
        f"soak of {MINUTES:g} min, random faults", verdict, bound=nemesis.n_at_risk, recovery_s=max(recovery_s),
        rss_mb_per_min=rss_slope, rss_mb=found[-1].rss_mb, descriptors=_course(descriptors),
        threads=_course(threads), tasks=_course(tasks), dead=verdict.n_dead, faults=nemesis.done.total(),
        **nemesis.done,
    )  # fmt: skip
    require_bite(nemesis.done.total() > 0, "there was no fault")
    assert verdict.is_right
    assert verdict.duplicated <= nemesis.n_at_risk
    if IS_LONG:
        assert rss_slope <= MAX_SLOPE_MB_PER_MIN
    for counts in (descriptors, threads, tasks):
        assert _at_end(counts) - _at_start(counts) <= MAX_MORE
