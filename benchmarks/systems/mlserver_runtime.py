"""MLServer's custom runtime for an ONNX model: the class its guide asks for, with `load` and `predict`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems.common import open_session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, NumpyRequestCodec
from mlserver.types import InferenceRequest, InferenceResponse

__all__ = ["OnnxRuntime"]


class OnnxRuntime(MLModel):  # type: ignore[misc] # not installed where mypy runs
    """Scores the rows of a request in one call of ONNX Runtime; the model is the file of the setting ``uri``."""

    async def load(self) -> bool:
        """Open the model."""
        self._run = open_session(Path(self.settings.parameters.uri)).run
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the model's values of a request's rows, of shape (n, n_outputs)."""
        rows = self.decode_request(payload, default_codec=NumpyRequestCodec)
        values = self._run(None, {"features": rows})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("value", values)])
