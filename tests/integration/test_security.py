"""Workers and commands on an Apache Kafka that lets nobody in without a login; and what they say where they fail."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import AclOperation
from redis import Redis
from support.certificates import Authority
from support.kafka_tools import create_topic, delete_topics
from support.redis_server import RedisServer
from support.runs import Run, assert_told
from support.secured_kafka import OPERATOR, PASSWORDS, SecuredKafka
from support.streams import KnownStream, Outcome, wait_for
from support.token_endpoint import TokenEndpoint

from modelstream.models.errors import BrokerRefused, ConfigError
from modelstream.streams.app import app_from_environment
from modelstream.streams.worker_process import WorkerFailed, WorkerProcess

# The five workers of one fixture come up slowly where the machine is busy.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PREFIX = "MODELSTREAM_KAFKA_"
KEY_PASSWORD = "key-pa55"
CLIENT_SECRET = "client-s3cret"
REDIS_PASSWORD = "redis-pa55"
READ, WRITE = [AclOperation.READ], [AclOperation.WRITE]


class Access(NamedTuple):
    """A way in: a listener, the environment for it, and who that is to the broker."""

    listener: str
    environ: dict[str, str]
    principal: str


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint("reader", CLIENT_SECRET, life_s=4) as endpoint:
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
    # aiokafka's log cuts requests after 100 bytes.
    secrets = [*PASSWORDS.values(), KEY_PASSWORD, CLIENT_SECRET, REDIS_PASSWORD, "wr0ng"]
    for secret in [*secrets, *(token[:40] for token in endpoint.tokens)]:
        assert secret not in text


MECHANISMS = ("mTLS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class WorkerRun(NamedTuple):
    """What a worker did, and all that it said."""

    outcome: Outcome
    log: str
    pages: str


@pytest.fixture(scope="module")
def worker_runs(
    ways: dict[str, Access],
    secured_kafka: SecuredKafka,
    endpoint: TokenEndpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, WorkerRun]:
    """Run one worker for each mechanism, all at once: most of a short run is waiting."""
    streams = {}
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        with Redis.from_url(redis.url) as client:
            client.config_set("requirepass", REDIS_PASSWORD)
        workers = {}
        for mechanism in MECHANISMS:
            way = ways[mechanism]
            names = [f"{mechanism.lower()}-{role}" for role in ("events", "predictions", "dead", "group")]
            for topic in names[:3]:
                create_topic(secured_kafka.bootstrap, topic, 2)
            stream = KnownStream(secured_kafka.bootstrap, tmp_path_factory.mktemp(mechanism), *names)
            allow_worker(secured_kafka, way.principal, stream)
            stream.send(range(500))
            # Two of them keep answers in a Redis, one of these with a wrong password.
            password = {"mTLS": REDIS_PASSWORD, "PLAIN": "wr0ng"}.get(mechanism)
            options, cache = ["--log-level=debug"], {}
            if password is not None:
                options.append("--set=stages[1].infer.cache.ttl_s=300")
                cache = {"MODELSTREAM_REDIS": redis.url.replace("//", f"//:{password}@")}
            address = secured_kafka.address(way.listener)
            worker = stream.worker(*options, broker=address, **way.environ, **cache)
            streams[mechanism], workers[mechanism] = stream, stack.enter_context(worker)
        for worker in workers.values():
            wait_for_predictions(worker, 500)
        # Kafka closes a connection whose token has expired, unless it is given another one meanwhile.
        wait_for(lambda: len(endpoint.tokens) > 2, "another token", workers["OAUTHBEARER"])
        streams["OAUTHBEARER"].send(range(500, 600))
        wait_for_predictions(workers["OAUTHBEARER"], 600)
        pages = {mechanism: "".join(web_pages(worker)) for mechanism, worker in workers.items()}
        outcomes = {m: each.outcome(range(600 if m == "OAUTHBEARER" else 500)) for m, each in streams.items()}
        # One worker loses its right to be in the group.
        closed = workers.pop("SCRAM-SHA-512")
        secured_kafka.forbid("User:worker", "group", streams["SCRAM-SHA-512"].group)
        streams["SCRAM-SHA-512"].send(range(500, 600))
        with ThreadPoolExecutor() as pool:
            list(pool.map(WorkerProcess.stop, workers.values()))
        with pytest.raises(WorkerFailed, match="ended with code 1"):
            wait_for(lambda: False, "the end", closed)
        assert not any(each.lag() for m, each in streams.items() if m in workers)
        logs = {m: worker.log_tail(1_000_000) for m, worker in {**workers, "SCRAM-SHA-512": closed}.items()}
        return {m: WorkerRun(outcomes[m], logs[m], pages[m]) for m in MECHANISMS}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_worker_reads_and_writes(mechanism: str, worker_runs: dict[str, WorkerRun], endpoint: TokenEndpoint) -> None:
    run = worker_runs[mechanism]
    assert run.outcome.is_clean
    # The log is really that of level debug, with aiokafka's requests in it.
    assert "JoinGroupRequest" in run.log
    assert f'"predictions":{run.outcome.predictions.total()}' in run.pages.replace(" ", "")
    assert_no_secret(run.log + run.pages, endpoint)


def test_redis_lets_in_who_has_its_password(worker_runs: dict[str, WorkerRun]) -> None:
    refused = "what memory does not know is computed until it does"
    assert refused not in worker_runs["mTLS"].log
    assert refused in worker_runs["PLAIN"].log


def test_tokens_are_replaced_before_they_expire(worker_runs: dict[str, WorkerRun], endpoint: TokenEndpoint) -> None:
    assert worker_runs["OAUTHBEARER"].outcome.is_clean
    assert {"grant_type": ["client_credentials"], "scope": ["kafka"]} in endpoint.forms
    assert len(endpoint.tokens) > 2


def test_a_group_that_is_closed_ends_the_worker(worker_runs: dict[str, WorkerRun]) -> None:
    log = worker_runs["SCRAM-SHA-512"].log
    assert log.count("modelstream: error: ") == 1
    error = log.partition("modelstream: error: ")[2]
    assert "never awaited" not in log
    for part in ("scram-sha-512-group", "may not READ group", "(as User:worker)"):
        assert part in error


def wait_for_predictions(worker: WorkerProcess, number: int) -> None:
    wait_for(lambda: worker.stats().get("predictions") == number, f"{number} predictions", worker)


def web_pages(worker: WorkerProcess) -> Iterator[str]:
    for page in ("stats", "ready", "", "router", "table"):
        try:
            with urllib.request.urlopen(f"http://localhost:{worker._port}/{page}", timeout=5) as answer:
                yield answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                yield error.read().decode()


class Refusal(NamedTuple):
    """A way in that is changed so that it is none, and what the message must name."""

    way: str
    change: dict[str, str]
    named: tuple[str, ...]
    listener: str | None = None


REFUSALS = {
    "wrong password, SCRAM": Refusal(
        "SCRAM-SHA-512",
        {"SASL_PASSWORD": "wr0ng", "SASL_PASSWORD_FILE": ""},
        ("does not let User:worker in", "invalid credentials", f"{PREFIX}SASL_PASSWORD"),
    ),
    "wrong password, PLAIN": Refusal(
        "PLAIN",
        {"SASL_PASSWORD": "wr0ng", "SASL_PASSWORD_FILE": ""},
        ("does not let User:worker in", "Invalid username or password"),
    ),
    "untrusted authority": Refusal(
        "SCRAM-SHA-512", {"SSL_CA_LOCATION": "STRANGER"}, ("not trusted", "local issuer certificate", "SSL_CA_LOCATION")
    ),
    "another host name": Refusal(
        "SCRAM-SHA-512",
        {},
        ("not trusted", "127.0.0.1", f"{PREFIX}SSL_ENDPOINT_IDENTIFICATION_ALGORITHM=none"),
        "ENCRYPTED by number",
    ),
    "no certificate of the client": Refusal(
        "mTLS",
        {"SSL_CERTIFICATE_LOCATION": "", "SSL_KEY_LOCATION": "", "SSL_KEY_PASSWORD_FILE": ""},
        ("does not accept this client's certificate", f"{PREFIX}SSL_CERTIFICATE_LOCATION, and none is named"),
    ),
    "no TLS on a listener with it": Refusal(
        "none", {}, ("closes the connection", f"{PREFIX}SECURITY_PROTOCOL is PLAINTEXT"), "ENCRYPTED"
    ),
    "no login on a listener with it": Refusal(
        "none", {}, ("closes the connection", f"{PREFIX}SECURITY_PROTOCOL is PLAINTEXT"), "OPEN"
    ),
    "TLS on a listener without": Refusal(
        "SCRAM-SHA-512", {}, ("closes the connection", f"{PREFIX}SECURITY_PROTOCOL is SASL_SSL"), "OPEN"
    ),
    "wrong client secret": Refusal(
        "OAUTHBEARER",
        {"SASL_OAUTHBEARER_CLIENT_SECRET": "wr0ng", "SASL_OAUTHBEARER_CLIENT_SECRET_FILE": ""},
        ("SASL_OAUTHBEARER_CLIENT_ID", "'reader' no token", "401 invalid_client"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_who_is_not_let_in_is_told_why(
    case: Refusal,
    ways: dict[str, Access],
    secured_kafka: SecuredKafka,
    stream: KnownStream,
    endpoint: TokenEndpoint,
    run_here: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    way = ways.get(case.way, Access("ENCRYPTED", {}, ""))
    stranger = str(Authority(tmp_path, "stranger").certificate)
    change = {PREFIX + name: value.replace("STRANGER", stranger) for name, value in case.change.items()}
    for name, value in (way.environ | change).items():
        monkeypatch.setenv(name, value)
    listener, _, by_number = (case.listener or way.listener).partition(" ")
    address = secured_kafka.address(listener)
    if by_number:
        address = address.replace("localhost", "127.0.0.1")
    run = run_here(stream.file, "--broker", address, "--log-level", "debug")
    code = 2 if case.way == "OAUTHBEARER" else 1
    assert_told(run, code, *case.named)
    assert_no_secret(run.stderr, endpoint)


@pytest.mark.parametrize(
    "missing", [("source",), ("sink",), ("dead",), ("group",), ("source", "sink", "dead", "group")]
)
def test_who_lacks_a_right_is_told_which(
    missing: tuple[str, ...],
    ways: dict[str, Access],
    secured_kafka: SecuredKafka,
    stream: KnownStream,
    run_here: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = ways["SCRAM-SHA-512"]
    allow_worker(secured_kafka, way.principal, stream, *(getattr(stream, name) for name in missing))
    for name, value in way.environ.items():
        monkeypatch.setenv(name, value)
    rights = {
        "source": f"READ topic '{stream.source}'",
        "sink": f"WRITE topic '{stream.sink}'",
        "dead": f"WRITE topic '{stream.dead}'",
        "group": f"READ group '{stream.group}'",
    }
    message = "User:worker may not " + " or ".join(rights[name] for name in missing) + "; an ACL"
    for command in ("run", "validate"):
        run = run_here(stream.file, "--broker", secured_kafka.address(way.listener), command=command)
        assert_told(run, 1, message)


def test_commands_log_in_too(
    ways: dict[str, Access],
    secured_kafka: SecuredKafka,
    stream: KnownStream,
    run_here: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    endpoint: TokenEndpoint,
) -> None:
    way = ways["operator"]
    monkeypatch.setenv("MODELSTREAM_BROKER", secured_kafka.address(way.listener))
    for name, value in way.environ.items():
        monkeypatch.setenv(name, value)

    def command(name: str, *arguments: object) -> str:
        first, *rest = name.split()
        run = run_here(*rest, stream.file, *arguments, command=first)
        assert run.code == 0, run.stderr
        assert_no_secret(run.stdout + run.stderr, endpoint)
        return run.stdout

    delete_topics(secured_kafka.bootstrap, [stream.source, stream.sink, stream.dead])
    assert command("topics", "--partitions", 2).count("created") == 3
    events = stream.folder / "events.ndjson"
    events.write_text('{"id": "a", "seq": 1}\n{"id": "b", "seq": 2}\n{"id": "c", "seq": "no"}\n')
    command("produce", events)
    with stream.worker(broker=secured_kafka.address(way.listener)) as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert command("consume", "--from-beginning", "--until-end").count("event_id") == 2
    assert '"value":7' in command("explain", "b", "--json").replace(" ", "")
    assert command("dlq list", "--json").count('"wrong_type"') == 1
    command("dlq redrive")
    assert "READ" not in command("validate")
    assert command("graph")
    demo = run_here("--events", 100, "--broker", secured_kafka.address(way.listener), command="demo")
    assert demo.code == 0, demo.stderr


def test_the_faust_command_line_asks_first_too(
    ways: dict[str, Access], secured_kafka: SecuredKafka, stream: KnownStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = ways["SCRAM-SHA-512"]
    monkeypatch.setenv("MODELSTREAM_BROKER", secured_kafka.address(way.listener))
    monkeypatch.setenv("MODELSTREAM_PIPELINE", str(stream.file))
    for name, value in way.environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BrokerRefused, match="User:worker may not READ topic"):
        app_from_environment()
    allow_worker(secured_kafka, way.principal, stream)
    missing = f"{stream.sink}-missing"
    secured_kafka.allow(way.principal, "topic", missing, WRITE)
    stream.file.write_text(stream.file.read_text().replace(stream.sink, missing))
    with pytest.raises(ConfigError, match=f"sink.topic: no topic '{missing}'"):
        app_from_environment()
    monkeypatch.delenv(f"{PREFIX}SASL_PASSWORD_FILE")
    monkeypatch.setenv(f"{PREFIX}SASL_PASSWORD", "wr0ng")
    with pytest.raises(BrokerRefused, match="does not let User:worker in"):
        app_from_environment()
