from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from support.redis_server import RedisServer

from modelstream.models.errors import CacheUnavailable, ConfigError
from modelstream.operators.redis_store import RedisStore

pytestmark = pytest.mark.redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to hurt."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url)
    yield store
    store.close()


def test_values_come_back_in_the_order_of_their_keys(store: RedisStore) -> None:
    # More bytes than are sent at once.
    pairs = [(b"k%d" % i, os.urandom(i % 1000)) for i in range(2000)]
    store.set_many(pairs, 60)
    assert store.get_many([b"none", *(key for key, _ in pairs)]) == [None, *(value for _, value in pairs)]
    store.set_many([], 60)
    assert store.get_many([]) == []


def test_many_keys_are_one_command_and_values_one_pipeline(redis_url: str, store: RedisStore) -> None:
    def calls() -> dict[str, int]:
        return {name: command["calls"] for name, command in client.info("commandstats").items()}

    with Redis.from_url(redis_url) as client:
        client.config_resetstat()
        store.set_many([(b"k%d" % i, b"v") for i in range(100)], 60)
        store.get_many([b"k%d" % i for i in range(100)])
        found = calls()
    assert (found["cmdstat_set"], found["cmdstat_mget"]) == (100, 1)
    assert not {"cmdstat_get", "cmdstat_multi", "cmdstat_exec"} & set(found)


@pytest.mark.parametrize(("ttl_s", "shortest", "longest"), [(300, 270, 330), (1, 1, 1)])
def test_values_last_for_about_as_long_as_asked(redis_url: str, ttl_s: int, shortest: int, longest: int) -> None:
    store = RedisStore(redis_url, rng=random.Random(1))
    store.set_many([(b"%d" % i, b"") for i in range(200)], ttl_s)
    with Redis.from_url(redis_url) as client:
        # A second may have gone by.
        ttls = {client.ttl(b"%d" % i) for i in range(200)} - {-2}
    store.close()
    assert all(shortest - 2 <= ttl <= longest for ttl in ttls)
    assert ttl_s == 1 or len(ttls) > 30


def test_nobody_there(store: RedisStore) -> None:
    nobody = RedisStore("redis://127.0.0.1:1/0")
    for call in (nobody.ping, lambda: nobody.get_many([b"a"]), lambda: nobody.set_many([(b"a", b"b")], 60)):
        with pytest.raises(CacheUnavailable, match="refused"):
            call()
    store.ping()


def test_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(CacheUnavailable, match=r"(?i)timeout"):
            store.get_many([b"a"])
        store.close()


def test_a_paused_server_is_used_again_and_old_answers_are_not_taken_for_new(server: RedisServer) -> None:
    store = RedisStore(server.url)
    store.set_many([(b"a", b"1"), (b"b", b"2")], 60)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for call in (lambda: store.get_many([b"a"]), lambda: store.set_many([(b"c", b"3")], 60)):
            with pytest.raises(CacheUnavailable):
                call()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    # The answer to what was asked before, of one value, comes first, on the connection that was given up.
    assert until_it_answers(lambda: store.get_many([b"b", b"a"])) == [b"2", b"1"]
    store.close()


def until_it_answers(call: Callable[[], list[bytes | None]]) -> list[bytes | None]:
    """Return what a call returns that may fail for some time."""
    for _ in range(200):
        with contextlib.suppress(CacheUnavailable):
            return call()
    raise AssertionError("Redis does not answer")


def test_a_server_that_was_restarted_is_used_again(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout_s=10)
    store.set_many([(b"a", b"1")], 60)
    server.kill()
    with pytest.raises(CacheUnavailable):
        store.get_many([b"a"])
    server.restart()
    assert store.get_many([b"a"]) == [None]
    store.close()


@pytest.mark.parametrize(
    ("setting", "problem"), [("maxmemory", "'maxmemory'"), ("min-replicas-to-write", "good replicas")]
)
def test_a_server_that_takes_nothing_still_answers(server: RedisServer, setting: str, problem: str) -> None:
    store = RedisStore(server.url, timeout_s=10)
    store.set_many([(b"a", b"1")], 60)
    with Redis.from_url(server.url) as client:
        client.config_set(setting, 1)
        with pytest.raises(CacheUnavailable, match=problem):
            store.set_many([(b"b", b"2"), (b"c", b"3"), (b"d", b"4")], 60)
        assert store.get_many([b"a", b"b"]) == [b"1", None]
    store.close()


def test_a_replica_is_read_only(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout_s=10)
    with Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
    with pytest.raises(CacheUnavailable, match="read only replica"):
        store.set_many([(b"a", b"1")], 60)
    store.close()


def test_a_key_of_another_type_holds_no_value(redis_url: str, store: RedisStore) -> None:
    with Redis.from_url(redis_url) as client:
        client.rpush("list", "a")
    assert store.get_many([b"list"]) == [None]
    store.set_many([(b"list", b"1")], 60)
    assert store.get_many([b"list"]) == [b"1"]


def test_what_the_url_says_does_not_change_answers(redis_url: str) -> None:
    store = RedisStore(f"{redis_url}?decode_responses=true&socket_timeout=60&retry_on_timeout=true", timeout_s=10)
    store.set_many([(b"a", b"\xff")], 60)
    assert store.get_many([b"a"]) == [b"\xff"]
    store.close()


@pytest.mark.parametrize("url", ["redis://:s3cret@h:6379/0?nonsense=1", "redis://:s3cret@h:6379/0?socket_timeout=x"])
def test_an_url_with_options_that_do_not_exist(url: str) -> None:
    with pytest.raises(ConfigError, match="redis: the URL has an option") as raised:
        RedisStore(url)
    assert "s3cret" not in str(raised.value)
