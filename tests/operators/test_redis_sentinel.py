"""A master, a replica and a sentinel: when the master ends, the store goes on with the replica."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from support.redis_server import RedisServer

from modelstream.models.errors import CacheUnavailable
from modelstream.operators.redis_store import RedisStore
from modelstream.streams.embedded import cache_answers, free_port
from modelstream.streams.supervised import SupervisedProcess

pytestmark = pytest.mark.redis

PATIENT_S = 30.0


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def started_sentinel(master: RedisServer, folder: Path) -> Iterator[int]:
    """Start a sentinel that watches a master, alone decides, and soon; its port."""
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor predictions 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds predictions 300\nsentinel failover-timeout predictions 2000\n"
    )
    command = [str(master._binary), str(config), "--sentinel"]
    process = SupervisedProcess(command, folder=folder, log=folder / "sentinel.log")
    try:
        until(lambda: cache_answers(port))
        yield port
    finally:
        process.stop()


def test_the_replica_takes_over(tmp_path: Path) -> None:
    folder = tmp_path / "sentinel"
    folder.mkdir()
    with RedisServer() as master, RedisServer() as replica, started_sentinel(master, folder) as port:
        with Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(master.port))
            until(lambda: client.info("replication").get("master_link_status") == "up")
        with Redis(port=port) as sentinel:
            until(lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "predictions"))
        store = RedisStore(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/predictions/0", timeout_s=5)
        store.set_many([(b"a", b"1")], 60)
        with Redis.from_url(master.url) as client:
            assert client.get("a") == b"1"
            client.execute_command("WAIT", 1, 10_000)
        master.kill()

        def answers() -> bool:
            with contextlib.suppress(CacheUnavailable):
                store.set_many([(b"b", b"2")], 60)
                return store.get_many([b"a", b"b"]) == [b"1", b"2"]
            return False

        until(answers)
        with Redis.from_url(replica.url) as client:
            assert client.get("b") == b"2"
        store.close()


def test_a_master_that_no_sentinel_knows(tmp_path: Path) -> None:
    folder = tmp_path / "sentinel"
    folder.mkdir()
    with RedisServer() as master, started_sentinel(master, folder) as port:
        store = RedisStore(f"redis+sentinel://:s3cret@127.0.0.1:{port}/other/0", timeout_s=5)
        with pytest.raises(CacheUnavailable, match="No master found for 'other'") as raised:
            store.get_many([b"a"])
        assert "s3cret" not in str(raised.value)
        store.close()
