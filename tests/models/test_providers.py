"""Execution providers: what is there, what is told where it is not, and the path through bound memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from onnx import helper
from support.onnx_factory import affine, build, mlp, run_plain, write_model

from modelstream.models.binding import BoundSession
from modelstream.models.contract import ContractBreach
from modelstream.models.errors import ConfigError
from modelstream.models.loading import load_model
from modelstream.models.providers import find_provider, provider_chain
from modelstream.models.session import open_session, run_session


def test_the_cpu_is_always_there():
    session = open_session(affine([1, 2]), "cpu")
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
@pytest.mark.parametrize(
    ("provider", "hint"),
    [
        ("cuda", "; install onnxruntime-gpu[cuda,cudnn] in place of the package onnxruntime"),
        ("openvino", "; install onnxruntime-openvino in place of the package onnxruntime"),
        ("dnnl", "; ONNX Runtime has to be built with it"),
        ("cud", "; did you mean 'cuda'?"),
        ("CPU", ""),
    ],
)
def test_a_provider_that_is_not_there_is_told_with_those_that_are(models_dir, provider, hint):
    write_model(models_dir, "m", affine([1, 2]))
    with pytest.raises(ConfigError) as caught:
        load_model(models_dir, "m", provider=provider, path="stages[1].infer.models[0]")
    has = f"the installed onnxruntime {onnxruntime.__version__} has cpu{hint}"
    assert str(caught.value) == f"stages[1].infer.models[0]: no execution provider {provider!r}: {has}"


def test_nodes_that_a_provider_does_not_know_run_elsewhere():
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [name for name, _ in provider_chain("TensorrtExecutionProvider", available)] == available
    assert provider_chain("CPUExecutionProvider", available) == [("CPUExecutionProvider", {})]
    assert dict(provider_chain("CUDAExecutionProvider", available))["CUDAExecutionProvider"]


def test_every_short_name_is_understood():
    for name in onnxruntime.get_available_providers():
        if name != "AzureExecutionProvider":
            assert find_provider(name.removesuffix("ExecutionProvider").lower()) == name


def _identity(dtype: str) -> bytes:
    node = helper.make_node("Identity", ["x"], ["value"])
    shape: tuple[str, list[Any]] = (dtype, [None, 1])
    return build([node], {"x": shape}, {"value": shape}).SerializeToString()


@pytest.mark.parametrize("n_rows", [1, 7, 1000])
def test_bound_memory_gives_the_same_as_a_plain_call(n_rows):
    onnx = mlp()
    bound = BoundSession(open_session(onnx))
    X = np.random.default_rng(0).normal(size=(n_rows, 20)).astype(np.float32)
    [value] = run_session(bound, ["value"], {"x": X})
    assert_array_equal(value, run_plain(onnx, {"x": X})[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "string"])
def test_every_type_goes_through_bound_memory(dtype):
    values = ["a", "b", "é"] if dtype == "string" else [0, 1, 1]
    X = np.array(values, object if dtype == "string" else dtype)[:, None]
    [value] = run_session(BoundSession(open_session(_identity(dtype))), ["value"], {"x": X})
    assert_array_equal(value, X)


def test_results_in_bound_memory_outlive_the_call():
    bound = BoundSession(open_session(affine([1])))
    results = [run_session(bound, ["value"], {"x": np.full((3, 1), i, np.float32)})[0] for i in range(50)]
    assert [int(value[0, 0]) for value in results] == list(range(50))


def test_an_error_in_bound_memory_is_one_line():
    bound = BoundSession(open_session(affine([1, 2])))
    with pytest.raises(ContractBreach, match=r"^ONNX Runtime: (?!Error in execution)") as caught:
        run_session(bound, ["value"], {"x": np.zeros((1, 3), np.float32)})
    assert "onnxruntime_src" not in str(caught.value)
    with pytest.raises(ContractBreach):
        run_session(bound, ["value"], {"y": np.zeros((1, 2), np.float32)})
