"""What came of the events of a run: a pure function over files, one JSON object a line.

A run leaves four files: what was *sent* (and whether the broker acknowledged it), the predictions that a consumer saw
*during* the faults, those that one read *afterwards*, and the *dead* letters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that was produced.

    Parameters
    ----------
    event_id : str
        Of the event in it.
    key : str
        Its key.
    answer : float or None
        What the model says; None if it must become a dead letter.
    digest : str
        Of its bytes.
    partition, offset : int
        Where the broker put it; -1 where it did not say.
    at_ms : float
        Wall clock when it was produced.
    acked : bool
        Whether the broker acknowledged it. What it did not acknowledge may be there or not.
    """

    event_id: str
    key: str
    answer: float | None
    digest: str
    partition: int
    offset: int
    at_ms: float
    acked: bool = True


@dataclass(frozen=True, slots=True)
class Predicted:
    """A prediction that a consumer saw.

    Parameters
    ----------
    event_id, key : str
        Whose prediction it is, and the record's key.
    value : float
        What the model answered.
    version : str
        Of the model.
    digest : str
        Of the record's key and value.
    partition, offset : int
        Where it stands.
    at_ms : float
        Wall clock when it was seen.
    """

    event_id: str
    key: str
    value: float
    version: str
    digest: str
    partition: int
    offset: int
    at_ms: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: where its record stood, and its bytes' digest, empty where they were cut."""

    partition: int
    offset: int
    reason: str
    digest: str


@dataclass(frozen=True)
class Files:
    """The files of a run, in its folder."""

    folder: Path

    @property
    def sent(self) -> Path:
        """What was sent."""
        return self.folder / "sent.ndjson"

    @property
    def during(self) -> Path:
        """What was seen during the faults."""
        return self.folder / "during.ndjson"

    @property
    def afterwards(self) -> Path:
        """What was read afterwards."""
        return self.folder / "afterwards.ndjson"

    @property
    def dead(self) -> Path:
        """The dead letters."""
        return self.folder / "dead.ndjson"


def write_lines(path: Path, rows: Iterable[Sent | Predicted | Dead]) -> None:
    """Write one object a line."""
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def read_lines(path: Path, kind: type[RowT]) -> Iterator[RowT]:
    """Yield what `write_lines` wrote."""
    with path.open("rb") as file:
        for line in file:
            yield kind(**orjson.loads(line))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run.

    Attributes
    ----------
    n_events : int
        Records that the broker acknowledged.
    lost : frozenset of str
        Events that were acknowledged, and have neither a prediction nor a dead letter.
    duplicated : int
        Predictions and dead letters beyond one for each record that was sent.
    wrong : frozenset of str
        Events whose answer is not the model's, that were never sent, that have a prediction and should have none, or a
        dead letter and should have none or whose dead letter has other bytes.
    unequal : frozenset of str
        Events whose predictions differ in a byte.
    reordered : int
        Events whose first prediction came before that of an earlier event of their key.
    torn : int
        Predictions that only one of the two consumers saw.
    n_dead : int
        Records that became dead letters.
    """

    n_events: int
    lost: frozenset[str]
    duplicated: int
    wrong: frozenset[str]
    unequal: frozenset[str]
    reordered: int
    torn: int
    n_dead: int

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost, wrong, torn or out of order; duplicates are allowed."""
        return not (self.lost or self.wrong or self.unequal or self.reordered or self.torn)


