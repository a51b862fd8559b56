"""What the systems of the benchmark need, and what is said where it is missing."""

from __future__ import annotations

import ast
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmarks import peers, throughput
from benchmarks.matrix import Found, cannot
from benchmarks.measurement import Run
from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, Job
from benchmarks.systems.kafka_streams import properties
from benchmarks.systems.pyflink_table import settings, tables
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", peers.SYSTEMS)
def test_what_a_system_names_is_there(name: str) -> None:
    system = peers.SYSTEMS[name]
    assert find_spec(system.module)
    if system.environment:
        lock = (ROOT / "benchmarks" / "requirements" / f"{system.environment}.lock").read_text()
        assert "--hash=sha256:" in lock
        assert "://" not in lock
    if system.jars:
        assert (ROOT / "benchmarks" / "java" / system.jars / "pom.xml").is_file()


def test_nothing_is_locked_or_fetched_for_a_system_that_is_not_there() -> None:
    environments = {system.environment for system in peers.SYSTEMS.values() if system.environment}
    requirements = (ROOT / "benchmarks" / "requirements").iterdir()
    assert {file.name for file in requirements} == {f"{name}.{end}" for name in environments for end in ("in", "lock")}
    projects = {file.parent.name for file in (ROOT / "benchmarks" / "java").glob("*/pom.xml")}
    assert projects == {system.jars for system in peers.SYSTEMS.values() if system.jars}


def test_without_java_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(peers.Unavailable, match="Java 17 or newer and Maven"):
        peers.prepare("kafka-streams", ROOT)


def test_what_cannot_be_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "requirements"
    folder.mkdir(parents=True)
    (folder / "bytewax.lock").write_text("no requirement at all\n")
    with pytest.raises(peers.Unavailable, match=r"^`.*pip install.*` failed: ERROR: ") as failed:
        peers.prepare("bytewax", tmp_path)
    assert "\n" not in str(failed.value)


def test_a_system_for_vectors_does_not_run_flights() -> None:
    assert "vectors only" in (cannot("kafka-streams", "flights") or "")
    assert cannot("kafka-streams", "mlp-20") is None


def test_the_others_are_measured_and_the_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(system: str, *_: object) -> None:
        if system == "quix":
            raise peers.Unavailable("no wheel for this Python")

    runs = [Run("mlp-20", "loop", 1, 10, 100.0, 1.0, 1.0, 1.0, "polling", True, 0)]
    monkeypatch.setattr(peers, "prepare", prepare)
    monkeypatch.setattr(throughput, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(throughput, "run_matrix", lambda *given, **_: Found(runs if given[2] == ["loop"] else []))
    result = CliRunner().invoke(throughput.main, ["--systems", "loop,quix"])
    assert result.exit_code == 0, result.output
    assert "not measured: quix: no wheel for this Python" in result.output


def test_where_no_system_does_the_workload_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "prepare", lambda *_: None)
    monkeypatch.setattr(throughput, "open_cluster", lambda *_: nullcontext())
    result = CliRunner().invoke(throughput.main, ["--systems", "kafka-streams", "--workloads", "flights"])
    assert result.exit_code == 0, result.output
    assert "not measured: kafka-streams: it is written for workloads of vectors only" in result.output


def test_no_system_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: object) -> None:
        raise peers.Unavailable("no")

    monkeypatch.setattr(peers, "prepare", prepare)
    result = CliRunner().invoke(throughput.main, ["--systems", "loop"])
    assert result.exit_code == 1
    assert "none of the systems can run here" in result.output


def test_all_producers_wait_for_the_same_acknowledgement() -> None:
    """Read, not run: most of the systems are not installed here. modelstream and its twin have the engine's own."""
    assert ACKS == "all"
    given: dict[str, list[str]] = {}
    for file in (ROOT / "benchmarks" / "systems").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            pairs: list[tuple[str, ast.expr]] = []
            if isinstance(node, ast.Dict):
                pairs = [
                    (str(getattr(key, "value", "")), value) for key, value in zip(node.keys, node.values, strict=True)
                ]
            elif isinstance(node, ast.keyword):
                pairs = [(node.arg or "", node.value)]
            found = [ast.unparse(value) for name, value in pairs if name.endswith("acks")]
            if found:
                given.setdefault(file.stem, []).extend(found)
    # loop_own and mlserver_calls run loop's
    own = ("loop", "quix", "quix_sink", "bytewax_flow", "kafka_streams", "pyflink_table")
    assert given == {**{name: ["ACKS"] for name in own}, "faust_stock": ["{'all': -1}[ACKS]"]}


@pytest.mark.parametrize("batched", [False, True])
def test_numbers_that_kafka_streams_is_given_are_whole(tmp_path: Path, batched: bool) -> None:
    job = Job("127.0.0.1:9092", "in", "out", "group", "mlp-20", tmp_path / "model.onnx", tmp_path)
    given = properties(job, batched=batched)
    numbers = [name for name in given if name.endswith((".ms", ".size", ".threads"))]
    assert "producer.linger.ms" in numbers
    assert [name for name in numbers if not str(given[name]).isdecimal()] == []


def test_what_pyflink_is_told_of_the_job_is_in_its_tables(tmp_path: Path) -> None:
    job = Job("127.0.0.1:9092", "in", "out", "group", "mlp-20", tmp_path / "model.onnx", tmp_path)
    events, outputs = tables(job)
    for said in ("topic' = 'in'", "bootstrap.servers' = '127.0.0.1:9092'", "group.id' = 'group'"):
        assert said in events
    for said in ("'topic' = 'out'", "'properties.acks' = 'all'", "'sink.delivery-guarantee' = 'at-least-once'"):
        assert said in outputs
    assert "'properties.linger.ms' = '20'," in outputs  # Kafka's clients refuse a fraction
    told = settings(job, "python")
    assert (told["execution.checkpointing.interval"], told["parallelism.default"]) == (f"{COMMIT_INTERVAL_S:g} s", 1)
