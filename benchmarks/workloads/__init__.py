"""The jobs that every system does, by name. Workers do not import this: they are told a name, and read records."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.workloads.flights import FlightsWorkload
from benchmarks.workloads.onnx_models import convolutions, perceptron, trees
from benchmarks.workloads.vectors import VectorWorkload, decimals, pixels
from benchmarks.workloads.workload import Workload

__all__ = ["WORKLOADS", "Workload"]


def _ffnn(name: str, kind: str) -> Workload:
    # 784-32-32-10 as in Crayfish.
    return VectorWorkload(
        name, 784, 10, lambda: perceptron(784, 32, 32, 10), decimals, "csv" if kind == "csv" else "array"
    )


#: By name.
WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        VectorWorkload("mlp-20", 20, 1, lambda: perceptron(20, 64, 32, 1)),
        FlightsWorkload(),
        _ffnn("ffnn-784", "array"),
        _ffnn("ffnn-784-csv", "csv"),
        VectorWorkload("gbdt-500", 20, 1, trees),
        VectorWorkload("cnn", 784, 10, convolutions, pixels),
    )
}
