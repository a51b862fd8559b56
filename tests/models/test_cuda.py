"""The CUDA provider, on a machine that has one: predictions, threads, deadlines, rows that fail."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from onnx import helper
from support.onnx_factory import build, convolution, mlp, patient, stumbling, write_model

from modelstream.models.check import check_model
from modelstream.models.contract import ContractBreach
from modelstream.models.fixed_sizes import FixedSizes
from modelstream.models.session import open_session, run_session
from modelstream.models.watchdog import CallTimeout

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="the installed onnxruntime has no CUDA provider; install onnxruntime-gpu[cuda,cudnn] in its place",
)


@pytest.mark.parametrize(("onnx", "width"), [(mlp((64, 512, 512, 1)), 64), (convolution(), 256)], ids=["mlp", "cnn"])
def test_predictions_are_the_same_on_both_and_in_every_batch(onnx, width):
    X = np.random.default_rng(0).normal(size=(1024, width)).astype(np.float32)
    [expected] = run_session(open_session(onnx), ["value"], {"x": X})
    session = open_session(onnx, "cuda")
    scale = float(np.abs(expected).max())
    for size in (1, 7, 64, 1024):
        parts = [run_session(session, ["value"], {"x": X[i : i + size]})[0] for i in range(0, 64 * size, size)[:64]]
        predicted = np.concatenate(parts)
        assert_allclose(predicted, expected[: len(predicted)], rtol=0, atol=1e-5 * scale)


def test_a_check_on_cuda_finds_nothing_wrong(models_dir):
    write_model(models_dir, "m", convolution(), '[inputs.x]\nfield = "x"\n')
    report = check_model(models_dir, "m", provider="cuda")
    assert report.problems == ()
    assert report.price is not None


def test_convolutions_meet_few_numbers_of_rows():
    assert isinstance(open_session(convolution(), "cuda"), FixedSizes)
    assert not isinstance(open_session(mlp(), "cuda"), FixedSizes)


def test_without_a_device_one_line_says_so(models_dir):
    write_model(models_dir, "m", mlp(), '[inputs.x]\nfield = "x"\n')
    command = [sys.executable, "-m", "modelstream", "models", "check", "m", "--provider", "cuda"]
    told = subprocess.run(
        [*command, "--models-dir", models_dir],
        capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (2, "")
    [line] = told.stderr.splitlines()
    assert "cannot load it: CUDA failure 100: no CUDA-capable device is detected; on the CPU it loads" in line


def test_threads_may_call_one_session_at_once():
    session = open_session(mlp(), "cuda")
    X = np.random.default_rng(0).normal(size=(400, 50, 20)).astype(np.float32)
    alone = [run_session(session, ["value"], {"x": x})[0] for x in X]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: run_session(session, ["value"], {"x": x})[0], X))
    assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_a_late_call_is_stopped_and_the_next_one_works():
    session = open_session(patient(), "cuda")
    for _ in range(2):
        with pytest.raises(CallTimeout):
            run_session(session, ["value"], {"x": np.array([[1e12]], np.float32)}, 0.2)
        assert run_session(session, ["value"], {"x": np.array([[3]], np.float32)}, 60.0)[0].tolist() == [[3]]


def test_a_call_that_fails_leaves_the_next_one_alone():
    session = open_session(stumbling(), "cuda")
    for _ in range(3):
        assert run_session(session, ["value"], {"x": np.array([[1], [3]])})[0].tolist() == [[1], [3]]
        with pytest.raises(ContractBreach, match=r"^ONNX Runtime: "):
            run_session(session, ["value"], {"x": np.array([[3], [5]])})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "string"])
def test_every_type_goes_through(dtype, models_dir):
    shape = (dtype, [None, 1])
    onnx = build([helper.make_node("Identity", ["x"], ["value"])], {"x": shape}, {"value": shape}).SerializeToString()
    values = ["a", "b", "é"] if dtype == "string" else [0, 1, 1]
    X = np.array(values, object if dtype == "string" else dtype)[:, None]
    assert run_session(open_session(onnx, "cuda"), ["value"], {"x": X})[0].tolist() == X.tolist()