def judge(files: Files) -> Verdict:
    """Return what came of a run."""
    sent = list(read_lines(files.sent, Sent))
    predicted = list(read_lines(files.afterwards, Predicted))
    dead = list(read_lines(files.dead, Dead))
    by_event: dict[str, list[Sent]] = defaultdict(list)
    for record in sent:
        by_event[record.event_id].append(record)
    answers: dict[str, list[Predicted]] = defaultdict(list)
    for prediction in sorted(predicted, key=lambda p: (p.partition, p.offset)):
        answers[prediction.event_id].append(prediction)
    letters = Counter((letter.partition, letter.offset) for letter in dead)
    return Verdict(
        n_events=sum(record.acked for record in sent),
        lost=frozenset(
            record.event_id
            for record in sent
            if record.acked and record.event_id not in answers and not letters[record.partition, record.offset]
        ),
        duplicated=sum(max(len(found) - len(by_event[event]), 0) for event, found in answers.items())
        + letters.total() - len(letters),
        wrong=frozenset(_wrong_answers(by_event, answers)) | frozenset(_wrong_letters(sent, dead)),
        unequal=frozenset(event for event, found in answers.items() if len({p.digest for p in found}) > 1),
        reordered=_reordered(by_event, answers),
        torn=len(_places(files.during) ^ {(p.partition, p.offset, p.digest) for p in predicted}),
        n_dead=len(letters),
    )  # fmt: skip


def _wrong_answers(by_event: dict[str, list[Sent]], answers: dict[str, list[Predicted]]) -> Iterator[str]:
    for event, found in answers.items():
        due = {(record.answer, record.key) for record in by_event.get(event, ())}
        versions = {prediction.version for prediction in found}
        if len(versions) > 1 or any((prediction.value, prediction.key) not in due for prediction in found):
            yield event


def _wrong_letters(sent: list[Sent], dead: list[Dead]) -> Iterator[str]:
    records = {(record.partition, record.offset): record for record in sent}
    for letter in dead:
        record = records.get((letter.partition, letter.offset))
        if record is None:
            # Perhaps of a record that the broker took and could not acknowledge any more.
            if all(each.acked for each in sent):
                yield f"{letter.partition}/{letter.offset}"
        elif record.answer is not None or letter.digest not in ("", record.digest):
            yield record.event_id


def _reordered(by_event: dict[str, list[Sent]], answers: dict[str, list[Predicted]]) -> int:
    firsts = sorted((found[0] for found in answers.values()), key=lambda p: (p.partition, p.offset))
    latest: dict[tuple[str, int], int] = {}
    n_reordered = 0
    for prediction in firsts:
        # A key moves to another partition when partitions are added; order holds within each.
        places = [(record.partition, record.offset) for record in by_event.get(prediction.event_id, ()) if record.acked]
        if places:
            partition, offset = min(places)
            last = latest.get((prediction.key, partition), -1)
            n_reordered += offset < last
            latest[prediction.key, partition] = max(last, offset)
    return n_reordered


def _places(path: Path) -> set[tuple[int, int, str]]:
    return {(p.partition, p.offset, p.digest) for p in read_lines(path, Predicted)}


def recovery_s(files: Files, since_ms: float) -> float | None:
    """Return after how many seconds every partition had answered an event that was sent after a moment.

    That counts what waited before it, since a partition is answered in order. None if there was no such answer, or if
    a partition of the source had no event since.
    """
    partitions, due = set[int](), dict[str, int]()
    for record in read_lines(files.sent, Sent):
        if record.acked and record.answer is not None:
            partitions.add(record.partition)
            if record.at_ms >= since_ms:
                due[record.event_id] = record.partition
    first: dict[int, float] = {}
    for prediction in read_lines(files.during, Predicted):
        partition = due.get(prediction.event_id)
        if partition is not None:
            first[partition] = min(first.get(partition, prediction.at_ms), prediction.at_ms)
    if not first or set(first) != partitions:
        return None
    return max(0.0, max(first.values()) - since_ms) / 1000


def latencies_ms(files: Files, since_ms: float, until_ms: float) -> list[float]:
    """Return from when they were produced to when they were first seen, of the events sent in between, sorted."""
    sent = {
        record.event_id: record.at_ms
        for record in read_lines(files.sent, Sent)
        if record.acked and record.answer is not None and since_ms <= record.at_ms < until_ms
    }
    found: dict[str, float] = {}
    for prediction in read_lines(files.during, Predicted):
        if prediction.event_id in sent:
            found.setdefault(prediction.event_id, prediction.at_ms - sent[prediction.event_id])
    return sorted(found.values())


def quantile(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted numbers, nan of none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
