from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from modelstream.models.errors import ConfigError
from modelstream.models.registry import ModelVersion, find_version, list_models, version_key

ASCENDING = ["0.9", "1", "1.0.0-2", "1.0.0-10", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0", "1.2", "1.10.0", "2", "9", "10"]


@pytest.fixture
def registry(models_dir: Path) -> Path:
    for version in ("1", "9", "10", "0", "latest", ".tmp", "1.bak", "01"):
        (models_dir / "arrival_delay" / version).mkdir(parents=True)
    (models_dir / "arrival_delay" / "99").write_text("a file")
    (models_dir / "air.time" / "1.2.0").mkdir(parents=True)
    (models_dir / "empty").mkdir()
    (models_dir / ".hidden" / "1").mkdir(parents=True)
    return models_dir


def test_versions_are_ordered_by_number():
    ascending = [version for version in ASCENDING if version != "1"]
    shuffled = random.Random(0).sample(ascending, len(ascending))
    assert sorted(shuffled, key=version_key) == ascending
    assert sorted(["1.0", "1"], key=version_key) == sorted(["1", "1.0"], key=version_key)


def test_only_what_is_named_like_a_model_counts(registry):
    assert list_models(registry) == {"air.time": ("1.2.0",), "arrival_delay": ("1", "9", "10")}


def test_a_bare_name_means_the_highest_version(registry):
    assert find_version(registry, "arrival_delay") == ModelVersion(
        "arrival_delay", "10", registry / "arrival_delay" / "10"
    )
    assert find_version(registry, "arrival_delay@9").version == "9"


def test_a_misspelt_name_is_told_with_its_place_and_the_closest(registry):
    with pytest.raises(ConfigError) as caught:
        find_version(registry, "arrival_dely", "stages[1].infer.models[0]")
    assert str(caught.value) == (
        f"stages[1].infer.models[0]: no model 'arrival_dely' in registry {registry}/; did you mean 'arrival_delay'?"
    )


def test_an_unknown_name_is_told_with_what_there_is(registry):
    with pytest.raises(ConfigError, match=re.escape("no model 'zzz'") + ".*it has air.time, arrival_delay$"):
        find_version(registry, "zzz")


def test_a_model_without_versions_is_none(registry):
    with pytest.raises(ConfigError, match=r"model 'empty' has no version in registry .* as empty/1/model.onnx"):
        find_version(registry, "empty")


def test_an_unknown_version_is_told_with_those_there_are(registry):
    with pytest.raises(ConfigError, match=r"model 'arrival_delay' has no version '2' in registry .*; it has 1, 9, 10$"):
        find_version(registry, "arrival_delay@2")


TRAVERSAL = ["../x", "a/../../x", "/etc", "a/b", "..", ".hidden", "a@../1", "a@1/..", "a\0"]
MALFORMED = ["", "@1", "a@", "a@latest", "a@1@2", "a b", "a\n", "a@1\n", "é", "a" * 200, "a@１"]


@pytest.mark.parametrize("reference", [*TRAVERSAL, *MALFORMED])
def test_what_is_no_reference_never_reaches_the_file_system(registry, reference):
    with pytest.raises(ConfigError, match="is no model reference; write NAME or NAME@VERSION"):
        find_version(registry, reference)


def test_a_missing_directory(models_dir):
    with pytest.raises(ConfigError, match=r"^here: the directory of models .*/nowhere is not there$"):
        find_version(models_dir / "nowhere", "m", "here")
    (models_dir / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        find_version(models_dir / "file", "m")
