"""Transactions broken at every point, while events keep coming: who reads committed records sees each answer once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from support.kafka_server import ApacheKafka
from support.kafka_tools import create_topic, read_all
from support.load import LiveLoad, require_bite
from support.streams import KnownStream, wait_for
from support.transactions import CommittedReader, deliver_exactly_once, records_behind_open_transactions

from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

N_ROUNDS = 20
TIMEOUT_S = EngineLimits().transaction_timeout_s
#: How often the broker looks for transactions that took too long; by default every 10 s.
CLEANUP_S = 1.0
#: A transaction's timeout, the producer's new start, and the question for offsets, one after the other and under load.
HEALED_WITHIN_S = 180.0
#: How long the worker of F18 stands between the offsets and the commit.
PAUSE_S = 0.7
#: Longer than the session of 6 s, and than a transaction may take, with Kafka's look for it.
PAST_SESSION_S, PAST_TRANSACTION_S = 8.0, TIMEOUT_S + 2 * CLEANUP_S + 1.0

#: A worker that tells its transactional id, and stops for a moment between the offsets and the commit.
_WORKER = """\
import os
import time
from pathlib import Path

from modelstream.streams import app as engine, transactions
from modelstream.streams.worker import log_to_stderr, run_worker

folder = Path({folder!r})


class Slow(transactions.Producer):
    def commit_transaction(self, *arguments):
        time.sleep({pause_s})
        super().commit_transaction(*arguments)


