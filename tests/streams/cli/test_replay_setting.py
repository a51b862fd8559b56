"""What `replay` and `capacity` say before there is a worker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.onnx_factory import affine, write_model

PIPELINE = """\
pipeline: trial
source: {topic: trial.events, key: tail, event_id: id}
stages: [{id: score, infer: {models: [triple]}}]
sink: {topic: trial.predictions, dead_letter: trial.dead}
"""
#: A replay of it ends before it starts workers.
BROKEN = b'{"id": "e0", "seq": 0}\n{broken\n'

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Return a pipeline file that names no broker."""
    write_model(tmp_path / "models", "triple", affine([3.0]), '[inputs.x]\nfields = ["seq"]\n')
    file = tmp_path / "trial.yaml"
    file.write_text(PIPELINE)
    return file


@pytest.mark.parametrize(
    ("command", "options", "note"),
    [
        ("replay", ["--workers", "3", "--partitions", "2"], "3 workers share 2 partitions, so one of them has nothing"),
        ("capacity", ["--workers", "3", "--partitions", "1"], "3 workers share 1 partition, so 2 of them have nothing"),
        ("replay", ["--workers", "5"], "5 workers share 4 partitions, so one of them has nothing"),
        ("replay", ["--workers", "2", "--partitions", "2"], None),
    ],
)
def test_workers_without_a_partition_are_told(
    run: Run, pipeline: Path, command: str, options: list[str], note: str | None
) -> None:
    said = run(command, pipeline, "-", *options, input=BROKEN).stderr
    if note is None:
        assert "note" not in said
    else:
        assert f"note: {note} to read; --partitions {options[1]} gives each of them one\n" in said


@pytest.mark.parametrize(
    ("command", "infer"),
    [
        ("replay", "{models: [tripel]}"),
        (
            "replay",
            "{models: [triple, {model: triple, as: other}], ensembles: {e: {stack: [triple, other], model: x}}}",
        ),
        ("capacity", "{models: [triple@7]}"),
    ],
)
def test_a_model_that_is_not_there_is_told_before_anything_starts(
    run: Run, pipeline: Path, command: str, infer: str
) -> None:
    wrong = f"--set=stages[0].infer={infer}"
    done = run(command, pipeline, "-", wrong)
    assert done.returncode == 2
    # The one line that `validate` has, which loads the models.
    assert done.stderr == run("validate", pipeline, wrong).stderr
    assert done.stderr.startswith("modelstream: error: stages[0].infer.")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("replay", []),
        ("replay", ["--offline"]),
        ("replay", ["--diff", "trial.yaml"]),
        ("capacity", []),
        ("what-if", ["max_size=8", "--rate", "100/s"]),
    ],
)
def test_a_file_without_events_is_told_by_its_name(
    run: Run, pipeline: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str]
) -> None:
    monkeypatch.chdir(pipeline.parent)
    Path("none.ndjson").write_bytes(b"\n")
    done = run(command, "trial.yaml", "none.ndjson", *options)
    assert done.returncode == 2
    assert done.stderr == "modelstream: error: none.ndjson: holds no events; name a file that has some\n"


@pytest.mark.parametrize(
    ("command", "options", "names_it"),
    [
        ("replay", [], True),
        ("replay", ["--offline"], True),
        # Lines would go out as JSON, which the pipeline does not read: all of them would be dead letters.
        ("replay", ["--set", "source.format=msgpack"], False),
        ("capacity", [], False),  # these do not have it
        ("what-if", ["max_size=8", "--rate", "100/s"], False),
    ],
)
def test_a_broken_line_names_the_option_that_sends_it(
    run: Run, pipeline: Path, command: str, options: list[str], names_it: bool
) -> None:
    done = run(command, pipeline, "-", *options, input=BROKEN)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("modelstream: error: standard input:2: no JSON: ")
    assert last.endswith("; with --as-is such lines are sent too, and become dead letters") == names_it
    assert ("--as-is" in last) == names_it
