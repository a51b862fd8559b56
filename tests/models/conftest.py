from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from support.onnx_factory import write_model

from modelstream.models.errors import ModelLoadError
from modelstream.models.loading import load_model
from modelstream.models.onnx_model import OnnxModel


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


@pytest.fixture
def load(models_dir: Path) -> Callable[..., OnnxModel]:
    """Write a model version ``m@1`` and load it: ``load(onnx, toml="")``."""

    def write_and_load(onnx: bytes, toml: str = "") -> OnnxModel:
        write_model(models_dir, "m", onnx, toml)
        return load_model(models_dir, "m")

    return write_and_load


@pytest.fixture
def assert_told(models_dir: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[str, str], None]:
    """Load ``m@1``, which must fail with one clear line: the file to blame, then what the message begins with."""
    places = {"{ort}": onnxruntime.__version__, "{dir}": str(models_dir), "{out}": str(models_dir.parent / "outside")}

    def check(file: str, message: str) -> None:
        with pytest.raises(ModelLoadError) as caught:
            load_model(models_dir, "m")
        told = str(caught.value)
        begin = re.sub(r"\{\w+\}", lambda place: places[place[0]], message)
        assert told.startswith(f"model m@1: {models_dir / 'm' / '1' / file}: {begin}")
        assert "\n" not in told
        assert "onnxruntime_src" not in told
        assert len(told) < 700
        assert (caught.value.name, caught.value.version, caught.value.__cause__) == ("m", "1", None)
        assert capfd.readouterr() == ("", "")

    return check
