from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from support.onnx_factory import affine, build, column_sum

from modelstream.models.adding import add_model
from modelstream.models.contract import ANY_WIDTH
from modelstream.models.errors import ConfigError, ModelLoadError
from modelstream.models.registry import list_models


def classifier(n_classes: int = 2) -> bytes:
    """Return a graph with a label and the probabilities of its classes."""
    nodes = [
        helper.make_node("Gemm", ["in put", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    outputs: dict[str, Any] = {"label": ("int64", [None]), "probabilities": ("float32", [None, n_classes])}
    weights = {"w": np.arange(2 * n_classes, dtype=np.float32).reshape(2, n_classes)}
    return build(nodes, {"in put": ("float32", [None, 2])}, outputs, weights).SerializeToString()


#: Takes lists of any length.
OPEN = build(
    [helper.make_node("ReduceSum", ["x", "axes"], ["value"], keepdims=0)],
    {"x": ("float32", [None, None])},
    {"value": ("float32", [None])},
    {"axes": np.array([1])},
).SerializeToString()


def onnx_file(folder: Path, content: bytes) -> Path:
    file = folder / "exported.onnx"
    file.write_bytes(content)
    return file


def test_what_is_added_loads_as_it_was_said(tmp_path: Path) -> None:
    file, models_dir = onnx_file(tmp_path, classifier()), tmp_path / "deep" / "models"
    model = add_model(models_dir, "churn", file, fields={"": ["age", 'a "fee"']}, score_class=1)
    assert [field.name for field in model.required_fields] == ["age", 'a "fee"']
    assert [(one.field, one.tensor, one.class_index) for one in model.contract.outputs] == [
        ("label", "label", None),
        ("score", "probabilities", 1),
    ]
    assert (models_dir / "churn" / "1" / "model.onnx").read_bytes() == file.read_bytes()
    again = add_model(models_dir, "churn", file, vectors={"in put": "numbers"}, score_class="no", classes=["yes", "no"])
    assert (again.version, again.required_fields[0].width) == ("2", 2)
    assert again.contract.outputs[1].of_class == "no"
    assert list_models(models_dir) == {"churn": ("1", "2")}
    assert [path.name for path in models_dir.iterdir()] == ["churn"], "and nothing is left beside it"


def test_a_width_that_the_graph_leaves_open_is_said(tmp_path: Path) -> None:
    file = onnx_file(tmp_path, OPEN)
    for width in (5, "any"):
        model = add_model(tmp_path / "models", "sum", file, vectors={"x": "numbers"}, widths={"x": width})
        assert model.required_fields[0].width == (5 if width == 5 else ANY_WIDTH)


@pytest.mark.parametrize(
    ("score_class", "classes", "is_noted"),
    [(1, (), False), (0, (), False), (1, (1, 0), True), (7, (7, 1), False), ("a", ("a", "b"), False)],
)
def test_a_class_whose_column_is_plainly_another_ones_is_noted(
    tmp_path: Path, score_class: int | str, classes: tuple[int | str, ...], is_noted: bool
) -> None:
    """A label that the trial rows do not have tells nothing."""
    model = add_model(
        tmp_path / "models", "m", onnx_file(tmp_path, classifier()), score_class=score_class, classes=classes
    )
    noted = [note for note in model.notes if "column 1 is the largest; list all classes in the order" in note]
    assert bool(noted) == is_noted
    assert not noted or noted[0].startswith("outputs.score.class: of class 1 is column 0 of 'probabilities'")


@pytest.mark.parametrize(
    ("before", "version", "added"), [([], None, "1"), (["1.9", "1.10.2"], None, "2"), (["2"], "1.5-rc1", "1.5-rc1")]
)
def test_the_version_is_the_next_whole_number_or_the_one_that_was_said(
    tmp_path: Path, before: list[str], version: str | None, added: str
) -> None:
    file = onnx_file(tmp_path, affine([1]))
    for one in (*before, version):
        model = add_model(tmp_path / "models", "delay", file, version=one)
    assert model.version == added


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (
            classifier(),
            {"fields": {"": ["a"]}},
            "inputs.in put.fields: names 1 field, but the input takes 2 values",
        ),
        (classifier(), {"fields": {"x": ["a", "b"]}}, "model m@2: inputs.x: the model has no input 'x', only 'in put'"),
        (classifier(), {"score_class": 2}, "outputs.score.class: that of 2 is column 2, counted from 0, but output"),
        (affine([1]), {"score_class": 1}, "has no score that could be of class 1, only value (value)"),
        (
            column_sum({"a": "float32", "b": "float32"}),
            {"fields": {"": ["x"]}},
            "has 2 inputs, a, b: say which one is meant, as a=…",
        ),
        (OPEN, {}, "inputs.x: the graph leaves the width of this input open"),
        (b"no model", {}, "exported.onnx: ONNX Runtime"),
    ],
    ids=["too few fields", "unknown input", "class beyond", "no score", "which input", "open", "no ONNX"],
)
def test_where_something_is_wrong_nothing_is_added(
    tmp_path: Path, content: bytes, options: dict[str, Any], problem: str
) -> None:
    models_dir = tmp_path / "models"
    add_model(models_dir, "m", onnx_file(tmp_path, affine([1])))
    with pytest.raises(ModelLoadError) as caught:
        add_model(models_dir, "m", onnx_file(tmp_path, content), **options)
    assert problem in str(caught.value)
    assert ".adding" not in str(caught.value)
    assert list_models(models_dir) == {"m": ("1",)}
    assert [path.name for path in models_dir.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("name", "version", "problem"),
    [
        ("../m", None, "'../m' is no name of a model"),
        ("m", "one", "'one' is no version"),
        ("m", "1", "is there already, and a version never changes"),
    ],
)
def test_a_name_or_version_that_cannot_be_is_refused(
    tmp_path: Path, name: str, version: str | None, problem: str
) -> None:
    models_dir, file = tmp_path / "models", onnx_file(tmp_path, affine([1]))
    add_model(models_dir, "m", file)
    with pytest.raises(ConfigError, match=problem):
        add_model(models_dir, name, file, version=version)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported.onnx", "models"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.onnx: No such file"):
        add_model(tmp_path / "models", "m", tmp_path / "nowhere.onnx")
    assert not (tmp_path / "models").exists()
