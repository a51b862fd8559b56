"""Events through two versions of a pipeline, side by side, and their answers compared."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from modelstream.streams.dead_letter_json import describe_letter
from modelstream.streams.in_process import Collected, InProcess, in_order, positions_of
from modelstream.streams.replay.difference import Difference, Fate, FieldDifference, Flip, Worst
from modelstream.streams.replay.prepared import TimedRecord

if TYPE_CHECKING:
    from modelstream.streams.build import BuiltPipeline

__all__ = ["compare"]

#: Events that both versions get before anything is compared.
_CHUNK = 1024

#: What may become of an event.
_FILTERED, _PREDICTED, _REJECTED = range(3)
_FATES = ("filtered", "predicted", "dead letter")


def compare(
    built_a: BuiltPipeline,
    built_b: BuiltPipeline,
    records: Iterable[TimedRecord],
    *,
    names: tuple[str, str] = ("A", "B"),
    tolerance: float = 0.0,
    n_worst: int = 10,
    on_progress: Callable[[int], None] = lambda n_events: None,
) -> Difference:
    """Run events through two pipelines in this process, by the worker's own steps, and compare what they say.

    Parameters
    ----------
    built_a, built_b : BuiltPipeline
        The versions, without Redis.
    records : iterable of TimedRecord
        The events; never more than some thousand are in memory.
    names : (str, str)
        What the versions are called.
    tolerance : float
        Numbers that are no further apart count as equal.
    n_worst : int
        Events to name for each field.
    on_progress : callable
        Gets the number of events so far.
    """
    sides = _Side(built_a), _Side(built_b)
    tally = _Tally(tolerance, n_worst)
    rest, n_events = iter(records), 0
    while chunk := list(islice(rest, _CHUNK)):
        for side in sides:
            side.feed(chunk)
        n_events += len(chunk)
        tally.compare(*sides)
        on_progress(n_events)
    for side in sides:
        side.finish()
    tally.compare(*sides)
    return tally.result(names, n_events, *sides)


class _Side:
    """One version, what became of each event, and the predictions that the other one has not made yet."""

    def __init__(self, built: BuiltPipeline) -> None:
        self._collected = Collected(built.spec.sink.dead_letter)
        self._engine = InProcess(built, self._collected)
        self.predictions: dict[int, bytes] = {}
        self.fates = bytearray()
        #: Where and why events were rejected, and what the other one made of them is not known yet.
        self.reasons: dict[int, tuple[Any, Any]] = {}

    def feed(self, records: list[TimedRecord]) -> None:
        self.fates.extend(bytes(len(records)))
        times_ms = np.array([max(record[2], 0) for record in records], np.int64)
        self._engine.add([record[1] for record in records], [record[0] for record in records], times_ms)
        self._engine.run()
        self._take()

    def finish(self) -> None:
        self._engine.run(most_under_way=0, drain=True)
        self._take()

    @property
    def settled_to(self) -> int:
        """Position up to which nothing more will be said of any event."""
        return self._engine.settled_to

    def forget(self, end: int) -> None:
        """Drop what was said of events before a position."""
        self.predictions = {position: value for position, value in self.predictions.items() if position >= end}
        self.reasons = {position: reason for position, reason in self.reasons.items() if position >= end}

    def _take(self) -> None:
        for position, value in in_order(self._collected.predictions):
            self.fates[position] = _PREDICTED
            self.predictions[position] = value.encode() if isinstance(value, str) else value or b"{}"
        for output in self._collected.dead_letters:
            for position, headers in zip(positions_of(output).tolist(), output.headers or [], strict=True):
                said = describe_letter(None, None, headers)
                self.fates[position] = _REJECTED
                self.reasons[position] = said["stage"], said["reason"]
        self._collected.predictions.clear()
        self._collected.dead_letters.clear()


@dataclass(slots=True)
class _Field:
    """One field of one model, as far as it has been compared."""

    equal: int = 0
    differing: int = 0
    only_a: int = 0
    only_b: int = 0
    differences: array[float] = field(default_factory=lambda: array("d"))
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: The worst so far, the least of them first.
    worst: list[tuple[float, int, Worst]] = field(default_factory=list)


class _Tally:
    def __init__(self, tolerance: float, n_worst: int) -> None:
        self._tolerance, self._n_worst = tolerance, n_worst
        self._fields: dict[tuple[str, str], _Field] = {}
        self._versions: dict[str, tuple[set[str], set[str]]] = {}
        self._n_compared = self._n_reasons_differ = 0
        self._order = count(0, -1)  # of equal ones the earlier is worse

    def compare(self, a: _Side, b: _Side) -> None:
        """Compare the events that both sides have predicted, and forget them and all that can have no other answer."""
        for position in sorted(a.predictions.keys() & b.predictions.keys()):
            said_a, said_b = orjson.loads(a.predictions.pop(position)), orjson.loads(b.predictions.pop(position))
            self._n_compared += 1
            self._compare_event(position, str(said_a.get("event_id")), said_a["predictions"], said_b["predictions"])
        for position in a.reasons.keys() & b.reasons.keys():
            self._n_reasons_differ += a.reasons.pop(position) != b.reasons.pop(position)
        settled_to = min(a.settled_to, b.settled_to)
        for side in (a, b):
            side.forget(settled_to)

    def _compare_event(self, position: int, event_id: str, a: dict[str, Any], b: dict[str, Any]) -> None:
        for model in {**a, **b}:
            answer_a, answer_b = a.get(model) or {}, b.get(model) or {}
            for name in {**answer_a, **answer_b}:
                values = answer_a.get(name), answer_b.get(name)
                if name == "version":
                    for versions, value in zip(self._versions.setdefault(model, (set(), set())), values, strict=True):
                        versions.update([] if value is None else [value])
                else:
                    tallied = self._fields.setdefault((model, name), _Field())
                    self._compare_value(tallied, name, position, event_id, *values)

    def _compare_value(self, tallied: _Field, name: str, position: int, event_id: str, a: Any, b: Any) -> None:
        if a is None or b is None:
            tallied.only_a += b is None and a is not None
            tallied.only_b += a is None and b is not None
            return
        distance = None if name == "label" else _distance(a, b)
        if distance is None:
            tallied.flips[_text(a), _text(b)] += 1
            is_equal = a == b
        else:
            tallied.differences.append(distance)
            is_equal = distance <= self._tolerance
        tallied.equal += is_equal
        tallied.differing += not is_equal
        if not is_equal:
            self._note_worst(tallied, distance or 0.0, Worst(position, event_id, a, b, distance))

    def _note_worst(self, tallied: _Field, distance: float, worst: Worst) -> None:
        entry = (distance, next(self._order), worst)
        if len(tallied.worst) < self._n_worst:
            heappush(tallied.worst, entry)
        elif self._n_worst and entry > tallied.worst[0]:
            heapreplace(tallied.worst, entry)

    def result(self, names: tuple[str, str], n_events: int, a: _Side, b: _Side) -> Difference:
        """Return all of it."""
        fates = Counter(zip(a.fates, b.fates, strict=True))
        return Difference(
            *names,
            events=n_events,
            compared=self._n_compared,
            tolerance=self._tolerance,
            fates=[Fate(_FATES[in_a], _FATES[in_b], n) for (in_a, in_b), n in fates.most_common()],
            reasons_differ=self._n_reasons_differ,
            versions={model: (sorted(in_a), sorted(in_b)) for model, (in_a, in_b) in self._versions.items()},
            fields=[_summed_up(model, name, tallied) for (model, name), tallied in self._fields.items()],
        )


def _summed_up(model: str, name: str, tallied: _Field) -> FieldDifference:
    distances = np.array(tallied.differences)
    mean, p99, most = (
        (float(distances.mean()), float(np.percentile(distances, 99)), float(distances.max()))
        if len(distances)
        else (None, None, None)
    )
    return FieldDifference(
        model=model,
        field=name,
        compared=tallied.equal + tallied.differing,
        equal=tallied.equal,
        differing=tallied.differing,
        only_a=tallied.only_a,
        only_b=tallied.only_b,
        mean_abs=mean,
        p99_abs=p99,
        max_abs=most,
        flips=[Flip(in_a, in_b, n) for (in_a, in_b), n in tallied.flips.most_common()],
        worst=[worst for _, _, worst in sorted(tallied.worst, reverse=True)],
        histogram=_histogram(distances[distances > 0]),
    )


def _histogram(distances: np.ndarray[Any, np.dtype[np.float64]]) -> list[tuple[float, int]]:
    if not len(distances):
        return []
    decades = np.ceil(np.log10(distances)).astype(int)
    first = int(decades.min())
    return [(float(10.0 ** (first + i)), n) for i, n in enumerate(np.bincount(decades - first).tolist())]


def _distance(a: Any, b: Any) -> float | None:
    """Return how far apart numbers are, or lists of them where they are furthest; None for what is no number."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        each = [_distance(one, other) for one, other in zip(a, b, strict=True)]
        known = [distance for distance in each if distance is not None]
        return max(known, default=0.0) if len(known) == len(each) else None
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return None
    return abs(float(a) - float(b))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
