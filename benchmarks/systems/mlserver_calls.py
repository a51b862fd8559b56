"""The hand-written loop with the model behind a server: MLServer on the same machine, called over gRPC.

Of a fetch, parts go to the server as soon as they are decoded, so that it scores one while the loop decodes the next.
Its adaptive batching is off, because the calls are batches already, and so is its pool of processes, which its guide
advises where one process cannot do it all. Server and loop count together.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import orjson
from benchmarks.systems import loop
from benchmarks.systems.common import Job
from benchmarks.systems.scoring import Score, features_of, outputs_of
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

# Not installed in this environment; of it just the process that ends with its parent is used.
sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))
from modelstream.streams.supervised import SupervisedProcess

#: Most rows of a call.
ROWS = 256

_MODEL = "model"

_START_S = 60


def _write_settings(job: Job, folder: Path, port: int) -> None:
    """Write the two files that `mlserver start` reads."""
    server = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": _free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
        "grpc_max_message_length": 2**28,
    }
    runtime = "benchmarks.systems.mlserver_runtime.OnnxRuntime"
    model = {"name": _MODEL, "implementation": runtime, "parameters": {"uri": str(job.model)}}
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(job: Job) -> Iterator[GRPCInferenceServiceStub]:
    """Run MLServer, in a session of its own: it must still answer when SIGTERM has come to the loop."""
    folder, port = job.workdir / "server", _free_port()
    _write_settings(job, folder, port)
    command = [sys.executable, "-m", "mlserver.cli.main", "start", str(folder)]
    server = SupervisedProcess(command, folder=folder, log=job.workdir / "server.log", grace_s=10)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
            grpc.channel_ready_future(channel).result(_START_S)
            stub = GRPCInferenceServiceStub(channel)
            while not stub.ModelReady(pb.ModelReadyRequest(name=_MODEL)).ready:
                pass
            yield stub
    finally:
        server.stop()


def _scoring(stub: GRPCInferenceServiceStub) -> Score:
    def ask(rows: np.ndarray) -> grpc.Future:
        tensor = pb.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=rows.shape)
        request = pb.ModelInferRequest(model_name=_MODEL, inputs=[tensor], raw_input_contents=[rows.tobytes()])
        return stub.ModelInfer.future(request)

    def answer(call: grpc.Future) -> np.ndarray:
        response = call.result()
        return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)

    def score(records: Sequence[bytes]) -> list[bytes]:
        parts = []
        for first in range(0, len(records), ROWS):
            events = [orjson.loads(record) for record in records[first : first + ROWS]]
            call = ask(np.array([features_of(event) for event in events], np.float32))
            parts.append(([event["id"] for event in events], call))
        return [output for ids, call in parts for output in outputs_of(ids, answer(call))]

    return score


def main() -> None:
    job = Job.from_command_line()
    with _server(job) as stub:
        loop.run(job, _scoring(stub))


if __name__ == "__main__":
    main()
