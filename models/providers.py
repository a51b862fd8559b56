"""Execution providers, what ONNX Runtime computes on, by short names such as cpu, cuda, tensorrt and openvino."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["find_provider", "load_libraries", "provider_chain", "why_not_started"]

_SUFFIX = "ExecutionProvider"

#: What to install in the place of `onnxruntime`; of the others there are no ready packages.
_PACKAGES: Mapping[str, str] = {
    "cann": "onnxruntime-cann",
    "coreml": "onnxruntime on macOS",
    "cuda": "onnxruntime-gpu[cuda,cudnn]",
    "dml": "onnxruntime-directml, on Windows",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
    "qnn": "onnxruntime-qnn",
    "rocm": "onnxruntime-rocm",
    "tensorrt": "onnxruntime-gpu[cuda,cudnn] and TensorRT",
}

#: Sends what it is given to a service on the network, and stands in every package.
_NOT_OFFERED = {"azure"}

#: By default cuDNN tries every algorithm at the first call of each shape, which takes seconds, and the number of rows
#: changes from batch to batch (microsoft/onnxruntime issues 10746 and 19838). And by default float32 is multiplied as
#: TF32, with 10 bits of mantissa, by kernels that depend on the number of rows.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
}

#: Providers that need the libraries of CUDA and cuDNN.
_ON_CUDA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def find_provider(provider: str, path: str = "") -> str:
    """Return ONNX Runtime's name of a provider that the installed package has.

    Parameters
    ----------
    provider : str
        The short name, such as ``cuda``.
    path : str, optional
        Where it stands, for the error.

    Raises
    ------
    ConfigError
        If the installed package does not have it; the message names those that it has, and what to install.

    Examples
    --------
    >>> find_provider("cpu")
    'CPUExecutionProvider'
    """
    import onnxruntime  # not at the top: see `session._open`

    there = _by_short_name(onnxruntime.get_available_providers())
    if provider in there:
        return there[provider]
    package = _PACKAGES.get(provider)
    known = {*_by_short_name(onnxruntime.get_all_providers()), *_PACKAGES}
    if package is not None:
        hint = f"; install {package} in place of the package onnxruntime"
    elif provider in known:
        hint = "; ONNX Runtime has to be built with it"
    else:
        # Else the word is closest to webgpu, which hardly anybody means.
        hint = "; did you mean 'cuda'?" if provider == "gpu" else did_you_mean(provider, known)
    problem = f"no execution provider {provider!r}: the installed onnxruntime {onnxruntime.__version__} has"
    raise ConfigError(path, f"{problem} {', '.join(sorted(there))}{hint}")


def provider_chain(name: str, available: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return a provider with its options, then those that take the nodes which it does not know.

    Parameters
    ----------
    name : str
        ONNX Runtime's name.
    available : list of str
        What the installed package has.

    Examples
    --------
    >>> [one for one, _ in provider_chain("CUDAExecutionProvider", ["CPUExecutionProvider", "CUDAExecutionProvider"])]
    ['CUDAExecutionProvider', 'CPUExecutionProvider']
    """
    between = ["CUDAExecutionProvider"] if name == "TensorrtExecutionProvider" else []
    chain = dict.fromkeys([name, *(one for one in between if one in available), "CPUExecutionProvider"])
    return [(one, dict(_OPTIONS.get(one, {}))) for one in chain]


def load_libraries(name: str) -> None:
    """Load what a provider needs of NVIDIA's Python packages; the linker does not look for libraries there.

    Parameters
    ----------
    name : str
        ONNX Runtime's name.
    """
    if name in _ON_CUDA:
        import onnxruntime

        # It prints what is missing, and stdout is for predictions; `why_not_started` says it.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


def why_not_started(name: str) -> str:
    """Return what a provider that did not start lacks, for a person.

    Parameters
    ----------
    name : str
        ONNX Runtime's name.
    """
    import onnxruntime

    short = name.removesuffix(_SUFFIX).lower()
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        missing = str(error)
        if library.is_file() and "cannot open shared object file" in missing:
            return f"{missing.partition(':')[0]} is not there; install {_PACKAGES.get(short, 'it')}"
    return "its libraries or its device are missing; see https://onnxruntime.ai/docs/execution-providers"


def _by_short_name(names: list[str]) -> dict[str, str]:
    short = {name.removesuffix(_SUFFIX).lower(): name for name in names}
    return {key: name for key, name in short.items() if key not in _NOT_OFFERED}
