"""Ensembles, a cascade and a DAG over the flights, row by row against plain NumPy and ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from modelstream.examples.flights.data import CANCELLED, FLIGHTS, encoded_events
from modelstream.examples.flights.features import departure
from modelstream.operators.batch import EventBatch
from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.simulation import simulate

FULL = os.environ.get("MODELSTREAM_FULL") == "1"
N_EVENTS = FLIGHTS if FULL else 6_000
FOLDER = Path(__file__).parents[2] / "examples" / "flights"
#: Rows of the reference's own calls: not the pipeline's batches.
CHUNK = 1_777


class Plain:
    """The models as ONNX Runtime runs them, without anything of the pipeline but its features."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            name: onnxruntime.InferenceSession(
                FOLDER / "models" / name / "1" / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in ("arrival_delay", "late_arrival", "late_quick", "late_by_delay", "late_stacked")
        }

    def run(self, name: str, outputs: list[str], **feed: NDArray[Any]) -> list[NDArray[Any]]:
        results: list[NDArray[Any]] = self._sessions[name].run(outputs, feed)
        return [result.reshape(len(result), -1)[:, -1] for result in results]

    def predictions(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what `ensemble.yaml` has to say about each event."""
        batch = EventBatch.of_events(events)
        batch.event_times = np.array([event["scheduled_departure"][:-1] for event in events], "datetime64[ms]")
        features = np.asarray(departure(batch)["features"])
        quick_label, quick = self.run("late_quick", ["label", "score"], features=features)
        tree_label, tree = self.run("late_arrival", ["label", "probabilities"], features=features)
        [delay] = self.run("arrival_delay", ["value"], features=features)
        by_label, by_delay = self.run("late_by_delay", ["label", "score"], delay=delay[:, None])
        stack_label, stack = self.run(
            "late_stacked", ["label", "score"], scores=np.column_stack([quick, tree, by_delay])
        )
        tree64, by64 = tree.astype(np.float64), by_delay.astype(np.float64)
        mean = ((tree64 + by64) / 2).astype(np.float32)
        weighted = ((3 * tree64 + by64) / 4).astype(np.float32)
        votes = quick_label + tree_label + by_label
        vote = (votes >= 2).astype(np.int64)
        share = (np.where(vote == 1, votes, 3 - votes) / 3).astype(np.float32)
        unsure = (quick.astype(np.float64) > 0.1) & (quick.astype(np.float64) < 0.9)
        # Two votes that differ: the first member's counts, so the mean's label is that of the trees.
        both, three = "late_arrival@1+late_by_delay@1", "late_at_gate@1+late_arrival@1+late_by_delay@1"
        columns = {
            "late_quick": ("1", quick_label, quick),
            "late_thorough": ("1", tree_label, tree),
            "verdict": ("1", np.where(unsure, tree_label, quick_label), np.where(unsure, tree, quick)),
            "arrival_delay": ("1", None, delay),
            "late_arrival": ("1", tree_label, tree),
            "late_at_gate": ("1", quick_label, quick),
            "late_by_delay": ("1", by_label, by_delay),
            "late_mean": (both, tree_label, mean),
            "late_weighted": (both, tree_label, weighted),
            "late_vote": (three, vote, share),
            "late_stack": (f"{three}+late_stacked@1", stack_label, stack),
        }
        return [self._row(columns, i, bool(unsure[i])) for i in range(len(events))]

    @staticmethod
    def _row(columns: dict[str, Any], i: int, unsure: bool) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, (version, label, number) in columns.items():
            row[name] = {"version": version}
            if name == "verdict":
                row[name]["model"] = "late_thorough" if unsure else "late_quick"
            if label is not None:
                row[name]["label"] = int(label[i])
            row[name]["value" if label is None else "score"] = number[i]
        if not unsure:
            del row["late_thorough"]
        return row


def in_chunks(values: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(islice(values, CHUNK)):
        yield chunk


def test_every_flight_is_judged_as_by_plain_numpy_and_onnx_runtime() -> None:
    built = load_pipeline(FOLDER / "ensemble.yaml").build()
    plain, n_due, n_unsure = Plain(), 0, 0
    for values in in_chunks(value for _, value in encoded_events(N_EVENTS)):
        simulation = simulate(built, values)
        assert not simulation.dead_letters
        due = [event for value in values if (event := orjson.loads(value))["dep_delay"] is not None]
        assert [record["event_id"] for record in simulation.predictions] == [event["id"] for event in due]
        found = [record["predictions"] for record in simulation.predictions]
        expected = plain.predictions(due)
        # JSON's shortest digits of a float32 give it again, to the bit.
        for one in found:
            for entry in one.values():
                for field in {"value", "score"} & entry.keys():
                    entry[field] = np.float32(entry[field])
        assert found == expected
        assert [list(one) for one in found] == [list(one) for one in expected]
        n_due += len(due)
        n_unsure += sum("late_thorough" in one for one in found)
    assert 0.1 * n_due < n_unsure < 0.6 * n_due  # the cascade did hand on, and did not hand on everything
    if FULL:
        assert n_due == FLIGHTS - CANCELLED
