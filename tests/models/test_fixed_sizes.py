"""Calls that are padded to a few sizes, each with a session of its own; on the CPU, which does not need it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper
from support.onnx_factory import affine, build, convolution, mlp, stumbling

from modelstream.models import session as session_module
from modelstream.models.contract import ContractBreach
from modelstream.models.fixed_sizes import FixedSizes, has_convolutions
from modelstream.models.session import open_session, run_session
from modelstream.models.watchdog import CallTimeout


class Sessions:
    """Opens sessions of a model, and knows the numbers of rows that each of them was called with."""

    def __init__(self, onnx: bytes) -> None:
        self._onnx = onnx
        self.sizes: list[list[int]] = []

    def __call__(self) -> Any:
        return Recorded(open_session(self._onnx), self.sizes)


class Recorded:
    def __init__(self, session: Any, sizes: list[list[int]]) -> None:
        self._session = session
        self._sizes: list[int] = []
        sizes.append(self._sizes)

    def run(self, outputs: Any, feed: Any, options: Any = None) -> Any:
        self._sizes.append(len(next(iter(feed.values()))))
        return self._session.run(outputs, feed, options)


def fixed(onnx: bytes) -> tuple[FixedSizes, list[list[int]]]:
    sessions = Sessions(onnx)
    return FixedSizes(sessions(), sessions), sessions.sizes


def test_no_session_meets_two_sizes_and_predictions_are_the_rows_own():
    onnx = mlp()
    session, sizes = fixed(onnx)
    plain = open_session(onnx)
    X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    for n_rows in (1, 5, 4, 3, 300, 17, 64, 65, 256, 2):
        [predicted] = run_session(session, ["value"], {"x": X[:n_rows]})
        [expected] = run_session(plain, ["value"], {"x": X[:n_rows]})
        assert_allclose(predicted, expected, rtol=1e-5, atol=1e-5)
    assert [set(one) for one in sizes] == [{4}, {16}, {512}, {64}, {128}, {256}]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "string"])
def test_every_type_is_padded_and_what_is_not_one_a_row_is_left_alone(dtype):
    nodes = [helper.make_node("Identity", ["x"], ["value"]), helper.make_node("Shape", ["x"], ["shape"])]
    shape: tuple[str, list[Any]] = (dtype, [None, 1])
    onnx = build(nodes, {"x": shape}, {"value": shape, "shape": ("int64", [2])}).SerializeToString()
    values = ["a", "b", "é"] if dtype == "string" else [0, 1, 1]
    X = np.array(values, object if dtype == "string" else dtype)[:, None]
    value, padded = run_session(fixed(onnx)[0], ["value", "shape"], {"x": X})
    assert_array_equal(value, X)
    assert padded.tolist() == [4, 1]


def test_what_is_longer_than_the_rows_is_left_alone():
    nodes = [helper.make_node("Identity", [one], [other]) for one, other in (("x", "value"), ("five", "other"))]
    X: tuple[str, list[Any]] = ("float32", [None, 1])
    outputs: dict[str, Any] = {"value": X, "other": ("int64", [5])}
    onnx = build(nodes, {"x": X}, outputs, {"five": np.arange(5)}).SerializeToString()
    _, other = run_session(fixed(onnx)[0], ["value", "other"], {"x": np.ones((3, 1), np.float32)})
    assert len(other) == 5


def test_threads_that_meet_a_size_at_once_open_one_session():
    onnx, opened = affine([1, 2]), []

    def open_slowly() -> Any:
        opened.append(1)
        time.sleep(0.05)
        return open_session(onnx)

    session = FixedSizes(open_session(onnx), open_slowly)
    run_session(session, ["value"], {"x": np.ones((1, 2), np.float32)})
    X = np.random.default_rng(0).normal(size=(50, 9, 2)).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        predicted = list(pool.map(lambda x: run_session(session, ["value"], {"x": x})[0], X))
    assert_allclose(predicted, X @ np.array([[1], [2]]), rtol=1e-5, atol=1e-5)
    assert len(opened) == 1


def test_a_size_for_which_there_is_no_room_uses_the_first_session_and_asks_once():
    asked = []

    def refuse() -> Any:
        asked.append(1)
        raise ContractBreach("cannot load it: out of memory")

    session = FixedSizes(open_session(affine([1, 2])), refuse)
    for n_rows in (1, 60, 61, 3):
        [value] = run_session(session, ["value"], {"x": np.ones((n_rows, 2), np.float32)})
        assert value.tolist() == [[3]] * n_rows
    assert len(asked) == 1


def test_rows_that_never_end_are_stopped_in_the_first_call_of_a_size_too():
    class Endless:
        def run(self, outputs: Any, feed: Any, options: Any = None) -> Any:
            for _ in range(3000 if feed["x"].any() else 0):
                if options is not None and options.terminate:
                    raise RuntimeError("terminated")
                time.sleep(0.01)
            return [np.ones((4, 1))]

    with pytest.raises(CallTimeout):
        run_session(FixedSizes(Endless(), lambda: None), ["value"], {"x": np.ones((2, 2), np.float32)}, 0.1)


def test_opening_a_session_is_not_held_against_a_call():
    onnx = affine([1])

    def open_slowly() -> Any:
        time.sleep(0.3)
        return open_session(onnx)

    session = FixedSizes(open_session(onnx), open_slowly)
    for n_rows in (1, 100):
        [value] = run_session(session, ["value"], {"x": np.full((n_rows, 1), 3, np.float32)}, 0.2)
        assert value.tolist() == [[3]] * n_rows


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_row_that_fails_is_told_and_the_next_call_answers(timeout_s):
    session, _ = fixed(stumbling())
    for _ in range(2):
        with pytest.raises(ContractBreach, match=r"^ONNX Runtime: .*broadcast"):
            run_session(session, ["value"], {"x": np.array([[3], [5]])}, timeout_s)
        assert run_session(session, ["value"], {"x": np.array([[1], [3]])})[0].tolist() == [[1], [3]]


def test_convolutions_are_found_in_the_file():
    transposed = helper.make_node("ConvTranspose", ["x", "k"], ["value"])
    shape: tuple[str, list[Any]] = ("float32", [None, 1, None, None])
    onnx = build([transposed], {"x": shape}, {"value": shape}, {"k": np.ones((1, 1, 3, 3), np.float32)})
    assert has_convolutions(convolution())
    assert has_convolutions(onnx.SerializeToString())
    assert not has_convolutions(mlp())


def test_only_convolutions_on_cuda_are_padded(monkeypatch):
    on_cpu = session_module._open
    monkeypatch.setattr(session_module, "find_provider", lambda _: "CUDAExecutionProvider")
    monkeypatch.setattr(session_module, "load_libraries", lambda _: None)
    monkeypatch.setattr(session_module, "_open", lambda content, *_: on_cpu(content, "cpu", "CPUExecutionProvider"))
    assert isinstance(open_session(convolution(), "cuda"), FixedSizes)
    assert not isinstance(open_session(mlp(), "cuda"), FixedSizes)
