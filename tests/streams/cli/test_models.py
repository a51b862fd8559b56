"""``modelstream models``: the list, the check, and how they end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper
from support.onnx_factory import affine, build, write_model

from modelstream.streams.cli.models import command


def leaking() -> bytes:
    """Each number plus the largest of the batch where that is over 1000: found at an edge, by the check alone."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "limit"], ["over"]),
        helper.make_node("Relu", ["over"], ["excess"]),
        helper.make_node("Add", ["x", "excess"], ["value"]),
    ]
    inputs, outputs = {"x": ("float32", [None, 1])}, {"value": ("float32", None)}
    return build(nodes, inputs, outputs, {"limit": np.float32(1000)}).SerializeToString()


@pytest.fixture
def models_dir(tmp_path):
    write_model(tmp_path, "delay", affine([1, 2]), '[inputs.x]\nfields = ["[red]dep", "dist"]\n[metrics]\nmae = 2.5')
    write_model(tmp_path, "delay", affine([1, 2]), version="2")
    write_model(tmp_path, "leaking", leaking())
    (write_model(tmp_path, "torn", affine([1])) / "model.onnx").unlink()
    return tmp_path


def test_the_list(run, models_dir):
    done = run("models", "list", "--models-dir", models_dir)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["model", "version", "size", "metrics,", "or", "what", "is", "wrong"]
    assert rows[1] == ["delay", "1", "0.1", "kB", "mae", "2.5"]
    assert rows[2] == ["delay", "2", "*", "0.1", "kB"]
    assert rows[4][:4] == ["torn", "1", "*", "model.onnx:"]


def test_the_list_as_json(run, models_dir):
    done = run("models", "list", "--models-dir", models_dir, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["model"], one["version"], one["is_default"]) for one in found][:2] == [
        ("delay", "1", False),
        ("delay", "2", True),
    ]
    assert found[0]["metrics"] == {"mae": 2.5}
    assert found[3]["problem"].startswith("model.onnx: ")


def test_an_empty_directory_says_what_a_model_is(run, tmp_path):
    done = run("models", "list", "--models-dir", tmp_path)
    assert done.returncode == 0
    assert done.stdout.endswith("a model is a folder NAME/VERSION/ with model.onnx and model.toml\n")


def test_a_folder_of_model_files_without_a_version_is_named(run, models_dir):
    (models_dir / "mine").mkdir()
    (models_dir / "mine" / "model.onnx").write_bytes(affine([1]))
    (models_dir / "notes").mkdir()
    done = run("models", "list", "--models-dir", models_dir)
    assert done.returncode == 0
    assert done.stderr == (
        f"{models_dir / 'mine'} has no version; a version is a folder with a number for a name, as mine/1/model.onnx\n"
    )


def test_a_file_is_added_checked_and_listed(run, tmp_path):
    (tmp_path / "fee.onnx").write_bytes(affine([1, 2]))
    where = ("--models-dir", tmp_path / "models")
    done = run("models", "add", "fee", tmp_path / "fee.onnx", "--fields", "age,tenure", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"added {tmp_path}/models/fee/1: fee@1 reads age float32, tenure float32; gives value\n"
    done = run("models", "add", "fee", tmp_path / "fee.onnx", *where)
    assert done.stdout.splitlines() == [
        f"added {tmp_path}/models/fee/2: fee@2 reads x float32[2]; gives value",
        "note: x is read as one field, a list; where each number has its own, name them: --fields",
    ]
    done = run("models", "add", "fee", tmp_path / "fee.onnx", "--field", "x=numbers", *where)
    assert done.stdout == f"added {tmp_path}/models/fee/3: fee@3 reads numbers float32[2]; gives value\n"
    done = run("models", "add", "fee", tmp_path / "fee.onnx", "--fields", "age", *where)
    assert done.returncode == 2
    assert "inputs.x.fields: names 1 field, but the input takes 2 values; nothing was added" in done.stderr
    listed = run("models", "list", *where).stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["fee", "1"], ["fee", "2"], ["fee", "3"]]


def test_a_sound_model(run, models_dir):
    done = run("models", "check", "delay@1", "--models-dir", models_dir, "--rows", "10")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[:5] == [
        "model      delay@1 on cpu",
        "input      x float32 [N, 2] ← [red]dep, dist",
        "output     value (value) ← value",
        "batch      axis dynamic; 10 random rows alone and together: alike, to the last bit",
        "edges      zeros and empty text, negative, very small, very large: predicted, alone as among others",
    ]
    assert lines[5].endswith(" of 4 predictions are not finite, each a dead letter")
    assert "inputs of  NaN, infinity, -infinity: the prediction is not finite either ([red]dep, dist)" in lines
    curve = [line.split() for line in lines[-5:]]
    assert [row[0] for row in curve] == ["1", "8", "64", "512", "4,096"]


def test_a_model_whose_rows_depend_on_each_other_fails(run, models_dir):
    done = run("models", "check", "leaking", "--models-dir", models_dir, "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("modelstream: error: model leaking@1: rows of very large: a neighbour's value is ")
    report = json.loads(done.stdout)
    assert (report["ok"], len(report["problems"])) == (False, 3)
    assert report["inputs"] == [{"tensor": "x", "dtype": "float32", "width": 1, "fields": ["x"]}]
    assert [point["rows"] for point in report["price"]["points"]] == [1, 8, 64, 512, 4096]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["dely"], "MODEL: no model 'dely' in registry "),
        (["torn"], "model torn@1: "),
        (["delay@7"], "MODEL: model 'delay' has no version '7'"),
        (["delay", "--provider", "cdua"], "--provider: no execution provider 'cdua': "),
    ],
)
def test_what_cannot_be_checked_ends_with_2(run, models_dir, arguments, problem):
    done = run("models", "check", *arguments, "--models-dir", models_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"modelstream: error: {problem}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["list"], ["check", "delay"]])
def test_no_directory_ends_with_2(run, tmp_path, arguments):
    done = run("models", *arguments, "--models-dir", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("none is not there; name another with --models-dir DIR\n")


def test_a_directory_without_models_has_nothing_to_check(run, tmp_path):
    (tmp_path / "cli").mkdir()
    done = run("models", "check", "delay", "--models-dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(" has none; name another with --models-dir DIR\n")


def test_the_help_of_the_group_is_not_cut(run):
    text = run("models", "-h").stdout
    assert "  check  Check one: its contract, its edges, its price.\n" in text
    assert "..." not in text.replace("[OPTIONS] COMMAND [ARGS]...", "")


def test_the_group_is_lazy_and_listed(run):
    assert "models " in run("--help").stdout
    assert set(command.commands) == {"list", "add", "check"}
