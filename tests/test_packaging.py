"""What is installed: the linked folders under one name, with nothing missing and nothing beside it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shutil
import subprocess
import sys
import tarfile
import typing
from pathlib import Path
from zipfile import ZipFile

import pytest

import modelstream

ROOT = Path(__file__).parents[1]
LAYERS = ("models", "operators", "streams")
#: The folders that are part of the package by a link.
LINKED = sorted(path.name for path in (ROOT / "src" / "modelstream").iterdir() if path.is_symlink())
MODULES = sorted(module.name for module in pkgutil.walk_packages(modelstream.__path__, "modelstream."))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> tuple[list[str], str]:
    """Names in the wheel that is built from the source distribution, and its metadata."""
    work = tmp_path_factory.mktemp("build")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", *LINKED):
        leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=leave_out)
    _build("sdist", source, work)
    (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    _build("wheel", unpacked, work)
    (built,) = work.glob("*.whl")
    with ZipFile(built) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("/METADATA"))
        return names, archive.read(metadata).decode()


def _build(kind: str, folder: Path, target: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_every_module_and_data_file_of_the_linked_folders(wheel):
    names, _ = wheel
    assert set(LAYERS) <= set(LINKED)
    due = {
        f"modelstream/{path.relative_to(ROOT)}"
        for folder in LINKED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert due <= set(names)
    assert {"modelstream/__init__.py", "modelstream/__main__.py", "modelstream/py.typed"} <= set(names)


def test_nothing_stands_beside_the_one_package(wheel):
    names, _ = wheel
    top = {name.split("/")[0] for name in names}
    assert top == {"modelstream", f"modelstream-{modelstream.__version__}.dist-info"}


def test_the_wheel_says_its_licence_its_command_and_its_transport(wheel):
    names, metadata = wheel
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)


def test_python_dash_m_is_the_command():
    outputs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        for command in ([sys.executable, "-m", "modelstream"], [str(Path(sys.executable).with_name("modelstream"))])
    ]
    assert [done.returncode for done in outputs] == [0, 0]
    assert outputs[0].stdout == outputs[1].stdout
    assert modelstream.__version__ in outputs[0].stdout


@pytest.mark.parametrize("name", ["modelstream", *(f"modelstream.{layer}" for layer in LAYERS)])
def test_a_package_exports_its_public_names_and_no_others(name):
    package = importlib.import_module(name)
    exported = list(getattr(package, "__all__", []))
    assert all(hasattr(package, export) for export in exported)
    assert len(set(exported)) == len(exported)
    public = {key for key, value in vars(package).items() if not key.startswith("_") and not inspect.ismodule(value)}
    assert public - vars(typing).keys() - {"annotations"} <= set(exported)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_exports_what_it_defines(name):
    module = importlib.import_module(name)
    exported = set(getattr(module, "__all__", ()))
    assert all(hasattr(module, export) for export in exported)
    defined = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    }
    assert defined <= exported
