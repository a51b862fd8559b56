"""Broken pipelines, models, brokers and topics: `modelstream run` ends with one message that says what to mend."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.onnx_factory import affine, write_model
from support.runs import Run, assert_told, plain_environment

from modelstream.streams.embedded import free_port

#: Far beyond the 15 s within which every start fails; a hang fails its test instead of the session.
DEADLINE_S = 60.0

PIPELINE = """\
pipeline: trial
source: {topic: trial.events, event_id: id}
stages:
  - {id: known, filter: {present: [seq]}}
  - {id: score, infer: {models: [triple]}}
sink: {topic: trial.predictions, dead_letter: trial.dead}
"""
FUNCTION = "  - {id: made, extract: 'functions:make'}\n"


class Case(NamedTuple):
    """One thing that is wrong, and what the message must name: where it is, what it is, what to do."""

    named: tuple[str, ...]
    #: Text of the pipeline file to replace, or a function that breaks something in the folder.
    change: tuple[str, str] | Callable[[Path], object]


def _model(folder: Path, file: str) -> Path:
    return folder / "models" / "triple" / "1" / file


def _with_function(text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "functions.py").write_text(text)
        file = folder / "pipeline.yaml"
        file.write_text(file.read_text().replace("stages:\n", f"stages:\n{FUNCTION}"))

    return change


def _truncate(folder: Path) -> None:
    """Cut the model in half, with the digest of what is left: not the digest is wrong here."""
    content = _model(folder, "model.onnx").read_bytes()
    _replace_model(folder, content[: len(content) // 2])


def _replace_model(folder: Path, content: bytes, toml: str = '[inputs.x]\nfields = ["seq"]\n') -> None:
    for file in _model(folder, "").iterdir():
        file.unlink()
    _model(folder, "").rmdir()
    write_model(folder / "models", "triple", content, toml)


def _not_toml(folder: Path) -> None:
    _model(folder, "model.toml").write_text("name = triple\n")


CASES = {
    "unknown key": Case(
        ("source.event_idd", "unknown key", "did you mean 'event_id'"), ("event_id: id", "event_idd: id")
    ),
    "unknown top key": Case(("stagez", "unknown key", "did you mean 'stages'"), ("stages:", "stagez:")),
    "unknown stage kind": Case(
        ("stages[1].infre", "unknown key", "did you mean 'infer'"), ("infer: {models", "infre: {models")
    ),
    "duplicate stage ids": Case(("stages[1].id", "'known' is the id of stages[0] already"), ("id: score", "id: known")),
    "no stages": Case(("stages", "must not be empty"), (PIPELINE[PIPELINE.index("stages") :], "stages: []\n")),
    "sink is source": Case(
        ("sink.topic", "'trial.events' is the source's topic"), ("topic: trial.predictions", "topic: trial.events")
    ),
    "wrong type": Case(("source.max_depth", "'deep'"), ("event_id: id", "max_depth: deep")),
    "missing source": Case(("source", "missing"), ("source: {topic: trial.events, event_id: id}\n", "")),
    "not YAML": Case(("pipeline.yaml:2:",), ("source: {topic", "source: {topic: {")),
    "tab in YAML": Case(("pipeline.yaml:4:1", r"'\t'"), ("  - {id: known", "\t- {id: known")),
    "no such file": Case(("pipeline.yaml", "no such file"), lambda folder: (folder / "pipeline.yaml").unlink()),
    "bad broker in the file": Case(("broker", "HOST:PORT"), ("pipeline: trial\n", "pipeline: trial\nbroker: host\n")),
    "missing model": Case(
        ("stages[1].infer.models[0]", "no model 'tripel'", "did you mean 'triple'"), ("[triple]", "[tripel]")
    ),
    "unknown version": Case(("stages[1].infer.models[0]", "no version '7'", "it has 1"), ("[triple]", "['triple@7']")),
    "no models folder": Case(
        ("stages[1].infer.models[0]", "directory of models", "is not there"),
        ("pipeline: trial\n", "pipeline: trial\nmodels_dir: modles\n"),
    ),
    "declared column of another dtype": Case(
        ("stages[1]", "'seq'", "string", "float32"), ("filter: {present: [seq]}", "extract: {columns: {seq: string}}")
    ),
    "truncated ONNX": Case(("model triple@1", "model.onnx"), _truncate),
    "empty ONNX": Case(
        ("model triple@1", "model.onnx", "is empty", "export"),
        lambda folder: _model(folder, "model.onnx").write_bytes(b""),
    ),
    "wrong digest": Case(
        ("model triple@1", "model.onnx", "has SHA-256", "model.toml says", "copy it again"),
        lambda folder: _model(folder, "model.onnx").write_bytes(affine([4.0])),
    ),
    "missing model.toml": Case(
        ("model triple@1", "model.toml", "is not there"), lambda folder: _model(folder, "model.toml").unlink()
    ),
    "model.toml is not TOML": Case(("model triple@1", "model.toml", "not TOML"), _not_toml),
    "input that the model has not": Case(
        ("model triple@1", "model.toml", "'y'", "x"),
        lambda folder: _replace_model(folder, affine([3.0]), '[inputs.y]\nfields = ["seq"]\n'),
    ),
    "packed fields of another width": Case(
        ("model triple@1", "inputs.x", "2", "1"),
        lambda folder: _replace_model(folder, affine([3.0, 1.0]), '[inputs.x]\nfields = ["seq"]\n'),
    ),
    "function module missing": Case(
        ("stages[0].extract", "no module 'functions'", "next to the pipeline file"),
        ("stages:\n", f"stages:\n{FUNCTION}"),
    ),
    "function module raises": Case(
        ("stages[0].extract", "importing 'functions' failed", "RuntimeError: no licence"),
        _with_function("raise RuntimeError('no licence')\n"),
    ),
    "function module exits": Case(
        ("stages[0].extract", "importing 'functions' failed", "SystemExit"),
        _with_function("import sys\nsys.exit(0)\n"),
    ),
    "function missing": Case(
        ("stages[0].extract", "no function 'make'", "did you mean 'maker'"),
        _with_function("def maker(batch):\n    return {}\n"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a pipeline that is all right."""
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    write_model(tmp_path / "models", "triple", affine([3.0], bias=1.0), '[inputs.x]\nfields = ["seq"]\n')
    return tmp_path


