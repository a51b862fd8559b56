"""F07–F10: Redis dies, hangs, is slow, full, read-only, emptied and corrupted. The models answer all the same."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis
from support.evidence import Event, known_event
from support.fault_run import FaultRun, now_ms, pause
from support.kafka_tools import end_offsets
from support.load import require_bite
from support.proxy import FaultProxy
from support.redis_server import RedisServer
from support.streams import wait_for

from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]

#: Nothing is kept in memory, so every row asks Redis; the model is so fast that the cache would leave itself out.
CACHED = "--set=stages[1].infer.cache={ttl_s: 300, l1_rows: 0, bypass: false}"
#: How many different rows there are: events repeat them.
N_ROWS = 2_000


def repeating_event(number: int) -> Event:
    """Return an event of its own id whose row comes again and again."""
    return known_event(number, value=number % N_ROWS)


def counters(*workers: WorkerProcess) -> Counter[str]:
    """Return the cache counters of workers, added up."""
    total: Counter[str] = Counter()
    for worker in workers:
        found: dict[str, Any] = worker.stats().get("cache", {}).get("score", {})
        total.update({name: int(value) for name, value in found.items() if name != "level"})
    return total


class Outage:
    """A way for Redis not to answer, and to come back."""

    def __init__(self, kind: str, redis: RedisServer, proxy: FaultProxy) -> None:
        self._kind, self._redis, self._proxy = kind, redis, proxy

    def begin(self) -> None:
        if self._kind == "SIGKILL":
            self._redis.kill()
        elif self._kind == "SIGSTOP":
            os.kill(self._pid, signal.SIGSTOP)
        elif self._kind == "CLIENT PAUSE":
            with Redis.from_url(self._redis.url) as client:
                client.client_pause(15_000)
        elif self._kind == "+200 ms":
            self._proxy.delay(0.2)
        else:
            self._proxy.black_hole()

    def end(self) -> None:
        if self._kind == "SIGKILL":
            self._redis.restart()
        elif self._kind == "SIGSTOP":
            os.kill(self._pid, signal.SIGCONT)
        elif self._kind == "CLIENT PAUSE":
            # A paused Redis takes no word to go on from a new connection either: it ends by itself.
            with Redis.from_url(self._redis.url, socket_timeout=30) as client:
                client.ping()
        else:
            self._proxy.heal()

    @property
    def _pid(self) -> int:
        assert self._redis.pid is not None
        return self._redis.pid


def _ride_out(make_run: Callable[..., FaultRun], kind: str, publish: Callable[..., None]) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        proxy = stack.enter_context(FaultProxy(redis.port))
        outage = Outage(kind, redis, proxy)
        run = make_run(event_of=repeating_event)
        stack.enter_context(run)
        [plain] = run.workers(1)
        pause(1)
        plain_ms, plain_count = now_ms(), run.watcher.count
        pause(5)
        plain_end_ms, plain_count = now_ms(), run.watcher.count - plain_count
        plain.stop()
        [worker] = run.workers(1, CACHED, "--redis", f"redis://127.0.0.1:{proxy.port}/0")
        wait_for(lambda: counters(worker)["redis_hits"] > N_ROWS, "Redis to serve", worker)
        errors = counters(worker)["errors"]
        run.note()
        began = time.monotonic()
        outage.begin()
        wait_for(lambda: counters(worker)["reads_paused"], "the breaker to open", worker)
        opened_s = time.monotonic() - began
        pause(1)
        open_ms, open_count = now_ms(), run.watcher.count
        pause(8)
        open_end_ms, open_count = now_ms(), run.watcher.count - open_count
        at_end = counters(worker)
        require_bite(at_end["errors"] > errors and at_end["redis_skipped"] > 0, "no call of Redis failed")
        outage.end()
        ended, hits = time.monotonic(), counters(worker)["redis_hits"]
        wait_for(lambda: not counters(worker)["reads_paused"], "the breaker to close", worker)
        closed_s = time.monotonic() - ended
        wait_for(lambda: counters(worker)["redis_hits"] > hits, "Redis to serve again", worker)
        verdict = run.settle(worker)
    throughput = (open_count / (open_end_ms - open_ms)) / (plain_count / (plain_end_ms - plain_ms))
    publish(
        f"Redis {kind}", verdict, bound=0, recovery_s=run.recoveries_s(), opened_s=opened_s, closed_s=closed_s,
        errors=at_end["errors"] - errors, p99_ms_without_cache=run.p99_ms(plain_ms, plain_end_ms),
        p99_ms_while_open=run.p99_ms(open_ms, open_end_ms), throughput_percent=100 * throughput,
    )  # fmt: skip
    assert verdict.is_right
    assert (verdict.duplicated, verdict.n_dead) == (0, 0)
    # Of what was answered in the same time without a cache, at the same load.
    assert throughput >= 0.8
    # Five calls fail, then one each second asks whether Redis is back; not one for each of the 10,000 events.
    assert at_end["errors"] - errors < 200


def test_f07_redis_is_killed_and_comes_back(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    _ride_out(make_run, "SIGKILL", publish)


@pytest.mark.parametrize("kind", ["SIGSTOP", "CLIENT PAUSE", "+200 ms", "black hole"])
def test_f08_redis_hangs(make_run: Callable[..., FaultRun], publish: Callable[..., None], kind: str) -> None:
    _ride_out(make_run, kind, publish)


def _flush(client: Redis) -> None:
    client.flushall()


def _fill(client: Redis) -> None:
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    client.flushall()


def _unfill(client: Redis) -> None:
    client.config_set("maxmemory", 0)


def _make_replica(client: Redis) -> None:
    client.flushall()  # so that there is something to write
    client.replicaof("127.0.0.1", 1)


def _make_master(client: Redis) -> None:
    client.replicaof("NO", "ONE")


def _garble(client: Redis) -> None:
    for i, key in enumerate(client.scan_iter("ms:*", count=1000)):
        value = client.get(key)
        # Cut, one bit turned, and something else altogether.
        garbled = (value[:-3], value[:-1] + bytes([value[-1] ^ 1]), b"garbage")[i % 3]
        client.set(key, garbled)


def _change_types(client: Redis) -> None:
    for key in client.scan_iter("ms:*", count=1000):
        client.delete(key)
        client.lpush(key, "not a string")


def _nothing(client: Redis) -> None:
    pass


#: How it begins and ends, and which counter tells that it was felt.
FAULTS = {
    "FLUSHALL": (_flush, _nothing, "misses"),
    "full, noeviction": (_fill, _unfill, "dropped"),
    "read-only replica": (_make_replica, _make_master, "dropped"),
    "corrupt values": (_garble, _nothing, "corrupt"),
    "wrong types": (_change_types, _nothing, "misses"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_f09_redis_holds_or_takes_nothing_good(
    make_run: Callable[..., FaultRun], publish: Callable[..., None], kind: str
) -> None:
    begin, end, sign = FAULTS[kind]
    with RedisServer() as redis, Redis.from_url(redis.url) as client, make_run(event_of=repeating_event) as run:
        [worker] = run.workers(1, CACHED, "--redis", redis.url)

        def hit_share(seconds: float) -> float:
            before = counters(worker)
            pause(seconds)
            after = counters(worker)
            n_rows = sum(after[n] - before[n] for n in ("hits", "misses", "bypassed"))
            return (after["hits"] - before["hits"]) / max(n_rows, 1)

        wait_for(lambda: counters(worker)["redis_hits"] > 2 * N_ROWS, "Redis to serve", worker)
        share_before = hit_share(2)
        before = counters(worker)
        run.note()
        begin(client)
        share_during = hit_share(4)
        after = counters(worker)
        changed = {name: after[name] - before[name] for name in ("misses", "corrupt", "errors", "dropped")}
        require_bite(changed[sign] > 0, f"no sign of it: {changed}")
        end(client)
        ended = time.monotonic()
        wait_for(lambda: hit_share(1) >= 0.9 * share_before, "the hits to come back", worker)
        back_s = time.monotonic() - ended
        verdict = run.settle(worker)
    publish(
        f"Redis {kind}", verdict, bound=0, recovery_s=run.recoveries_s(), hits_percent_before=100 * share_before,
        hits_percent_during=100 * share_during, hits_back_s=back_s, **changed,
    )  # fmt: skip
    assert verdict.is_right
    assert (verdict.duplicated, verdict.n_dead) == (0, 0)


def test_f10_a_hot_row_is_inferred_once(make_run: Callable[..., FaultRun], publish: Callable[..., None]) -> None:
    n_bursts, n_events = 5, 1_000
    with RedisServer() as redis, make_run(per_s=0) as run:
        # Longer than a burst may take on a busy machine; what is kept is deleted instead of waited for.
        options = ("--set=stages[1].infer.batch={in_flight: 4, max_size: 64}", CACHED, "--redis", redis.url)
        workers = run.workers_without_load(2, *options)
        with Redis.from_url(redis.url) as client:
            for burst in range(n_bursts):
                client.flushall()
                numbers = range(burst * n_events, (burst + 1) * n_events)
                run.load.send(known_event(number, value=10_000 + burst) for number in numbers)
                wait_for(lambda due=numbers.stop: run.watcher.count >= due, "the burst to be answered", *workers)
        found = counters(*workers)
        verdict = run.settle(*workers)
    publish(f"hot row expires, {n_events} events at once, x{n_bursts}", verdict, bound=0, inferred=found["misses"],
            coalesced=found["coalesced"], equal_in_a_batch=found["duplicates"])  # fmt: skip
    assert verdict.is_right
    require_bite(found["coalesced"] + found["duplicates"] > n_events, "the events did not come together")
    # Once a worker and burst; and once more where the writing to Redis came after the next batch had asked.
    assert found["misses"] + found["late"] <= 2 * n_bursts * len(workers)


def test_f10_what_was_kept_together_does_not_end_together(
    make_run: Callable[..., FaultRun], publish: Callable[..., None]
) -> None:
    n_rows, ttl_s = 10_000, 300
    with RedisServer() as redis, make_run(per_s=0) as run:
        [worker] = run.workers_without_load(1, CACHED, "--redis", redis.url)
        run.load.send(known_event(number) for number in range(n_rows))
        with Redis.from_url(redis.url) as client:
            wait_for(lambda: client.dbsize() >= 0.99 * n_rows, "the answers to be written", worker)
            with client.pipeline(transaction=False) as pipeline:
                for key in client.scan_iter("ms:*", count=1000):
                    pipeline.pttl(key)
                left_ms = [found for found in pipeline.execute() if found > 0]
        verdict = run.settle(worker)
    ends = Counter(int(left / 1000) for left in left_ms)
    spread_s = (max(left_ms) - min(left_ms)) / 1000
    publish(f"{n_rows} rows kept at once for {ttl_s} s", verdict, bound=0, spread_s=spread_s,
            peak_to_mean=max(ends.values()) / (len(left_ms) / (0.2 * ttl_s)))  # fmt: skip
    assert verdict.is_right
    require_bite(len(left_ms) > 0.9 * n_rows, "too few answers were kept")
    assert max(ends.values()) <= 2 * len(left_ms) / (0.2 * ttl_s)
    assert sum(end_offsets(run.stream.bootstrap, run.stream.sink).values()) == n_rows
