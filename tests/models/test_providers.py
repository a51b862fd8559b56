"""Execution providers: what is there, and what is told where it is not."""

from __future__ import annotations

import onnxruntime
import pytest
from support.onnx_factory import affine, write_model

from modelstream.models.contract import ContractBreach
from modelstream.models.errors import ConfigError
from modelstream.models.loading import load_model
from modelstream.models.providers import find_provider, provider_chain, why_not_started
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


def test_a_failure_of_the_device_is_told_without_the_cpp_around_it():
    class Failing:
        def run(self, *_):
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Gemm node. Name:'' Status "
                "Message: CUBLAS failure 14: CUBLAS_STATUS_INTERNAL_ERROR ; GPU=0 ; hostname=h ; file=math.cc ; line=1"
            )

    with pytest.raises(ContractBreach) as caught:
        run_session(Failing(), ["value"], {})
    assert str(caught.value) == "ONNX Runtime: CUBLAS failure 14: CUBLAS_STATUS_INTERNAL_ERROR"


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path):
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))

    def missing(_):
        raise OSError("libcublasLt.so.13: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("ctypes.CDLL", missing)
    why = "libcublasLt.so.13 is not there; install onnxruntime-gpu[cuda,cudnn]"
    assert why_not_started("CUDAExecutionProvider") == why
    assert why_not_started("OpenVINOExecutionProvider").startswith("its libraries or its device are missing; see https")


def test_float32_is_no_tf32_on_cuda():
    assert dict(provider_chain("CUDAExecutionProvider", []))["CUDAExecutionProvider"]["use_tf32"] == "0"
