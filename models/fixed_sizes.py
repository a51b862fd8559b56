"""Convolutions on CUDA: calls are padded to a few sizes, each with a session of its own that meets no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ContractBreach

__all__ = ["FixedSizes", "has_convolutions"]

#: Up to here a size is four times the one before, since a call of few rows costs about the same whatever they are; then
#: it is twice the one before, so that at most half of a large call is computed in vain.
_SMALLEST, _COARSE_ROWS = 4, 64

#: How Conv and ConvTranspose begin in an ONNX file: the field op_type of a node, its length, its text.
_CONVOLUTIONS = (b'"\x04Conv', b'"\rConvTranspose')


def has_convolutions(content: bytes) -> bool:
    """Return whether an ONNX file has convolutions.

    Parameters
    ----------
    content : bytes
        The file. Weights that look like a node by chance make it true as well, which does no harm.
    """
    return any(mark in content for mark in _CONVOLUTIONS)


class FixedSizes:
    """A session that is called with 4, 16, 64, 128, 256, … rows only; others are padded with copies of the last one.

    ONNX Runtime plans a convolution anew whenever its shape is not that of the session's last call, and forgets the
    plans of all other shapes (microsoft/onnxruntime issue 23006). That takes ten times as long as a small call, and a
    micro-batch hardly ever has as many rows as the last. It may be called from several threads at once.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The first session of the model.
    open_another : callable
        Opens one more, or raises ContractBreach. The weights are in memory once for each size.
    """

    __slots__ = ("_first", "_lock", "_open", "_ready")

    def __init__(self, session: Any, open_another: Callable[[], Any]) -> None:
        self._first = session
        self._open = open_another
        self._ready: dict[int, Any] = {}
        self._lock = Lock()

    def get_inputs(self) -> Any:
        """Return the inputs of the graph."""
        return self._first.get_inputs()

    def get_outputs(self) -> Any:
        """Return the outputs of the graph."""
        return self._first.get_outputs()

    def get_providers(self) -> Any:
        """Return the execution providers, the preferred one first."""
        return self._first.get_providers()

    def prepare(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> None:
        """Open and warm up the session that `run` needs for a feed, which takes some tenths of a second, once.

        Parameters
        ----------
        outputs, feed
            As for `run`.
        """
        size = _size(_rows(feed))
        if size in self._ready:
            return
        with self._lock:
            if size not in self._ready:
                session = self._first
                if self._ready:
                    # Where the device has no room for the weights once more, the first one plans anew each time.
                    with contextlib.suppress(ContractBreach):
                        session = self._open()
                # Zeros, and not the rows: nothing stops this call, and they may loop.
                zeros = {name: np.zeros((size, *array.shape[1:]), array.dtype) for name, array in feed.items()}
                with contextlib.suppress(Exception):
                    session.run(outputs, zeros)
                self._ready[size] = session

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """Return outputs as `onnxruntime.InferenceSession.run` does.

        Parameters
        ----------
        outputs : sequence of str
            Tensors to return.
        feed : mapping of str to ndarray
            Every input tensor, with one row or more.
        options : onnxruntime.RunOptions, optional
            Options of this call.
        """
        self.prepare(outputs, feed)
        n_rows = _rows(feed)
        size = _size(n_rows)
        results = self._ready[size].run(outputs, _padded(feed, size), options)
        return [_without_padding(result, n_rows, size) for result in results]


def _rows(feed: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(feed.values())))


def _size(n_rows: int) -> int:
    size = _SMALLEST
    while size < n_rows:
        size *= 4 if size < _COARSE_ROWS else 2
    return size


def _padded(feed: Mapping[str, NDArray[Any]], size: int) -> Mapping[str, NDArray[Any]]:
    more = size - _rows(feed)
    if not more:
        return feed
    return {name: np.concatenate([array, np.repeat(array[-1:], more, axis=0)]) for name, array in feed.items()}


def _without_padding(result: Any, n_rows: int, size: int) -> Any:
    """Return the part of an output that belongs to the rows; what is not one entry a row is left as it is."""
    has_entries = isinstance(result, list) or np.ndim(result)
    return result[:n_rows] if has_entries and len(result) == size else result
