"""Execution providers, what ONNX Runtime computes on, by short names such as cpu, cuda, tensorrt and openvino."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["find_provider", "provider_chain"]

_SUFFIX = "ExecutionProvider"

#: What to install in the place of `onnxruntime`; of the others there are no ready packages.
_PACKAGES: Mapping[str, str] = {
    "cann": "onnxruntime-cann",
    "coreml": "onnxruntime on macOS",
    "cuda": "onnxruntime-gpu",
    "dml": "onnxruntime-directml, on Windows",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
    "qnn": "onnxruntime-qnn",
    "rocm": "onnxruntime-rocm",
    "tensorrt": "onnxruntime-gpu and TensorRT",
}

#: Sends what it is given to a service on the network, and stands in every package.
_NOT_OFFERED = {"azure"}

#: By default cuDNN tries every algorithm at the first call of each shape, which takes seconds, and the number of rows
#: changes from batch to batch (microsoft/onnxruntime issues 10746 and 19838).
_OPTIONS: Mapping[str, Mapping[str, str]] = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC"}}


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
    import onnxruntime  # not at the top: see `open_session`

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


def _by_short_name(names: list[str]) -> dict[str, str]:
    short = {name.removesuffix(_SUFFIX).lower(): name for name in names}
    return {key: name for key, name in short.items() if key not in _NOT_OFFERED}
