"""Events through a pipeline in this process, without Kafka: the worker's own codec, operators and encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

import orjson

from modelstream.models.errors import ConfigError
from modelstream.operators.codecs import Codec
from modelstream.streams.build import BuiltPipeline
from modelstream.streams.dead_letter_json import describe_letter
from modelstream.streams.delivery import Output
from modelstream.streams.event_files import key_of
from modelstream.streams.in_process import Collected, InProcess, in_order, positions_of

__all__ = ["Simulation", "simulate"]

#: Events that come in together: a long simulation needs no more memory for them than a worker.
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
        ``detail``, ``exception``, and ``value``, the bytes of its record, as far as a dead letter holds them.
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
        What a worker produces of these records: its own steps make it.

    Raises
    ------
    ConfigError
        An event cannot be written in the pipeline's format.
    """
    rows = enumerate(events)
    collected = Collected(built.spec.sink.dead_letter)
    engine = InProcess(built, collected)
    while batch := list(islice(rows, _BATCH)):
        values = [_value(built.codec, event, i) for i, event in batch]
        engine.add(values, [_key(built.codec, value, built.spec.source.key) for value in values])
        engine.run()
    engine.run(drain=True)
    predictions = in_order(collected.predictions)
    return Simulation(
        predictions=[orjson.loads(value or b"") for _, value in predictions],
        dead_letters=_dead_letters(collected.dead_letters),
        filtered=collected.n_filtered,
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


def _key(codec: Codec, value: bytes | None, field: str | None) -> bytes | None:
    """Return the key that `modelstream produce` would give a record; none where the event does not tell."""
    if field is None or value is None:
        return None
    event = codec.decode_one(value)
    return None if event is None else key_of(event, field)


def _dead_letters(outputs: list[Output]) -> list[dict[str, Any]]:
    letters = []
    for output in outputs:
        for offset, value, headers in zip(
            positions_of(output).tolist(), output.values, output.headers or [], strict=True
        ):
            said = describe_letter(None, None, headers)
            told = {name: said[name] for name in ("stage", "reason", "detail", "exception")}
            letters.append({"offset": offset, **told, "value": value})
    return sorted(letters, key=itemgetter("offset"))
