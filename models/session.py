"""ONNX Runtime sessions as this engine wants them: one thread, no spinning, nothing on stderr, errors of one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from modelstream.models.contract import ContractBreach
from modelstream.models.external_data import refuse_external_data

__all__ = ["open_session", "run_session"]

#: Above ERROR: a failing row is reported once, by us, and not on stderr for every row too.
_LOG_FATAL = 4

#: Characters of an ONNX Runtime message that are passed on.
_MESSAGE_CHARS = 300


def open_session(content: bytes) -> Any:
    """Return an inference session on the CPU for an ONNX file.

    One thread runs a call from end to end: workers scale by processes and partitions, and a pool of spinning threads
    in each would cost them up to twice the time on a busy machine.

    Parameters
    ----------
    content : bytes
        The ONNX file.

    Raises
    ------
    ContractBreach
        If ONNX Runtime cannot load it, or if it is not whole in itself.
    """
    # Imported here: producing, consuming and --help need no inference, and it takes 60 ms and 20 MB.
    import onnxruntime

    if not content:
        raise ContractBreach("is empty; export the model again")
    refuse_external_data(content)
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
    try:
        # The fallback would print to stdout, which is for predictions, and then run into the same error again.
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
        # Names that are no UTF-8 raise only when they are looked at, so look at all of them now.
        for tensor in (*session.get_inputs(), *session.get_outputs()):
            str(tensor)
    except Exception as error:
        raise ContractBreach(
            f"ONNX Runtime {onnxruntime.__version__} cannot load it: {_first_line(error)}; export the model again"
        ) from None
    return session


def run_session(session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Run a session.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The session.
    outputs : sequence of str
        Tensors to return.
    feed : mapping of str to ndarray
        Every input tensor.

    Raises
    ------
    ContractBreach
        With the first line of the message, if ONNX Runtime fails.
    """
    try:
        results: list[Any] = session.run(outputs, feed)
    # The binding raises classes that have no base of their own, and ValueError, RuntimeError, UnicodeEncodeError.
    except Exception as error:
        raise ContractBreach(f"ONNX Runtime: {_first_line(error)}") from error
    return results


def _first_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without its code, source file and C++ signature."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", str(error).strip() or type(error).__name__)
    line = re.sub(r"/\S+:\d+ .*?\) ", "", text.splitlines()[0])
    return line.rstrip(" .")[:_MESSAGE_CHARS]
