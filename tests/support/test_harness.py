"""The harness itself: a broken one would make every other test lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis
from support import kafka_server
from support.kafka_server import KafkaUnavailable
from support.kafka_tools import (
    Outgoing,
    committed_offsets,
    create_topic,
    end_offsets,
    partitions_of,
    produce_all,
    read_all,
)
from support.redis_server import RedisServer


@pytest.fixture(params=["kafka", "embedded_broker"])
def broker(request):
    return request.getfixturevalue(request.param)


def test_round_trip(broker, make_topics):
    (topic,) = make_topics(broker, "round-trip", partitions=3)
    sent = [
        Outgoing(b"value-%d" % i, b"key-%d" % (i % 7), i % 3, 1_357_000_000_000 + i, [("i", b"%d" % i)])
        for i in range(1000)
    ]

    assert produce_all(broker.bootstrap, topic, sent) == 1000
    received = read_all(broker.bootstrap, topic)

    assert end_offsets(broker.bootstrap, topic) == {0: 334, 1: 333, 2: 333}
    by_partition = defaultdict(list)
    for record in received:
        assert record.offset == len(by_partition[record.partition])
        by_partition[record.partition].append(
            Outgoing(record.value, record.key, record.partition, record.timestamp_ms, list(record.headers))
        )
    assert dict(by_partition) == {p: [r for r in sent if r.partition == p] for p in range(3)}


def test_reading_an_empty_topic_ends_at_once(broker, make_topics):
    (topic,) = make_topics(broker, "empty", partitions=2)
    assert read_all(broker.bootstrap, topic) == []
    assert committed_offsets(broker.bootstrap, "no-such-group", topic) == {}


def test_topics_get_unique_names_and_the_partitions_asked_for(broker, make_topics):
    first, second = make_topics(broker, "a", "a", partitions=2)
    assert first != second
    assert partitions_of(broker.bootstrap, first) == partitions_of(broker.bootstrap, second) == [0, 1]


@pytest.mark.kafka
def test_aborted_records_are_not_read_and_do_not_hold_up_the_end(kafka, make_topics):
    (topic,) = make_topics(kafka, "transactions")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    for value, finish in ((b"kept", producer.commit_transaction), (b"aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(30)
        finish(30)

    assert [r.value for r in read_all(kafka.bootstrap, topic, isolation="read_committed")] == [b"kept"]
    assert [r.value for r in read_all(kafka.bootstrap, topic)] == [b"kept", b"aborted"]
    assert end_offsets(kafka.bootstrap, topic) == {0: 4}  # two records, two markers


@pytest.mark.kafka
def test_kafka_keeps_address_and_data_over_a_crash_and_a_restart(start_kafka):
    kafka = start_kafka()
    create_topic(kafka.bootstrap, "kept", 1)
    produce_all(kafka.bootstrap, "kept", [b"1"])
    pids = [kafka.pid]

    kafka.kill()
    assert not kafka.running
    for value in (b"2", b"3"):
        kafka.restart()
        assert committed_offsets(kafka.bootstrap, "no-such-group", "kept") == {}  # asked while groups are loaded
        pids.append(kafka.pid)
        produce_all(kafka.bootstrap, "kept", [value])

    assert len(set(pids)) == 3
    assert [r.value for r in read_all(kafka.bootstrap, "kept")] == [b"1", b"2", b"3"]
    kafka.stop()
    assert not kafka.folder.exists()


@pytest.mark.kafka
def test_a_kafka_that_does_not_start_says_what_it_wrote(start_kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"num\.io\.threads"):
        start_kafka(settings={"num.io.threads": "0"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ci", "outcome"), [("", "skipped"), ("true", "errors")])
def test_without_java_tests_on_kafka_are_skipped_but_not_under_ci(ci, outcome, tmp_path):
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "CI": ci}
    name = f"{__file__}::test_round_trip[kafka]"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", name]
    run = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100)
    assert "there is no `java` on the PATH" in run.stdout
    assert {"skipped": "1 skipped", "errors": "1 error"}[outcome] in run.stdout


def test_missing_maven_is_said(monkeypatch, tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(KafkaUnavailable, match="no `java`"):
        kafka_server.resolve_jars()
    _program(bin_folder / "java")
    with pytest.raises(KafkaUnavailable, match="no `mvn`"):
        kafka_server.resolve_jars()


def test_a_failed_resolution_leaves_no_half_filled_cache(monkeypatch, tmp_path):
    for program in ("java", "mvn"):
        _program(tmp_path / program, "echo no network; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(KafkaUnavailable, match="no network"):
        kafka_server.resolve_jars()
    assert list((tmp_path / "cache" / "modelstream").iterdir()) == []


def _program(path: Path, line: str = "exit 0") -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.mark.redis
def test_redis_comes_back_on_its_address(redis_url):
    with Redis.from_url(redis_url) as client:
        assert client.set("a", "1")
    with RedisServer() as own, Redis.from_url(own.url) as client:
        assert client.ping()
        own.kill()
        own.restart()
        assert client.ping()
        os.kill(own.pid, signal.SIGSTOP)  # the pid is the server's own
        os.kill(own.pid, signal.SIGCONT)
        assert client.ping()
