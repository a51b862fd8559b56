"""Three ONNX models of unlike cost for the batching benchmark, rows for them, and what is right for each row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmarks.workloads.onnx_models import perceptron, trees
from numpy.typing import NDArray

from modelstream.models.loading import load_model
from modelstream.operators.batch import EventBatch
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.infer import Infer
from modelstream.operators.operator import run_isolated

__all__ = ["JOBS", "Job", "Served", "WrongOutput", "make_job"]

#: Distinct rows of a job. With a few rows over and over, branch prediction learns the trees by heart, and a model looks
#: up to four times as fast as it is; 16,384 ways through 500 trees it cannot learn.
POOL_ROWS = 16_384

#: How far an output may be from that of the one reference call: matrix products and sums over trees add in another
#: order when there are more rows.
_RELATIVE_TOLERANCE = 1e-5

_SEED = 20_130_101


#: The rows of a micro-batch, and their outputs. No more is kept of it: a second of FFNN inputs is a gigabyte.
Served = tuple[NDArray[np.int32], NDArray[Any]]


class WrongOutput(RuntimeError):
    """A row that has no output, or another one than the model gives it."""


class Job:
    """A model with rows, and the service that a worker does for a micro-batch of them: infer and encode.

    Parameters
    ----------
    name : str
        Name of the model.
    models_dir : Path
        Where its files are.
    """

    def __init__(self, name: str, models_dir: Path) -> None:
        self.name = name
        model = load_model(models_dir, name)
        self._infer = Infer("score", [model])
        self._encoder = PredictionEncoder(f"batching {name}")
        self._rows = np.random.default_rng(_SEED).standard_normal((POOL_ROWS, model.required_fields[0].width or 1))
        self._rows = self._rows.astype(np.float32)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(models_dir / name / "1" / "model.onnx", options, ["CPUExecutionProvider"])
        self._expected: NDArray[np.float32] = session.run(None, {"features": self._rows})[0].reshape(POOL_ROWS, -1)
        self._pool = EventBatch.of_events([{} for _ in range(POOL_ROWS)])
        self._pool.columns["features"] = self._rows

    def events(self, first: int, last: int, produced_ms: NDArray[np.int64]) -> list[EventBatch]:
        """Return the events with the numbers `first` to `last` - 1, in one batch, or two where the rows begin anew.

        Parameters
        ----------
        first, last : int
            Event i has row i modulo the number of distinct rows.
        produced_ms : ndarray of int64, shape (last - first,)
            Their record times, in milliseconds since 1970.
        """
        batches = []
        start = first
        while start < last:
            row = start % POOL_ROWS
            n = min(last - start, POOL_ROWS - row)
            batch = self._pool.select(slice(row, row + n))
            batch.record_times = produced_ms[start - first : start - first + n]
            batches.append(batch)
            start += n
        return batches

    def serve(self, events: EventBatch) -> Served:
        """Infer and encode, and return what `check` needs."""
        kept = run_isolated(self._infer, events).kept
        if len(self._encoder.encode(kept)) != len(events):
            raise WrongOutput(f"{self.name}: {len(events)} events, {len(kept)} predictions")
        (values,) = kept.outputs[self.name].fields.values()
        return kept.lineage.record_index, np.asarray(values)

    def check(self, served: Sequence[Served]) -> int:
        """Compare all that was served, in the order of the events, and return how many that were.

        Raises
        ------
        WrongOutput
            If an output is missing, out of order, repeated, or not what one call of ONNX Runtime gives the row.
        """
        rows = np.concatenate([rows for rows, _ in served])
        if (rows != np.arange(len(rows)) % POOL_ROWS).any():
            raise WrongOutput(f"{self.name}: outputs are lost, repeated or out of order")
        found = np.concatenate([values for _, values in served]).reshape(len(rows), -1)
        # So put that NaN is wrong, too.
        off = ~(np.abs(found / self._expected[rows] - 1) <= _RELATIVE_TOLERANCE)
        if off.any():
            raise WrongOutput(f"{self.name}: {int(off.any(axis=1).sum())} of {len(rows)} outputs are wrong")
        return len(rows)


def make_job(name: str, folder: Path) -> Job:
    """Write a model into a folder, and return its job."""
    directory = folder / name / "1"
    directory.mkdir(parents=True)
    content = JOBS[name]().SerializeToString()
    (directory / "model.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (directory / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nsha256 = "{digest}"\n[inputs.features]\nfield = "features"\n'
    )
    return Job(name, folder)


#: By name: a tiny MLP 16-64-32-1, an FFNN 784-32-32-10 as in Crayfish, 500 boosted trees of depth 6 over 20 features.
JOBS: Mapping[str, Any] = {
    "mlp": lambda: perceptron(16, 64, 32, 1),
    "ffnn": lambda: perceptron(784, 32, 32, 10),
    "gbdt": trees,
}
