"""Events through a pipeline in this process, without Kafka: the worker's own codec, operators and encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.streams.build import BuiltPipeline, run_stages
from modelstream.streams.event_files import key_of

__all__ = ["Simulation", "simulate"]

#: Events of one batch, as a worker fetches them: a long simulation needs no more memory than a worker.
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Simulation:
    """What became of the events.

    Parameters
    ----------
    predictions : list of dict
        The prediction records, in the order of their events.
    dead_letters : list of dict
        For each rejected event, in order: ``offset`` (its position among the events), ``stage``, ``reason``,
        ``detail``, ``exception``, and ``value``, the bytes of its record.
    filtered : int
        Events that business rules took out.
    """

    predictions: list[dict[str, Any]]
    dead_letters: list[dict[str, Any]]
    filtered: int


def simulate(built: BuiltPipeline, events: Iterable[Mapping[str, Any] | bytes | None]) -> Simulation:
    """Run events through a pipeline.

    Parameters
    ----------
    built : BuiltPipeline
        The pipeline.
    events : iterable of mapping or bytes or None
        Events, which are written in the pipeline's format; or what records hold: bytes, or None for a null value.
        Records get the key that the field ``source.key`` gives them, offsets from 0, and the timestamp 1970-01-01.

    Returns
    -------
    Simulation
        What a worker would produce of these records; only its limit on the size of a prediction is left out.

    Raises
    ------
    ConfigError
        An event cannot be written in the pipeline's format.
    """
    rows = enumerate(events)
    parts = []
    while batch := list(islice(rows, _BATCH)):
        parts.append(_simulate_batch(built, [_value(built.codec, event, i) for i, event in batch], start=batch[0][0]))
    return Simulation(
        predictions=[record for part in parts for record in part.predictions],
        dead_letters=[letter for part in parts for letter in part.dead_letters],
        filtered=sum(part.filtered for part in parts),
    )


def _value(codec: Codec, event: Mapping[str, Any] | bytes | None, i: int) -> bytes | None:
    if event is None or isinstance(event, bytes):
        return event
    if not isinstance(event, Mapping):
        raise ConfigError(f"events[{i}]", f"must be a mapping or bytes, not {type(event).__name__}")
    try:
        return codec.encode(event)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"events[{i}]", f"cannot be written as {codec.format.name}: {error}") from None


def _simulate_batch(built: BuiltPipeline, values: list[bytes | None], start: int) -> Simulation:
    source = built.spec.source
    decoded = built.codec.decode(
        values,
        [_key(built.codec, value, source.key) for value in values],
        np.zeros(len(values), np.int64),
        default_ids=lambda: [f"{source.topic}/0/{start + i}" for i in range(len(values))],
    ).settle()
    settled = run_stages(built.stages, decoded.kept)
    letters = [
        letter
        for rejected in (decoded.rejected, settled.rejected)
        if rejected is not None
        for letter in _dead_letters(rejected, values, start)
    ]
    return Simulation(
        predictions=[orjson.loads(record) for kept in settled.all_kept for record in built.encoder.encode(kept)],
        dead_letters=sorted(letters, key=itemgetter("offset")),
        filtered=0 if settled.filtered is None else len(settled.filtered),
    )


def _key(codec: Codec, value: bytes | None, field: str | None) -> bytes | None:
    """Return the key that `modelstream produce` would give a record; none where the event does not tell."""
    if field is None or value is None:
        return None
    event = codec.decode_one(value)
    return None if event is None else key_of(event, field)


def _dead_letters(rejected: EventBatch, values: list[bytes | None], start: int) -> list[dict[str, Any]]:
    return [
        {
            "offset": start + record,
            "stage": fault.stage,
            "reason": fault.reason,
            "detail": fault.detail,
            "exception": fault.exception,
            "value": values[record],
        }
        for row, record in enumerate(rejected.lineage.record_index.tolist())
        for fault in [rejected.faults[row]]
    ]
