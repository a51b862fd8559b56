"""What the work of a pipeline costs: lines t(n) = b + a·n, measured in this process on its own events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, ValidationError

from modelstream.models.cost import CostModel
from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch
from modelstream.operators.operator import run_isolated

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline

__all__ = ["Costs", "Line", "measure_costs", "read_costs"]

#: Rows of a call, as micro-batches have them; each eight times the one before, so that call and row are both felt.
_SIZES = (1, 8, 64, 512, 1024)
#: Calls per size that are measured, at the most and at the least, and seconds after which no more are made.
_MAX_CALLS, _MIN_CALLS, _SECONDS_PER_SIZE = 60, 5, 0.15
#: Seconds after which a stage that is slow has no more calls than tell a line, of no more rows than that takes.
_SLOW_S, _SLOW_CALLS, _SLOW_ROWS = 1.0, 3, 2
#: Seconds that it may take to give the stages behind it their rows.
_ROWS_S, _FEWEST_ROWS = 3.0, 8
#: Rows that are looked at: enough for no call to meet the same rows soon again; at the least enough for every size.
_MAX_ROWS, _LEAST_ROWS = 16_384, _SIZES[-1]

#: What this process cannot measure without Kafka, and so assumes: seconds for one round of a worker's event loop and
#: its data thread, and for one record to be fetched, and to be produced.
_ROUND_S, _FETCH_RECORD_S, _PRODUCE_RECORD_S = 300e-6, 0.6e-6, 0.9e-6


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(_Value):
    """Seconds that n rows take: ``fixed_s`` for the call, and ``per_row_s`` for each.

    Examples
    --------
    >>> Line(fixed_s=0.5, per_row_s=0.25).seconds(4)
    1.5
    """

    fixed_s: NonNegativeFloat = 0.0
    per_row_s: NonNegativeFloat = 0.0

    def seconds(self, n_rows: int) -> float:
        """Return how long so many rows take; none take nothing."""
        return self.fixed_s + self.per_row_s * n_rows if n_rows else 0.0


class Costs(_Value):
    """What one worker's work takes, in seconds.

    Parameters
    ----------
    fetch : Line
        A round of the worker: what it fetches, by record, and its way between the threads.
    decode : Line
        The events of a batch out of their records.
    stages : dict of str to Line
        Each stage's operator, by step id.
    produce : Line
        The predictions of a batch: encoded and handed to the producer.
    path_in_s : float
        From the intended time of an event until a worker can fetch it.
    linger_s : float
        How long the worker's producer gathers records.
    path_out_s : float
        From there until the prediction is on Kafka, or seen by a consumer, whichever is asked for.
    """

    fetch: Line = Line(fixed_s=_ROUND_S, per_row_s=_FETCH_RECORD_S)
    decode: Line
    stages: dict[str, Line]
    produce: Line
    path_in_s: NonNegativeFloat = 0.0
    linger_s: NonNegativeFloat = 0.0
    path_out_s: NonNegativeFloat = 0.0

    def to_json(self) -> bytes:
        """Return the costs as one JSON object, for `read_costs`."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_costs(path: Path, step_ids: Sequence[str]) -> Costs:
    """Return the costs that a file holds.

    Raises
    ------
    ConfigError
        There is no such file, it holds something else, or it is of a pipeline with other stages.
    """
    try:
        costs = Costs.model_validate(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ConfigError(str(path), "is no JSON; name a file that --save-costs wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(str(path), f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    if set(costs.stages) != set(step_ids):
        raise ConfigError(
            str(path), f"has the costs of stages {sorted(costs.stages)}, and the pipeline has {list(step_ids)}"
        )
    return costs


def measure_costs(
    built: BuiltPipeline,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None],
    clock: Callable[[], float] = time.perf_counter,
) -> Costs:
    """Return what a pipeline's work costs on its own events, on one thread.

    It takes about a second a stage, and some seconds where a row takes tens of milliseconds: behind such a stage the
    others are measured on what it makes of some rows, again and again. What lies outside of this process, between it
    and Kafka, is left at its defaults. A stage that none of the rows reach costs nothing.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    values, keys : sequence of bytes or None
        Records; the first 16,384 are looked at, and fewer than 1,024 again and again.
    clock : callable, optional
        Seconds, for tests.
    """
    n_rows = min(max(len(values), _LEAST_ROWS), _MAX_ROWS) if len(values) else 0
    rows = list(islice(cycle(values), n_rows)), list(islice(cycle(keys), n_rows))

    def decode(part: slice) -> EventBatch:
        times = np.zeros(len(rows[0][part]), np.int64)
        return built.codec.decode(rows[0][part], rows[1][part], times).settle().kept

    decoding = _line(decode, n_rows, clock)
    batch = decode(slice(0, n_rows))
    stages: dict[str, Line] = {}
    for stage in built.stages:
        whole = batch
        stages[stage.step_id] = _line(
            lambda part, stage=stage: run_isolated(stage.operator, part),  # type: ignore[misc]
            len(whole), clock, whole.select,
        )  # fmt: skip
        n_given = max(int(_ROWS_S / max(stages[stage.step_id].per_row_s, 1e-9)), _FEWEST_ROWS)
        batch = run_isolated(stage.operator, whole.select(slice(0, n_given))).kept
        if 0 < len(batch) < _LEAST_ROWS:
            batch = batch.select(np.arange(_LEAST_ROWS) % len(batch))
    encoding = _line(built.encoder.encode, len(batch), clock, batch.select)
    produce = Line(fixed_s=encoding.fixed_s, per_row_s=encoding.per_row_s + _PRODUCE_RECORD_S)
    return Costs(decode=decoding, stages=stages, produce=produce)


def _line(
    work: Callable[[Any], object],
    n_rows: int,
    clock: Callable[[], float],
    select: Callable[[slice], Any] = lambda part: part,
) -> Line:
    """Return the line through the times of calls with some rows each, always the next ones."""
    cost, began_s = CostModel(), clock()
    for n_before, size in enumerate(_SIZES):
        is_slow = clock() - began_s > _SLOW_S
        if size > n_rows or (is_slow and n_before > 1):
            break
        _measure(work, select, n_rows, _SLOW_ROWS if is_slow else size, clock, cost)
    return Line(fixed_s=cost.fixed_s, per_row_s=cost.per_row_s)


def _measure(
    work: Callable[[Any], object],
    select: Callable[[slice], Any],
    n_rows: int,
    size: int,
    clock: Callable[[], float],
    cost: CostModel,
) -> None:
    began_s = clock()
    for call in range(_MAX_CALLS):
        start = call * size % (n_rows - size + 1)
        part = select(slice(start, start + size))
        before_s = clock()
        work(part)
        after_s = clock()
        if call:  # the first one warms up
            cost.observe(size, after_s - before_s)
        took_s = after_s - began_s
        if (call >= _MIN_CALLS and took_s > _SECONDS_PER_SIZE) or (call >= _SLOW_CALLS and took_s > _SLOW_S):
            return
