"""docker-compose.yml and the Dockerfile, as far as they can be tested without Docker."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
import yaml
from jsonschema import Draft202012Validator
from support.kafka_server import kafka_version
from support.kafka_tools import partitions_of
from support.redis_server import RedisServer

from modelstream.streams.cli.main import modelstream_group
from modelstream.streams.embedded import free_port
from modelstream.streams.settings import BrokerSettings, RedisSettings

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
#: Kafka's scripts run one Java class each.
KAFKA_SCRIPTS = {"/opt/kafka/bin/kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand"}


def problems(compose) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(compose)]


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def image_command() -> list[str]:
    return json.loads([rest for word, rest in dockerfile() if word == "CMD"][-1])


def test_compose_file_keeps_the_specification():
    Draft202012Validator.check_schema(SCHEMA)
    assert problems(COMPOSE) == []


def test_the_schema_finds_mistakes():
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["worker"]["depend_on"] = {}
    broken["services"]["kafka"]["healthcheck"]["retries"] = ["12"]
    assert any("depend_on" in problem for problem in problems(broken))
    assert any("12" in problem for problem in problems(broken))


def test_what_a_service_waits_for_can_happen():
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            other = SERVICES[name]
            if wanted["condition"] == "service_healthy":
                assert other["healthcheck"]["test"]
            else:
                assert wanted["condition"] == "service_completed_successfully"
                assert other["restart"] == "no"


def test_named_volumes_are_declared():
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("words", [SERVICES["topics"]["command"], image_command()], ids=["topics", "worker"])
def test_commands_are_commands_of_ours_on_files_in_the_image(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, name, *arguments = words
    assert program == "modelstream"
    command = modelstream_group.get_command(click.Context(modelstream_group), name)
    context = command.make_context(name, list(arguments))  # raises on an option that is not there
    assert Path(context.params["pipeline"]).is_file()
    assert Path(context.params["pipeline"]).parts[0] in copied_sources()


def test_workers_find_the_broker_and_the_cache():
    environ = SERVICES["worker"]["environment"]
    broker = BrokerSettings.resolve(option=None, in_file=None, environ=environ)
    redis = RedisSettings.resolve(option=None, in_file=None, environ=environ)
    assert f"INTERNAL://{broker.bootstrap}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert redis.url == "redis://redis:6379/0"
    assert {broker.bootstrap.split(":")[0], "redis"} <= set(SERVICES)
    assert SERVICES["topics"]["environment"] == environ
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


def at_home(text: str, ports: dict[str, str]) -> str:
    """Return a value of the files with this machine's address in place of the containers'."""
    text = re.sub(r"://(kafka|redis)?:", "://localhost:", text)
    return re.sub(r"(?<=:)(\d+)|^(\d+)$", lambda match: ports.get(match[0], match[0]), text)


@pytest.mark.kafka
def test_the_services_run_and_get_healthy(start_kafka, redis_url):
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_version()}"
    ports = {port: str(free_port()) for port in ("9092", "9093", "19092", "6066")}
    # As the image's start script makes server.properties of its environment.
    environment = SERVICES["kafka"]["environment"].items()
    settings = {
        key.removeprefix("KAFKA_").lower().replace("_", "."): at_home(value, ports) for key, value in environment
    }
    del settings["log.dirs"]
    kafka = start_kafka(port=int(ports["9092"]), settings=settings)
    kind, script, *arguments = SERVICES["kafka"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert "ApiVersion" in kafka.run_tool(KAFKA_SCRIPTS[script], *(at_home(word, ports) for word in arguments))

    broker = at_home(SERVICES["worker"]["environment"]["MODELSTREAM_BROKER"].replace("kafka", "localhost"), ports)
    env = {**os.environ, "MODELSTREAM_BROKER": broker, "MODELSTREAM_REDIS": redis_url}
    topics = subprocess.run(ours(SERVICES["topics"]["command"]), env=env, cwd=ROOT, capture_output=True, text=True)
    assert topics.returncode == 0, topics.stderr
    assert partitions_of(kafka.bootstrap, "flights.events") == [0, 1, 2, 3]

    probe = next(rest for word, rest in dockerfile() if word == "HEALTHCHECK")
    _, program, code = json.loads(probe[probe.index("[") :])
    assert program == "-c"
    with subprocess.Popen(ours([at_home(word, ports) for word in image_command()]), env=env, cwd=ROOT) as worker:
        try:
            deadline = time.monotonic() + 60
            while subprocess.run([sys.executable, "-c", at_home(code, ports)], stderr=subprocess.DEVNULL).returncode:
                assert worker.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            worker.terminate()
    assert worker.returncode == 0


def ours(command: list[str]) -> list[str]:
    """Return a command of the image as one of this environment."""
    assert command[0] == "modelstream"
    return [sys.executable, "-m", *command]


@pytest.mark.redis
def test_redis_starts_with_these_options():
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    with RedisServer(options) as server:
        assert server.running
    assert SERVICES["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def copied_sources() -> list[str]:
    """Return what the Dockerfile takes from the repository."""
    copies = [shlex.split(rest) for word, rest in dockerfile() if word == "COPY" and "--from" not in rest]
    return [source for words in copies for source in words[:-1]]


def test_what_the_image_copies_is_there_and_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied_sources():
        assert (ROOT / source).exists()
        assert source in let_in
        assert not any(fnmatch(source, pattern) for pattern in ignored if pattern != "*")
    # The links in src lead to folders that must come along.
    for link in (ROOT / "src" / "modelstream").iterdir():
        if link.is_symlink():
            assert link.name in copied_sources()


def test_the_image_is_slim_runs_as_nobody_special_and_probes_the_port_it_serves():
    instructions = dockerfile()
    assert [rest.split()[0] for word, rest in instructions if word == "FROM"] == ["python:3.13-slim"] * 2
    assert [rest for word, rest in instructions if word == "USER"] == ["modelstream"]
    command = image_command()
    port = command[command.index("--web-port") + 1]
    assert [rest for word, rest in instructions if word == "EXPOSE"] == [port]
    assert f"127.0.0.1:{port}/" in next(rest for word, rest in instructions if word == "HEALTHCHECK")


def test_the_lock_files_agree_and_name_no_index():
    full, run, build = (
        (ROOT / name).read_text() for name in ("requirements.lock", "requirements-run.lock", "requirements-build.lock")
    )
    versions = [set(re.findall(r"^[a-z0-9-]+==\S+", text, re.M)) for text in (full, run, build)]
    assert versions[1] < versions[0]
    assert versions[2] < versions[0]
    assert not re.search(r"://|--(index|extra-index|find-links|trusted)", full + run + build)
