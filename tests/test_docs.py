"""Every example in a docstring is run, and says the truth."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import modelstream

MODULES = ["modelstream", *(module.name for module in pkgutil.walk_packages(modelstream.__path__, "modelstream."))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", sorted(MODULES))
def test_examples_in_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert failed == 0  # doctest has printed which, and what came instead


def test_the_examples_are_found():
    tests = doctest.DocTestFinder().find(importlib.import_module("modelstream.models.errors"))
    assert any("did_you_mean" in test.name and test.examples for test in tests)
