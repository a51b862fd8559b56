"""``modelstream graph``: a pipeline drawn from its file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from support.onnx_factory import affine, write_model


def test_text_by_default_with_the_versions_that_are_there(run: Callable, nowhere_file: Path) -> None:  # type: ignore[type-arg]
    done = run("graph", nowhere_file)
    assert done.returncode == 0, done.stderr
    assert "  └─ arrival_delay\n" in done.stdout  # no models folder
    write_model(nowhere_file.parent / "models", "arrival_delay", affine([1]), version="2")
    assert "  └─ arrival_delay@2\n" in run("graph", nowhere_file).stdout
    assert "  └─ other@9\n" in run("graph", nowhere_file, "--set", "stages[0].infer.models=[other@9]").stdout


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["-o", "drawn.svg"], "<svg"),
        (["-o", "drawn.mmd"], "flowchart TB\n"),
        (["-o", "drawn.md"], "```mermaid\nflowchart TB\n"),
        (["-o", "drawn.txt"], "trial\n├─ source "),
        (["-o", "drawn.svg", "--format", "text"], "trial\n├─ source "),
    ],
)
def test_a_file_is_in_the_format_of_its_name(
    run: Callable,  # type: ignore[type-arg]
    nowhere_file: Path,
    options: list[str],
    start: str,
) -> None:
    file = nowhere_file.parent / options[1]
    done = run("graph", nowhere_file, "-o", file, *options[2:])
    assert (done.returncode, done.stdout) == (0, "")
    assert file.read_text("utf-8").startswith(start)
    if start == "<svg":
        ET.parse(file)


def test_a_name_of_another_format_needs_one_that_is_named(run: Callable, nowhere_file: Path) -> None:  # type: ignore[type-arg]
    file = nowhere_file.parent / "drawn.png"
    done = run("graph", nowhere_file, "-o", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'.png' is no format of a graph; end the name in .txt, .mmd, .md or .svg, or add --format" in done.stderr
    assert not file.exists()
    assert run("graph", nowhere_file, "-o", file, "--format", "text").returncode == 0
    assert file.read_text("utf-8").startswith("trial\n")


def test_what_goes_wrong_is_one_line(run: Callable, nowhere_file: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    done = run("graph", nowhere_file, "-o", tmp_path / "missing" / "x.svg")
    assert done.returncode == 2
    assert "no folder" in done.stderr and done.stderr.count("\n") == 1
    assert run("graph", tmp_path / "none.yaml").returncode == 2
    assert run("graph", nowhere_file, "--format", "png").returncode == 2
