"""A cluster of three real nodes, and what becomes of a store when keys move and nodes end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.crc import key_slot
from support.redis_server import RedisServer

from modelstream.models.errors import CacheUnavailable, ConfigError
from modelstream.operators.redis_cluster import ClusterStore
from modelstream.operators.redis_store import RedisStore, open_store
from modelstream.streams.embedded import free_port

pytestmark = pytest.mark.redis

#: A busy machine must not make Redis look like it were away.
PATIENT_S = 30.0
N_SLOTS = 16_384


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cli(server: RedisServer, *command: object) -> object:
    with Redis.from_url(server.url) as client:
        return client.execute_command(*command)


@contextlib.contextmanager
def started_cluster(n_nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Start nodes, each with a part of the slots, that know each other."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(n_nodes):
            options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"]
            # One that is away must not make the others refuse their own keys.
            options += ["--cluster-require-full-coverage", "no"]
            nodes.append(stack.enter_context(RedisServer(options)))
        for i, node in enumerate(nodes):
            first, last = i * N_SLOTS // n_nodes, (i + 1) * N_SLOTS // n_nodes - 1
            cli(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
            bus = next(nodes[0]._options[j + 1] for j, name in enumerate(nodes[0]._options) if name == "--cluster-port")
            cli(node, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port, int(bus))
        until(lambda: all(_is_whole(node, n_nodes) for node in nodes))
        yield nodes


def _is_whole(node: RedisServer, n_nodes: int) -> bool:
    with Redis.from_url(node.url) as client:
        slots = client.execute_command("CLUSTER SLOTS")
        state = client.execute_command("CLUSTER INFO")["cluster_state"]
    return state == "ok" and len({part for part in map(str, slots)}) == n_nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    with started_cluster() as nodes:
        yield nodes


def url_of(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.fixture
def store(nodes: list[RedisServer]) -> Iterator[ClusterStore]:
    for node in nodes:
        cli(node, "FLUSHALL")
    store = ClusterStore(url_of(nodes[:1]), PATIENT_S)
    yield store
    store.close()


def calls(node: RedisServer) -> dict[str, int]:
    with Redis.from_url(node.url) as client:
        return {name: command["calls"] for name, command in client.info("commandstats").items()}


def test_values_come_back_in_the_order_of_their_keys(store: ClusterStore, nodes: list[RedisServer]) -> None:
    # Braces mean something to a cluster, and any bytes may be in a key.
    pairs = [(b"ms:" + os.urandom(13) + b"{%d}" % (i % 7), os.urandom(i % 300)) for i in range(1000)]
    store.set_many(pairs, 60)
    keys = [b"none", *(key for key, _ in pairs), b"none either"]
    assert store.get_many(keys) == [None, *(value for _, value in pairs), None]
    assert store.get_many([]) == []
    store.set_many([], 60)
    for node in nodes:
        with Redis.from_url(node.url) as client:
            assert client.dbsize() == sum(_owner(key, len(nodes)) == nodes.index(node) for key, _ in pairs)
            assert all(50 <= client.ttl(key) <= 66 for key in client.keys()[:20])
    store.ping()


def _owner(key: bytes, n_nodes: int) -> int:
    return next(i for i in range(n_nodes) if key_slot(key) < (i + 1) * N_SLOTS // n_nodes)


def test_there_is_one_connection_to_each_node_and_the_map_is_asked_for_once(
    store: ClusterStore, nodes: list[RedisServer]
) -> None:
    for node in nodes:
        cli(node, "CONFIG", "RESETSTAT")
    keys = [os.urandom(16) for _ in range(300)]
    for _ in range(5):
        store.get_many(keys)
    found = [calls(node) for node in nodes]
    assert sum(each["cmdstat_get"] for each in found) == 1500
    assert all(each["cmdstat_get"] % 5 == 0 for each in found)
    assert sum(each.get("cmdstat_cluster|slots", 0) for each in found) == 1
    assert len(store._pools) == 3


def test_keys_that_have_moved_count_as_missing_until_it_is_known_where_they_are() -> None:
    with started_cluster(2) as nodes:
        clock = [0.0]
        store = ClusterStore(url_of(nodes), PATIENT_S, clock=lambda: clock[0])
        keys = [os.urandom(16) for _ in range(200)]
        store.set_many([(key, b"1") for key in keys], 60)
        names = [cli(node, "CLUSTER", "MYID") for node in nodes]
        moved = {slot for slot in map(key_slot, keys) if slot < N_SLOTS // 2}
        # Else the first node, which claims its slots until it is told, may take them back meanwhile.
        cli(nodes[1], "CLUSTER", "BUMPEPOCH")
        for node in reversed(nodes):
            cli(node, "FLUSHALL")
            for slot in moved:
                cli(node, "CLUSTER", "SETSLOT", slot, "NODE", names[1])
        assert store.get_many(keys) == [None] * 200
        # Some were sent to a node that no longer has them. A second later it is asked who does.
        store.set_many([(key, b"2") for key in keys], 60)
        clock[0] += 1
        assert store.get_many(keys).count(b"2") == sum(key_slot(key) not in moved for key in keys)
        store.set_many([(key, b"3") for key in keys], 60)
        assert store.get_many(keys) == [b"3"] * 200
        store.close()


def test_a_node_that_ends_and_comes_back() -> None:
    with started_cluster(2) as nodes:
        store = ClusterStore(url_of(nodes), PATIENT_S)
        keys = [os.urandom(16) for _ in range(50)]
        store.set_many([(key, b"1") for key in keys], 60)
        nodes[0].kill()
        for _ in range(3):
            with pytest.raises(CacheUnavailable):
                store.get_many(keys)
        nodes[0].restart()

        def answers() -> bool:
            with contextlib.suppress(CacheUnavailable):
                return store.get_many(keys).count(b"1") == sum(_owner(key, 2) == 1 for key in keys)
            return False

        until(answers)
        store.close()


def test_a_seed_that_is_away_is_passed_over(nodes: list[RedisServer]) -> None:
    store = ClusterStore(f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes[2].port}", PATIENT_S)
    assert store.get_many([b"a"]) == [None]
    store.close()


def test_nobody_there() -> None:
    store = ClusterStore("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    for call in (store.ping, lambda: store.get_many([b"a"]), lambda: store.set_many([(b"a", b"b")], 60)):
        with pytest.raises(CacheUnavailable, match="refused"):
            call()


def test_a_server_that_is_no_cluster(redis_url: str) -> None:
    store = ClusterStore(redis_url.replace("redis://", "redis+cluster://"), PATIENT_S)
    with pytest.raises(CacheUnavailable, match="cluster support disabled"):
        store.get_many([b"a"])
    store.close()


def test_slots_that_nobody_has() -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with RedisServer(options) as node:
        store = ClusterStore(url_of([node]), PATIENT_S)
        with pytest.raises(CacheUnavailable, match="no node of the cluster has some of the keys"):
            store.get_many([b"a"])
        store.close()


def test_the_url_says_which_kind_of_store_it_is(redis_url: str) -> None:
    assert isinstance(open_store("redis+cluster://a,b:7000"), ClusterStore)
    assert isinstance(open_store(redis_url), RedisStore)
    with pytest.raises(ConfigError) as raised:
        open_store("redis+cluster://:s3cret@a/0?nonsense=1")
    assert "s3cret" not in str(raised.value)
