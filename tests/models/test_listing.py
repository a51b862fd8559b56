from __future__ import annotations

import pytest
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError
from modelstream.models.listing import list_versions

ONNX = affine([1, 2])


def test_every_version_with_its_size_and_metrics(models_dir):
    for version in ("1", "2", "10"):
        write_model(models_dir, "delay", ONNX, "[metrics]\nmae = 2.5", version)
    write_model(models_dir, "air_time", ONNX)
    found = list_versions(models_dir)
    assert [(one.name, one.version, one.is_default) for one in found] == [
        ("air_time", "1", True),
        ("delay", "1", False),
        ("delay", "2", False),
        ("delay", "10", True),
    ]
    assert {(one.n_bytes, one.problem) for one in found} == {(len(ONNX), "")}
    assert [one.metrics for one in found] == [{}, {"mae": 2.5}, {"mae": 2.5}, {"mae": 2.5}]


def test_what_is_wrong_with_the_files_is_told(models_dir):
    (write_model(models_dir, "no_model", ONNX) / "model.onnx").unlink()
    (write_model(models_dir, "no_toml", ONNX) / "model.toml").unlink()
    write_model(models_dir, "broken", ONNX, "x = ")
    write_model(models_dir, "old_name", ONNX).parent.rename(models_dir / "renamed")
    found = {one.name: one.problem for one in list_versions(models_dir)}
    assert found["no_model"] == "model.onnx: No such file or directory"
    assert found["no_toml"] == "model.toml: No such file or directory"
    assert found["broken"].startswith("model.toml: not TOML: ")
    assert found["renamed"] == "model.toml: is of old_name@1"


def test_no_directory_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"the directory of models .* is not there"):
        list_versions(tmp_path / "none")
