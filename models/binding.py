"""Sessions on a device with memory of its own: inputs and outputs are bound, once per call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["BOUND_PROVIDERS", "BoundSession"]

#: Providers with their own memory. On the CPU a binding saves no copy, and takes twice as long as a plain call of a
#: small model.
BOUND_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider", "ROCMExecutionProvider"})


class BoundSession:
    """A session whose calls bind inputs from, and outputs to, the memory of the CPU.

    It has what the engine uses of an `onnxruntime.InferenceSession`, and may be called from several threads at once:
    every call has a binding of its own.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        The session, on any provider.
    """

    __slots__ = ("_bindable", "_session")

    def __init__(self, session: Any) -> None:
        self._session = session
        # ONNX Runtime binds no text.
        self._bindable = all(tensor.type != "tensor(string)" for tensor in session.get_inputs())

    def get_inputs(self) -> Any:
        """Return the inputs of the graph."""
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        """Return the outputs of the graph."""
        return self._session.get_outputs()

    def get_providers(self) -> Any:
        """Return the execution providers, the preferred one first."""
        return self._session.get_providers()

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """Return outputs as `onnxruntime.InferenceSession.run` does.

        Parameters
        ----------
        outputs : sequence of str
            Tensors to return.
        feed : mapping of str to ndarray
            Every input tensor, in C order.
        options : onnxruntime.RunOptions, optional
            Options of this call.
        """
        if not self._bindable:
            plain: list[Any] = self._session.run(outputs, feed, options)
            return plain
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        for name in outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding, options)
        results: list[Any] = binding.copy_outputs_to_cpu()
        return results
