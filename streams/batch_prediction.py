"""Batch prediction: the events of a file through a pipeline, to the very predictions that a worker makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modelstream.streams.dead_letter_json import describe_letter
from modelstream.streams.delivery import Output
from modelstream.streams.in_process import Collected, InProcess
from modelstream.streams.prediction_files import PredictionWriter
from modelstream.streams.spec import PipelineSpec

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline

__all__ = ["AnyRecord", "BatchTotals", "predict_records"]

#: Key and value of a record, and its timestamp in milliseconds since 1970, where that is known.
AnyRecord = tuple[bytes | None, bytes | None] | tuple[bytes | None, bytes | None, int]

#: Records that are read, and come in, together: as many as a worker fetches.
_CHUNK = 8192
#: Until there are so many, a micro-batch waits for more; the end of the file is soon enough.
_WAIT_MS = 3_600_000.0


@dataclass(slots=True)
class BatchTotals:
    """What became of the events.

    Parameters
    ----------
    n_events, n_predictions, n_filtered, n_dead_letters : int
        How many came in, and what they became.
    reasons : Counter of (str, str)
        Dead letters by stage and reason.
    first_letter : str
        What the first dead letter says.
    """

    n_events: int = 0
    n_predictions: int = 0
    n_filtered: int = 0
    n_dead_letters: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_letter: str = ""


def predict_records(
    built: BuiltPipeline,
    records: Iterable[AnyRecord],
    writer: PredictionWriter,
    write_letters: Callable[[bytes], object] | None = None,
    on_progress: Callable[[int], None] = lambda n_events: None,
) -> BatchTotals:
    """Predict records, and write the predictions in the order of the events.

    Micro-batches are full; priorities, and keys of ``infer.batch`` that are about time, have no meaning here.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    records : iterable of (bytes or None, bytes or None), or of (bytes or None, bytes or None, int)
        Key and value of each; and its timestamp, in milliseconds since 1970, where that is known. They stand in
        partition 0 of the source topic, from offset 0 on, as it were.
    writer : PredictionWriter
        Gets the predictions.
    write_letters : callable, optional
        Gets dead letters as lines of NDJSON.
    on_progress : callable, optional
        Takes the number of events that are done.

    Raises
    ------
    ConfigError, ModelStreamError
        The records cannot be read on, or the predictions not be written; all before are.
    """
    run = _Run(built, writer, write_letters)
    with run.threads:
        for chunk in _chunks(records):
            run.add(chunk)
            on_progress(run.totals.n_events)
        run.finish()
    return run.totals


class _Run:
    """One run of `predict_records`."""

    def __init__(
        self, built: BuiltPipeline, writer: PredictionWriter, write_letters: Callable[[bytes], object] | None
    ) -> None:
        # One thread beside this one for the models: while it computes, this one decodes and encodes.
        n_threads = max(1, built.threads - 1)
        self.threads = ThreadPoolExecutor(n_threads, thread_name_prefix="modelstream-model")
        spec = _for_throughput(built.spec, in_flight=n_threads + 1 if built.threads > 1 else 1)
        self._most_under_way = _CHUNK + sum(stage.infer.batch.most_rows for stage in spec.stages if stage.infer)
        self._outlet = Collected(spec.sink.dead_letter)
        self._engine = InProcess(
            replace(built, spec=spec, codec=replace(built.codec, priority=None)), self._outlet, pool=self.threads
        )
        self._writer = writer
        self._write_letters = write_letters
        self.totals = BatchTotals()

    def add(self, records: list[AnyRecord]) -> None:
        """Have records computed, with those before; some may still be under way afterwards."""
        keys, values, *times = map(list, zip(*records, strict=True))
        self._engine.add(values, keys, np.array(times[0], np.int64) if times else None)
        self._engine.run(most_under_way=self._most_under_way)
        self.totals.n_events += len(records)
        self._write()

    def finish(self) -> None:
        """Have everything computed and written."""
        self._engine.run(most_under_way=0, drain=True)
        self._write()

    def _write(self) -> None:
        totals, outlet = self.totals, self._outlet
        totals.n_filtered = outlet.n_filtered
        for output in outlet.predictions:
            totals.n_predictions += len(output.values)
            self._writer.write(output.values)  # type: ignore[arg-type]  # predictions are text
        for letter in _letters(outlet.dead_letters):
            totals.first_letter = totals.first_letter or f"{letter['stage']}: {letter['reason']}: {letter['detail']}"
            totals.n_dead_letters += 1
            totals.reasons[letter["stage"], letter["reason"]] += 1
            if self._write_letters is not None:
                self._write_letters(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE))
        outlet.predictions.clear()
        outlet.dead_letters.clear()


def _chunks(records: Iterable[AnyRecord]) -> Iterator[list[AnyRecord]]:
    rows = iter(records)
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _letters(outputs: Iterable[Output]) -> Iterator[dict[str, Any]]:
    for output in outputs:
        for key, value, headers in zip(output.keys, output.values, output.headers or [], strict=True):
            yield describe_letter(key, value if isinstance(value, bytes) else None, headers)


def _for_throughput(spec: PipelineSpec, in_flight: int) -> PipelineSpec:
    """Return the pipeline with micro-batches that are always full."""
    stages = []
    for stage in spec.stages:
        infer = stage.infer
        if infer is not None:
            keys: dict[str, Any] = {"max_size": infer.batch.most_rows, "max_wait_ms": _WAIT_MS, "target_p99_ms": None}
            batch = infer.batch.model_copy(update={**keys, "in_flight": in_flight})
            stage = stage.model_copy(update={"infer": infer.model_copy(update={"batch": batch})})
        stages.append(stage)
    source = spec.source.model_copy(update={"priority": None})
    return spec.model_copy(update={"stages": tuple(stages), "source": source})
