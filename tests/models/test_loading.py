from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support.onnx_factory import affine, mlp, write_model

import modelstream.models as models
from modelstream.models.errors import ConfigError
from modelstream.models.loading import load_model


def test_a_bare_name_loads_the_highest_version(models_dir):
    for version, weight in (("2", 2.0), ("10", 10.0), ("9", 9.0)):
        write_model(models_dir, "m", affine([weight]), version=version)
    model = load_model(models_dir, "m")
    assert (model.name, model.version, repr(model)) == ("m", "10", "OnnxModel(m@10)")
    assert model.predict({"x": np.array([1.0])}, 1)["value"][0] == 10
    assert load_model(models_dir, "m@9").predict({"x": np.array([1.0])}, 1)["value"][0] == 9


def test_the_contract_is_kept_whole(models_dir):
    toml = '[metrics]\nmae = 11.5\n[training]\ndata = "flights"\n'
    write_model(models_dir, "m", affine([1, 2]), toml)
    contract = load_model(models_dir, "m").contract
    assert contract.metrics == {"mae": 11.5}
    assert contract.training == {"data": "flights"}
    assert [spec.tensor for spec in contract.inputs] == ["x"]
    assert [(spec.field, spec.tensor, spec.kind) for spec in contract.outputs] == [("value", "value", "value")]
    assert pickle.loads(pickle.dumps(contract)) == contract


def test_the_digest_may_be_written_in_capitals(models_dir):
    directory = write_model(models_dir, "m", affine([1]))
    toml = directory / "model.toml"
    head, digest = toml.read_text().split("sha256 = ")
    toml.write_text(head + "sha256 = " + digest.upper())
    assert load_model(models_dir, "m").contract.sha256 == digest.strip().strip('"')


def test_loading_twice_predicts_the_same(models_dir):
    write_model(models_dir, "m", mlp())
    X = np.random.default_rng(3).normal(size=(9, 20)).astype(np.float32)
    first, second = (load_model(models_dir, "m").predict({"x": X}, 9)["value"] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_links_within_the_directory_are_followed(models_dir):
    real = write_model(models_dir, "m", affine([1]), version="1")
    data = models_dir / "..data"
    data.mkdir()
    (real / "model.onnx").rename(data / "blob")
    (real / "model.onnx").symlink_to(data / "blob")
    assert load_model(models_dir, "m").version == "1"
    link = models_dir.parent / "link"
    link.symlink_to(models_dir)
    assert load_model(link, "m").version == "1"


def test_a_model_of_the_largest_allowed_size(models_dir):
    onnx = affine([1])
    write_model(models_dir, "m", onnx)
    load_model(models_dir, "m", max_bytes=len(onnx))


def test_a_wrong_reference_is_told_with_its_place(models_dir):
    write_model(models_dir, "arrival_delay", affine([1]))
    with pytest.raises(ConfigError) as caught:
        load_model(models_dir, "arrival_dely", path="stages[1].infer.models[0]")
    assert caught.value.path == "stages[1].infer.models[0]"
    assert str(caught.value).endswith("; did you mean 'arrival_delay'?")


def test_loading_does_not_depend_on_the_working_directory(models_dir, monkeypatch):
    write_model(models_dir, "m", affine([1]))
    monkeypatch.chdir(models_dir.parent)
    assert load_model(type(models_dir)("models"), "m").version == "1"


def test_importing_models_does_not_import_onnx_runtime():
    code = "import sys, modelstream.models; sys.exit('onnxruntime' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


def test_every_exported_name_is_there_and_says_what_it_is():
    assert sorted(models.__all__, key=lambda name: (not name.isupper(), name)) == models.__all__
    for name in models.__all__:
        assert hasattr(models, name)
