"""Workers and commands on an Apache Kafka that lets nobody in without a login; and what they say where they fail."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import AclOperation
from support.secured_kafka import OPERATOR, PASSWORDS, SecuredKafka
from support.streams import KnownStream
from support.token_endpoint import TokenEndpoint

from modelstream.streams.worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

PREFIX = "MODELSTREAM_KAFKA_"
KEY_PASSWORD = "key-pa55"
CLIENT_SECRET = "client-s3cret"
READ, WRITE = [AclOperation.READ], [AclOperation.WRITE]


class Access(NamedTuple):
    """A way in: a listener, the environment for it, and who that is to the broker."""

    listener: str
    environ: dict[str, str]
    principal: str


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint("reader", CLIENT_SECRET) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def ways(
    secured_kafka: SecuredKafka, endpoint: TokenEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Access]:
    """Return a way in for each mechanism, each with a listener that takes it."""
    folder = tmp_path_factory.mktemp("client")
    client = secured_kafka.authority.issue("client", password=KEY_PASSWORD)
    trust = {"SSL_CA_LOCATION": str(secured_kafka.authority.certificate)}
    for name, secret in [*PASSWORDS.items(), ("key", KEY_PASSWORD), ("client", CLIENT_SECRET)]:
        (folder / name).write_text(f"{secret}\n")

    def login(mechanism: str, protocol: str, user: str = "worker") -> dict[str, str]:
        return {
            "SECURITY_PROTOCOL": protocol,
            "SASL_MECHANISM": mechanism,
            "SASL_USERNAME": user,
            "SASL_PASSWORD_FILE": str(folder / user),
        }

    certificate = {
        **trust,
        "SECURITY_PROTOCOL": "SSL",
        "SSL_CERTIFICATE_LOCATION": str(client.certificate),
        "SSL_KEY_LOCATION": str(client.key),
        "SSL_KEY_PASSWORD_FILE": str(folder / "key"),
    }
    tokens = {
        **trust,
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "OAUTHBEARER",
        "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint.url,
        "SASL_OAUTHBEARER_CLIENT_ID": "reader",
        "SASL_OAUTHBEARER_CLIENT_SECRET_FILE": str(folder / "client"),
        "SASL_OAUTHBEARER_SCOPE": "kafka",
    }
    worker = "User:worker"
    found = {
        "mTLS": Access("MUTUAL", certificate, "User:CN=client,O=modelstream tests"),
        "PLAIN": Access("OPEN", login("PLAIN", "SASL_PLAINTEXT"), worker),
        "SCRAM-SHA-256": Access("OPEN", login("SCRAM-SHA-256", "SASL_PLAINTEXT"), worker),
        "SCRAM-SHA-512": Access("ENCRYPTED", trust | login("SCRAM-SHA-512", "SASL_SSL"), worker),
        "OAUTHBEARER": Access("ENCRYPTED", tokens, "User:reader"),
        "operator": Access("ENCRYPTED", trust | login("SCRAM-SHA-256", "SASL_SSL", OPERATOR), f"User:{OPERATOR}"),
    }
    return {
        name: way._replace(environ={PREFIX + variable: value for variable, value in way.environ.items()})
        for name, way in found.items()
    }


@pytest.fixture
def stream(secured_kafka: SecuredKafka, make_topics: Callable[..., list[str]], tmp_path: Path) -> KnownStream:
    source, sink, dead = make_topics(secured_kafka, "events", "predictions", "dead", partitions=2)
    return KnownStream(secured_kafka.bootstrap, tmp_path, source, sink, dead, source.replace("events", "group"))


def allow_worker(kafka: SecuredKafka, principal: str, stream: KnownStream, *but: str) -> None:
    """Give the rights that `docs/security.md` says a worker needs, but some."""
    rights = [
        ("topic", stream.source, READ),
        ("topic", stream.sink, WRITE),
        ("topic", stream.dead, WRITE),
        ("group", stream.group, READ),
    ]
    for kind, name, operations in rights:
        if name not in but:
            kafka.allow(principal, kind, name, operations)


def assert_no_secret(text: str, endpoint: TokenEndpoint) -> None:
    for secret in [*PASSWORDS.values(), KEY_PASSWORD, CLIENT_SECRET, *endpoint.tokens]:
        assert secret not in text


@pytest.mark.parametrize("mechanism", ["mTLS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_a_worker_reads_and_writes(
    mechanism: str,
    ways: dict[str, Access],
    secured_kafka: SecuredKafka,
    stream: KnownStream,
    endpoint: TokenEndpoint,
) -> None:
    way = ways[mechanism]
    allow_worker(secured_kafka, way.principal, stream)
    stream.send(range(500))
    with stream.worker("--log-level=debug", broker=secured_kafka.address(way.listener), **way.environ) as worker:
        stream.wait_until_committed(worker)
        pages = "".join(map(str, (worker.stats(), *web_pages(worker))))
        worker.stop()
        log = worker.log_tail(1_000_000)
    assert stream.outcome(range(500)).is_clean
    # The log is really that of level debug, with aiokafka's requests in it.
    assert "JoinGroupRequest" in log
    assert_no_secret(log + pages, endpoint)
    assert mechanism != "OAUTHBEARER" or endpoint.forms[-1] == {
        "grant_type": ["client_credentials"],
        "scope": ["kafka"],
    }


def web_pages(worker: WorkerProcess) -> Iterator[str]:
    for page in ("stats", "ready", "", "router", "table"):
        try:
            with urllib.request.urlopen(f"http://localhost:{worker._port}/{page}", timeout=5) as answer:
                yield answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                yield error.read().decode()