def run_process(*arguments: object) -> Run:
    """Run ``modelstream run`` as a user does."""
    environment = plain_environment()
    done = subprocess.run(
        [sys.executable, "-m", "modelstream", "run", *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, env=environment, text=True, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout, done.stderr)


def _break(folder: Path, case: Case) -> None:
    if callable(case.change):
        case.change(folder)
        return
    old, new = case.change
    assert old in PIPELINE
    (folder / "pipeline.yaml").write_text(PIPELINE.replace(old, new))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_broken_configuration_ends_with_one_message(case: Case, folder: Path, run_here: Callable[..., Run]) -> None:
    _break(folder, case)
    run = run_here(folder / "pipeline.yaml", "--broker", f"127.0.0.1:{free_port()}")
    assert_told(run, 2, *case.named)
    assert run.stderr.startswith("modelstream: error: ")


@pytest.mark.parametrize("name", ["unknown key", "missing model", "truncated ONNX", "function module exits"])
def test_a_broken_configuration_ends_a_process_the_same_way(name: str, folder: Path) -> None:
    _break(folder, CASES[name])
    run = run_process(folder / "pipeline.yaml", "--broker", f"127.0.0.1:{free_port()}")
    assert_told(run, 2, *CASES[name].named)
    assert run.stderr.startswith("modelstream: error: ")


def test_no_broker_is_named(folder: Path, run_here: Callable[..., Run]) -> None:
    assert_told(run_here(folder / "pipeline.yaml"), 2, "broker", "--broker HOST:PORT", "MODELSTREAM_BROKER")


@pytest.mark.parametrize("address", ["localhost", "localhost:kafka", "http://localhost:9092", ":9092", ""])
def test_a_bad_address(address: str, folder: Path, run_here: Callable[..., Run]) -> None:
    assert_told(run_here(folder / "pipeline.yaml", "--broker", address), 2, "--broker", "HOST:PORT")


def test_an_unreachable_broker(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    run = run_process(folder / "pipeline.yaml", "--broker", address)
    assert_told(run, 1, address, "--broker HOST:PORT", "MODELSTREAM_BROKER")


def test_a_listener_that_is_no_broker(folder: Path, run_here: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never answers
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert_told(run_here(folder / "pipeline.yaml", "--broker", address), 1, address)


@pytest.mark.kafka
@pytest.mark.parametrize("key", ["source.topic", "sink.topic", "sink.dead_letter"])
def test_a_missing_topic(
    key: str, folder: Path, kafka: Any, make_topics: Callable[..., list[str]], run_here: Callable[..., Run]
) -> None:
    keys = ["source.topic", "sink.topic", "sink.dead_letter"]
    topics = dict(zip(keys, make_topics(kafka, "events", "predictions", "dead"), strict=True)) | {key: "nowhere"}
    file = folder / "pipeline.yaml"
    options = [f"--set={name}={topic}" for name, topic in topics.items()]
    run = run_here(file, "--broker", kafka.bootstrap, *options)
    assert_told(run, 2, key, "no topic 'nowhere'", kafka.bootstrap, f"modelstream topics {file}")


@pytest.mark.kafka
def test_a_web_port_that_is_taken(folder: Path, kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    source, sink, dead = make_topics(kafka, "events", "predictions", "dead")
    options = [f"--set=source.topic={source}", f"--set=sink.topic={sink}", f"--set=sink.dead_letter={dead}"]
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        run = run_process(
            folder / "pipeline.yaml", "--broker", kafka.bootstrap, *options,
            "--web-bind", "127.0.0.1", "--web-port", port,
        )  # fmt: skip
    assert_told(run, 1, f"port {port}", "is taken", "--web-port")
