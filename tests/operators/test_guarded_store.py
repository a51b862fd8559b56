"""A store that goes away: a server of the test's own, which is killed and started again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from redis import Redis
from support.redis_server import RedisServer

from modelstream.operators.breaker import Breaker
from modelstream.operators.guarded_store import GuardedStore, StoreNews
from modelstream.operators.redis_store import RedisStore

pytestmark = pytest.mark.redis

PATIENT_S = 30.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def until(answers: object) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not answers():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_while_it_is_away_no_caller_asks_it_but_a_thread_does(server: RedisServer) -> None:
    errors: list[int] = []
    store = RedisStore(server.url, 1.0)
    store.set_many([(b"a", b"1")], 60)
    breaker = Breaker(max_failures=3, rest_s=0.02)
    guarded = GuardedStore(store, breaker, lambda: errors.append(1))
    assert guarded.get_many([b"a", b"b"]) == [b"1", None]
    server.kill()
    assert [guarded.get_many([b"a"]) for _ in range(5)] == [None] * 5
    assert breaker.is_open
    until(lambda: len(errors) > 5)
    server.restart()
    until(lambda: not breaker.is_open)
    assert guarded.get_many([b"a"]) == [None]
    # One call failed after the thread's: at once it is left alone again.
    server.kill()
    assert guarded.get_many([b"a"]) is None
    guarded.close(PATIENT_S)
    store.close()


def test_it_is_said_once_that_it_is_away_and_once_that_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []
    store = RedisStore(server.url, PATIENT_S)
    breaker = Breaker(max_failures=3, rest_s=1e9)
    guarded = GuardedStore(store, breaker, lambda: None, StoreNews("away: %s", "back", told.append))
    with caplog.at_level(logging.INFO):
        guarded.get_many([b"a"])
        server.kill()
        for _ in range(9):
            guarded.get_many([b"a"])
        assert told == [True]
        # A trial goes well, and the call that follows does not: no news.
        breaker.tried()
        guarded.get_many([b"a"])
        assert breaker.is_open
        server.restart()
        breaker.tried()
        for _ in range(9):
            guarded.get_many([b"a"])
    assert told == [True, False]
    (away, away_text), (back, back_text) = ((record.levelname, record.getMessage()) for record in caplog.records)
    assert (away, back, back_text) == ("WARNING", "INFO", "back")
    assert away_text.startswith("away: Redis: ")
    guarded.close(PATIENT_S)
    store.close()


def test_a_trial_that_went_well_is_not_enough(server: RedisServer) -> None:
    store = RedisStore(server.url, 1.0)
    breaker = Breaker(max_failures=3, rest_s=0.02)
    guarded = GuardedStore(store, breaker, lambda: None)
    server.kill()
    for _ in range(3):
        guarded.get_many([b"a"])
    server.restart()
    until(lambda: not breaker.is_open)
    server.kill()
    assert guarded.get_many([b"a"]) is None
    assert breaker.is_open
    guarded.close(PATIENT_S)
    store.close()


def test_there_is_one_thread_and_it_ends(server: RedisServer) -> None:
    store = RedisStore(server.url, 0.5)
    guarded = GuardedStore(store, Breaker(max_failures=1, rest_s=0.01), lambda: None)
    server.kill()
    callers = [threading.Thread(target=guarded.get_many, args=([b"a"],)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sum(thread.name == "modelstream-cache-watch" for thread in threading.enumerate()) == 1
    guarded.close(PATIENT_S)
    assert not any(thread.name == "modelstream-cache-watch" for thread in threading.enumerate())
    store.close()


def test_a_paused_server_holds_up_only_the_calls_that_open_the_breaker(server: RedisServer) -> None:
    store = RedisStore(server.url, 0.05)
    errors: list[int] = []
    guarded = GuardedStore(store, Breaker(rest_s=1e9), lambda: errors.append(1))
    with Redis.from_url(server.url) as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
    for _ in range(50):
        assert guarded.get_many([b"a"]) is None
    assert len(errors) == 5
    guarded.close(PATIENT_S)
    store.close()


class Strange:
    """A store whose client raises what no client should."""

    def __init__(self) -> None:
        self.is_well = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not self.is_well:
            raise LookupError("an answer that nobody expects")
        return [None] * len(keys)

    def set_many(self, pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_whatever_a_client_raises_it_is_asked_again() -> None:
    errors: list[int] = []
    store, breaker = Strange(), Breaker(max_failures=1, rest_s=0.01)
    guarded = GuardedStore(store, breaker, lambda: errors.append(1))
    assert guarded.get_many([b"a"]) is None
    until(lambda: len(errors) > 2)
    store.is_well = True
    until(lambda: not breaker.is_open)
    assert guarded.get_many([b"a"]) == [None]
    guarded.close(PATIENT_S)
