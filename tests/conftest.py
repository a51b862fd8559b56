"""Real servers for every test that asks for them: one of each kind for the whole session."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol
from uuid import uuid4

import pytest
from redis import Redis
from support.browser import Browser, BrowserUnavailable, start_browser
from support.kafka_server import ApacheKafka, KafkaUnavailable, resolve_jars
from support.kafka_tools import create_topic, delete_topics
from support.redis_server import RedisServer
from support.secured_kafka import PASSWORDS, SecuredKafka

from modelstream.streams.embedded import EmbeddedBroker

#: The session's Apache Kafka, once started.
_KAFKA = pytest.StashKey[ApacheKafka]()


class Broker(Protocol):
    """Anything with an address for Kafka clients."""

    @property
    def bootstrap(self) -> str:
        """``HOST:PORT``."""
        ...


def pytest_configure() -> None:
    """Have Ctrl-C reach the processes that tests start: a shell's background jobs are told to ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka's jars before the first test: a slow network must not count against a test's timeout."""
    wanted = any(
        {"kafka", "start_kafka", "secured_kafka"} & set(getattr(item, "fixturenames", ())) for item in session.items
    )
    if wanted and not session.config.option.collectonly and "MODELSTREAM_TEST_KAFKA" not in os.environ:
        with contextlib.suppress(KafkaUnavailable):  # the fixture says it
            resolve_jars()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Under pytest-xdist, start the one Kafka in the controlling process, which outlives every worker."""
    if _KAFKA not in node.config.stash and "MODELSTREAM_TEST_KAFKA" not in os.environ:
        with contextlib.suppress(KafkaUnavailable):
            node.config.stash[_KAFKA] = ApacheKafka().start()
    if _KAFKA in node.config.stash:
        node.workerinput["kafka"] = node.config.stash[_KAFKA].bootstrap


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the session's Kafka."""
    if _KAFKA in config.stash:
        config.stash[_KAFKA].stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what Kafka wrote below a failed test that used it."""
    report: Any = yield
    if report.failed and "kafka" in getattr(item, "fixturenames", ()) and _KAFKA in item.config.stash:
        report.sections.append(("Apache Kafka log", item.config.stash[_KAFKA].log_tail()))
    return report


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Broker:
    """Apache Kafka: the one that MODELSTREAM_TEST_KAFKA names, else a node started for this session."""
    known = os.environ.get("MODELSTREAM_TEST_KAFKA") or getattr(request.config, "workerinput", {}).get("kafka")
    if known:
        return SimpleNamespace(bootstrap=known)
    with _skipped_without_kafka():
        request.config.stash[_KAFKA] = ApacheKafka().start()
    return request.config.stash[_KAFKA]


@pytest.fixture(scope="module")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """An Apache Kafka with TLS, logins and access control lists; its plain address lets the tests' tools do all."""
    with _skipped_without_kafka():
        kafka = SecuredKafka(tmp_path_factory.mktemp("certificates"), PASSWORDS)
    with kafka:
        kafka.make_scram_users()
        yield kafka


@pytest.fixture
def start_kafka() -> Iterator[Callable[..., ApacheKafka]]:
    """Start an Apache Kafka of the test's own, to kill, pause or configure: ``start_kafka(settings={...})``."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> ApacheKafka:
            with _skipped_without_kafka():
                return stack.enter_context(ApacheKafka(**options))

        yield start


@contextlib.contextmanager
def _skipped_without_kafka() -> Iterator[None]:
    try:
        yield
    except KafkaUnavailable as error:
        _skip(f"{error}; or name a running broker in MODELSTREAM_TEST_KAFKA")


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"under CI=true a test may not be skipped: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run a headless Chromium, to open pages that the engine writes."""
    with contextlib.ExitStack() as stack:
        try:
            chromium = stack.enter_context(start_browser())
        except BrowserUnavailable as error:
            _skip(str(error))
        yield chromium


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """The embedded broker, for quick tests that claim nothing about delivery."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the session. Tests that kill or pause a server start their own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Address of an empty Redis."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def make_topics() -> Iterator[Callable[..., list[str]]]:
    """Create topics of unique names: ``make_topics(broker, "events", "dead", partitions=3)``; deleted afterwards."""
    made: dict[str, list[str]] = {}

    def make(broker: Broker, *names: str, partitions: int = 1, **config: str) -> list[str]:
        topics = [f"{name}-{unique_suffix()}" for name in names]
        for topic in topics:
            made.setdefault(broker.bootstrap, []).append(topic)
            settings = {key.replace("_", "."): value for key, value in config.items()}
            create_topic(broker.bootstrap, topic, partitions, settings)
        return topics

    yield make
    for bootstrap, topics in made.items():
        delete_topics(bootstrap, topics)


_serial = count()


def unique_suffix() -> str:
    """Return a short name that no other test, worker or run on the same broker uses."""
    return f"{next(_serial)}-{uuid4().hex[:8]}"
