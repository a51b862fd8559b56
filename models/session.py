"""ONNX Runtime sessions as this engine wants them: one thread, no spinning, nothing on stderr, errors of one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ContractBreach
from modelstream.models.external_data import refuse_external_data
from modelstream.models.fitting import takes_single_rows
from modelstream.models.fixed_sizes import FixedSizes, has_convolutions
from modelstream.models.providers import find_provider, load_libraries, provider_chain, why_not_started
from modelstream.models.watchdog import within

__all__ = ["open_session", "run_rows", "run_session"]

#: Above ERROR: a failing row is reported once, by us, and not on stderr for every row too.
_LOG_FATAL = 4

#: Characters of an ONNX Runtime message that are passed on.
_MESSAGE_CHARS = 300


def open_session(content: bytes, provider: str = "cpu") -> Any:
    """Return an inference session for an ONNX file.

    On the CPU one thread runs a call from end to end: workers scale by processes and partitions, and a pool of spinning
    threads in each would cost them up to twice the time on a busy machine.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    provider : str, optional
        What it runs on, such as ``cuda``. Nodes that the provider does not know run on the CPU.

    Returns
    -------
    onnxruntime.InferenceSession or FixedSizes
        The session.

    Raises
    ------
    ConfigError
        If the installed ONNX Runtime has no such provider.
    ContractBreach
        If ONNX Runtime cannot load it, or if it is not whole in itself, or the provider does not start.
    """
    wanted = find_provider(provider)
    if not content:
        raise ContractBreach("is empty; export the model again")
    refuse_external_data(content)
    load_libraries(wanted)
    session = _open(content, provider, wanted)
    if wanted == "CUDAExecutionProvider" and has_convolutions(content) and not takes_single_rows(session.get_inputs()):
        return FixedSizes(session, partial(_open, content, provider, wanted))
    return session


def _open(content: bytes, provider: str, wanted: str) -> Any:
    """Return a session on the provider that ONNX Runtime calls `wanted`."""
    # Not at the top: producing, consuming and --help need no inference, and it takes 60 ms and 20 MB.
    import onnxruntime

    options = _options(onnxruntime)
    providers = provider_chain(wanted, onnxruntime.get_available_providers())
    # It goes on without a provider whose libraries are not there, and logs it; below that is an error.
    onnxruntime.set_default_logger_severity(_LOG_FATAL)
    try:
        # The fallback would print to stdout, which is for predictions, and then run into the same error again.
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=False)
        # Names that are no UTF-8 raise only when they are looked at, so look at all of them now.
        for tensor in (*session.get_inputs(), *session.get_outputs()):
            str(tensor)
    except Exception as error:
        hint = "export the model again"
        if provider != "cpu":
            _open(content, "cpu", "CPUExecutionProvider")  # What is wrong with the model itself is told as ever.
            hint = f"on the CPU it loads; the cause is the device, or what {provider!r} cannot do"
        raise ContractBreach(
            f"ONNX Runtime {onnxruntime.__version__} cannot load it: {_first_line(error)}; {hint}"
        ) from None
    if session.get_providers()[0] != wanted:
        problem = f"the execution provider {provider!r} does not start: {why_not_started(wanted)}"
        raise ContractBreach(f"{problem}, or choose another provider")
    return session


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_FATAL
    # A pattern is kept for every batch size ever seen, some 20 kB each, and made no call measurably faster.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Bytes are never taken for ONNX Runtime's own format, which is loaded with fewer checks.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def run_session(
    session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], timeout_s: float | None = None
) -> list[Any]:
    """Run a session.

    Parameters
    ----------
    session : onnxruntime.InferenceSession or FixedSizes
        The session.
    outputs : sequence of str
        Tensors to return.
    feed : mapping of str to ndarray
        Every input tensor.
    timeout_s : float, optional
        Seconds after which the call is stopped, before the next node of the graph.

    Raises
    ------
    ContractBreach
        With the first line of the message, if ONNX Runtime fails.
    CallTimeout
        If it takes longer.
    """
    if timeout_s is None:
        return _call(session, outputs, feed)
    if isinstance(session, FixedSizes):
        session.prepare(outputs, feed)  # before the clock starts: it happens once for each size
    with within(timeout_s) as options:
        return _call(session, outputs, feed, options)


def run_rows(
    session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], timeout_s: float | None = None
) -> list[Any]:
    """Run a session that takes one row at a time on each row of a feed.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The session.
    outputs : sequence of str
        Tensors to return.
    feed : mapping of str to ndarray
        Every input tensor, with one row or more.
    timeout_s : float, optional
        Seconds after which the rows together are stopped.

    Raises
    ------
    ContractBreach
        If ONNX Runtime fails on a row, or an output has another shape for each row.
    CallTimeout
        If it takes longer.
    """
    n_rows = len(next(iter(feed.values())))
    rows = [{name: array[row : row + 1] for name, array in feed.items()} for row in range(n_rows)]
    if timeout_s is None:
        results = [_call(session, outputs, row) for row in rows]
    else:
        with within(timeout_s) as options:
            results = [_call(session, outputs, row, options) for row in rows]
    return [_joined(name, parts) for name, parts in zip(outputs, zip(*results, strict=True), strict=True)]


def _joined(name: str, parts: Sequence[Any]) -> Any:
    """Return one output of all rows."""
    if isinstance(parts[0], list):  # a ZipMap: one dict for each row
        return list(chain.from_iterable(parts))
    try:
        return np.concatenate(parts)
    except ValueError:
        shapes = " and ".join(sorted({str(part.shape) for part in parts}))
        raise ContractBreach(f"output {name!r} of a single row is of shape {shapes}; rows cannot be joined") from None


def _call(session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
    try:
        results: list[Any] = session.run(outputs, feed, options)
    # It raises classes that have no base of their own, and ValueError, RuntimeError, UnicodeEncodeError.
    except Exception as error:
        raise ContractBreach(f"ONNX Runtime: {_first_line(error)}") from error
    return results


def _first_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without its code, source file and C++ signature."""
    text = re.sub(
        r"^(\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Error in execution: )",
        "",
        str(error).strip() or type(error).__name__,
    )
    line = re.sub(r"/\S+:\d+ .*?\) ", "", text.splitlines()[0])
    # Of CUDA's and cuDNN's failures: what was called, in C++, stands before and after.
    failure = re.search(r"(CUDA|CUDNN|CUBLAS) failure \d+: [^;]+", line)
    line = failure[0] if failure else line
    return line.rstrip(" .")[:_MESSAGE_CHARS]
