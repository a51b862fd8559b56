"""Files that are missing, cut, changed, too large or not where they seem: one line each that says what and where."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ModelLoadError
from modelstream.models.loading import load_model

ONNX = affine([1, 2])


def _replace(content: bytes) -> Callable[[Path], None]:
    """Replace the ONNX file and its digest."""

    def harm(directory: Path) -> None:
        (directory / "model.onnx").write_bytes(content)
        toml = directory / "model.toml"
        toml.write_text(re.sub("[0-9a-f]{64}", hashlib.sha256(content).hexdigest(), toml.read_text()))

    return harm


def _flip_a_bit(directory: Path) -> None:
    content = bytearray(ONNX)
    content[len(content) // 2] ^= 1
    (directory / "model.onnx").write_bytes(content)


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda directory: os.truncate(directory / name, size)


def _remove(name: str, instead: Callable[[Path], object] | None = None) -> Callable[[Path], None]:
    def harm(directory: Path) -> None:
        (directory / name).unlink()
        if instead:
            instead(directory / name)

    return harm


def _move_out(name: str) -> Callable[[Path], None]:
    """Move a file, or the version itself, out of the directory of models, and leave a link behind."""

    def harm(directory: Path) -> None:
        outside = directory.parents[2] / "outside"
        (directory / name).rename(outside)
        (directory / name).symlink_to(outside)

    return harm


CANNOT = (
    "ONNX Runtime {ort} cannot load it: Failed to load model because protobuf parsing failed; export the model again"
)
LINK = "is a link out of {dir}, to {out}"

CASES = {
    "no onnx": (_remove("model.onnx"), "model.onnx", "is not there; a model version is model.onnx and model.toml"),
    "no toml": (_remove("model.toml"), "model.toml", "is not there; a model version is"),
    "flipped bit": (_flip_a_bit, "model.onnx", "has SHA-256 "),
    "truncated": (_cut("model.onnx", 40), "model.onnx", "has SHA-256 "),
    "empty": (_cut("model.onnx", 0), "model.onnx", "is empty; export the model again"),
    "empty, right digest": (_replace(b""), "model.onnx", "is empty; export the model again"),
    "truncated, right digest": (_replace(ONNX[:-1]), "model.onnx", CANNOT),
    "garbage, right digest": (_replace(b"garbage" * 99), "model.onnx", CANNOT),
    "zeros, right digest": (_replace(bytes(99)), "model.onnx", CANNOT),
    "not unicode, right digest": (
        _replace(ONNX.replace(b"value", b"val\xffe")),
        "model.onnx",
        "ONNX Runtime {ort} cannot load it: 'utf-8' codec can't decode byte 0xff",
    ),
    "git LFS, right digest": (
        _replace(b"version https://a/location"),
        "model.onnx",
        "not an ONNX file: broken protobuf",
    ),
    "directory": (_remove("model.onnx", Path.mkdir), "model.onnx", "is not a regular file"),
    "fifo": (_remove("model.onnx", os.mkfifo), "model.onnx", "is not a regular file"),
    "link out": (_move_out("model.onnx"), "model.onnx", f"{LINK}; put the file itself there"),
    "toml is a link out": (_move_out("model.toml"), "model.toml", LINK),
    "version is a link out": (_move_out(""), "model.toml", LINK),
    "loop of links": (_remove("model.onnx", lambda path: path.symlink_to(path)), "model.onnx", "cannot be read: "),
    "toml too large": (_cut("model.toml", 2**20 + 1), "model.toml", "has 1,048,577 bytes, over the limit of 1,048,576"),
    "toml not TOML": (lambda d: (d / "model.toml").write_text("x ="), "model.toml", "not TOML: "),
    "toml is ONNX": (lambda d: (d / "model.toml").write_bytes(b"\x08\xff"), "model.toml", "not UTF-8 text: byte 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_one_clear_line(models_dir, assert_told, case):
    harm, file, message = CASES[case]
    harm(write_model(models_dir, "m", ONNX))
    assert_told(file, message)


def test_both_digests_are_told(models_dir, assert_told):
    _flip_a_bit(write_model(models_dir, "m", ONNX))
    changed = hashlib.sha256((models_dir / "m" / "1" / "model.onnx").read_bytes()).hexdigest()
    right = hashlib.sha256(ONNX).hexdigest()
    hint = "it was changed or not copied whole; copy it again, or publish it as a new version"
    assert_told("model.onnx", f"has SHA-256 {changed}, but model.toml says {right}: {hint}")


def test_over_the_size_cap(models_dir):
    write_model(models_dir, "m", ONNX)
    size = len(ONNX)
    with pytest.raises(
        ModelLoadError, match=rf"has {size} bytes, over the limit of {size - 1}; raise max_bytes if it is"
    ):
        load_model(models_dir, "m", max_bytes=size - 1)


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        ("other", "1", "name: is 'm', but the directory says 'other'"),
        ("m", "2", "version: is '1', but the directory says"),
    ],
)
def test_the_directory_of_another_model(models_dir, name, version, told):
    directory = write_model(models_dir, "m", ONNX)
    (models_dir / name).mkdir(exist_ok=True)
    directory.rename(models_dir / name / version)
    with pytest.raises(ModelLoadError, match=rf"model\.toml: {told}"):
        load_model(models_dir, name)


def test_a_file_that_may_not_be_read(models_dir, assert_told):
    file = write_model(models_dir, "m", ONNX) / "model.onnx"
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    assert_told("model.onnx", "cannot be read: Permission denied")