transactions.Producer = Slow
app = engine.app_from_environment()
(folder / f"id-{{os.getpid()}}").write_text(app.delivery._config["transactional.id"])
app.conf.web_port, app.web_port_is_chosen = int(os.environ["WEB_PORT"]), True
log_to_stderr("info")
run_worker(app)
"""


def _make_stream(kafka: ApacheKafka, folder: Path, interval_ms: int) -> KnownStream:
    for topic in ("events", "predictions", "dead"):
        create_topic(kafka.bootstrap, topic, 4)
    stream = KnownStream(kafka.bootstrap, folder, "events", "predictions", "dead", group="group")
    deliver_exactly_once(stream, interval_ms)
    return stream


def _start_kafka(start_kafka: Callable[..., ApacheKafka]) -> ApacheKafka:
    return start_kafka(
        settings={"transaction.abort.timed.out.transaction.cleanup.interval.ms": str(int(CLEANUP_S * 1000))}
    )


def _transactions(worker: WorkerProcess) -> dict[str, int]:
    found: dict[str, int] = worker.stats().get("transactions", {})
    return found


def _wait_long(condition: Callable[[], object], what: str, *workers: WorkerProcess) -> None:
    """Wait as `wait_for`, for faults that take several timeouts to heal."""
    deadline = time.monotonic() + HEALED_WITHIN_S
    while not condition():
        for worker in workers:
            worker.check()
        assert time.monotonic() < deadline, f"waited {HEALED_WITHIN_S:.0f} s for {what}"
        time.sleep(0.1)


def _wait_for_commits(worker: WorkerProcess, n_more: int = 1) -> float:
    """Wait until a worker has committed transactions; return the seconds."""
    started, before = time.monotonic(), _transactions(worker).get("committed", 0)
    _wait_long(lambda: _transactions(worker).get("committed", 0) >= before + n_more, "a transaction", worker)
    return time.monotonic() - started


def _wait_for_open(stream: KnownStream, *workers: WorkerProcess) -> None:
    """Wait until every worker has an open transaction, with records of it on the broker."""
    wait_for(
        lambda: (
            all(_transactions(worker).get("open_rows", 0) > 0 for worker in workers)
            and records_behind_open_transactions(stream.bootstrap, stream.sink) > 0
        ),
        "open transactions",
        *workers,
    )


def _judge(
    stream: KnownStream, numbers: range, reader: CommittedReader, name: str, measured: Callable[..., None], **more: Any
) -> None:
    started = time.monotonic()
    wait_for(lambda: records_behind_open_transactions(stream.bootstrap, stream.sink, stream.dead) == 0, "a stable end")
    hanging_s = time.monotonic() - started
    wait_for(lambda: len(reader.records) >= len(numbers), "the concurrent reader")
    time.sleep(1)  # for what should not come
    outcome = stream.outcome(numbers, isolation="read_committed")
    n_aborted = len(read_all(stream.bootstrap, stream.sink)) - outcome.predictions.total()
    seen = Counter(orjson.loads(value)["event_id"] for _, value in reader.records)
    measured(
        name, events=len(numbers), lost=len(outcome.lost), duplicates=outcome.duplicates, wrong=len(outcome.wrong),
        out_of_order=outcome.out_of_order, seen_twice_meanwhile=seen.total() - len(seen), aborted_records=n_aborted,
        until_stable_s=hanging_s, **more,
    )  # fmt: skip
    require_bite(n_aborted >= N_ROUNDS, f"only {n_aborted} records were aborted")
    assert hanging_s < TIMEOUT_S + 10
    assert outcome.is_clean
    assert seen == outcome.predictions


def test_f17_sigkill_with_an_open_transaction(
    start_kafka: Callable[..., ApacheKafka], tmp_path: Path, measured: Callable[..., None]
) -> None:
    # So long that a kill nearly always finds a transaction open.
    stream = _make_stream(_start_kafka(start_kafka), tmp_path, interval_ms=2_000)
    moments, recovery_s, open_records = random.Random(17), [], []
    with CommittedReader(stream.bootstrap, stream.sink) as reader, LiveLoad(stream, per_s=1_000) as load:
        for _ in range(N_ROUNDS):
            with stream.worker() as worker:
                started = time.monotonic()
                _wait_for_commits(worker)
                recovery_s.append(time.monotonic() - started)
                time.sleep(moments.uniform(0, 2))
                _wait_for_open(stream, worker)
                os.kill(worker.pid, signal.SIGSTOP)
                open_records.append(records_behind_open_transactions(stream.bootstrap, stream.sink))
                worker.kill()
            require_bite(open_records[-1] > 0, "no transaction was open when the worker was killed")
        with stream.worker() as worker:
            _wait_for_commits(worker)
            numbers = load.stop()
            stream.wait_until_committed(worker)
            worker.stop()
        _judge(
            stream, numbers, reader, "F17 SIGKILL with an open transaction x20", measured,
            open_records=[min(open_records), max(open_records)], recovery_s=max(recovery_s),
        )  # fmt: skip


class _SlowToCommit(WorkerProcess):
    """A worker of `_WORKER`."""

    def __init__(self, stream: KnownStream) -> None:
        super().__init__([])
        self._script = stream.folder / "slow_commit.py"
        self._script.write_text(_WORKER.format(folder=str(stream.folder), pause_s=PAUSE_S), encoding="utf-8")
        self._environ = [f"MODELSTREAM_PIPELINE={stream.file}", f"MODELSTREAM_BROKER={stream.bootstrap}"]

    def _command(self) -> list[str]:
        return ["env", *self._environ, f"WEB_PORT={self._port}", sys.executable, str(self._script)]


class _Workers:
    """Two workers on a stream, and what is done to them."""

    def __init__(self, stream: KnownStream, stack: ExitStack) -> None:
        self._stream = stream
        self.both = [stack.enter_context(_SlowToCommit(stream)) for _ in range(2)]

    def wait_until_shared(self) -> float:
        """Wait until both read and commit again; return the seconds."""
        started = time.monotonic()
        _wait_long(lambda: [len(w.stats().get("partitions", ())) for w in self.both] == [2, 2], "shares", *self.both)
        for worker in self.both:
            _wait_for_commits(worker)
        return time.monotonic() - started

    def asleep(self, seconds: float) -> None:
        """Stop one worker for some time, while the other one takes over, and let it go on as a zombie."""
        sleeper, survivor = self.both
        _wait_for_open(self._stream, sleeper)
        os.kill(sleeper.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        require_bite(records_behind_open_transactions(self._stream.bootstrap, self._stream.sink) > 0, "nothing open")
        wait_for(lambda: len(survivor.stats().get("partitions", ())) == 4, "the take-over", survivor)
        _wait_for_commits(survivor)
        wait_for(lambda: time.monotonic() - stopped > seconds, "the sleep to end", survivor)
        os.kill(sleeper.pid, signal.SIGCONT)

    def past_session(self) -> None:
        """Stop one for longer than its session."""
        self.asleep(PAST_SESSION_S)

    def past_transaction(self) -> None:
        """Stop one until Kafka has aborted its transaction."""
        self.asleep(PAST_TRANSACTION_S)

    def hijacked(self) -> None:
        """Start a producer of the same transactional id as one worker's."""
        victim = self.both[0]
        _wait_for_open(self._stream, victim)
        name = (self._stream.folder / f"id-{victim.pid}").read_text()
        hijacker = Producer({"bootstrap.servers": self._stream.bootstrap, "transactional.id": name, "log_level": 0})
        hijacker.init_transactions(30)

    def stop(self) -> None:
        """Let both finish and end."""
        for worker in self.both:
            worker.stop()


def test_f18_zombies_and_a_stolen_name(
    start_kafka: Callable[..., ApacheKafka], tmp_path: Path, measured: Callable[..., None]
) -> None:
    stream = _make_stream(_start_kafka(start_kafka), tmp_path, interval_ms=1_500)
    recovery_s: dict[str, list[float]] = {}
    with (
        CommittedReader(stream.bootstrap, stream.sink) as reader,
        LiveLoad(stream, per_s=1_000) as load,
        ExitStack() as stack,
    ):
        workers = _Workers(stream, stack)
        workers.wait_until_shared()
        faults = (workers.past_session, workers.past_transaction, workers.hijacked)
        for number in range(N_ROUNDS):
            fault = faults[number % len(faults)]
            aborted = _transactions(workers.both[0])["aborted"]
            fault()
            _wait_long(
                lambda aborted=aborted: _transactions(workers.both[0]).get("aborted", 0) > aborted,
                "the transaction to be aborted",
                *workers.both,
            )
            recovery_s.setdefault(fault.__name__, []).append(workers.wait_until_shared())
        numbers = load.stop()
        stream.wait_until_committed(*workers.both)
        workers.stop()
        _judge(
            stream, numbers, reader, "F18 zombies, stolen name x20", measured,
            recovery_s={name: max(times) for name, times in recovery_s.items()},
        )  # fmt: skip
