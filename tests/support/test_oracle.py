"""The oracle finds what was done to a history, and nothing in one that is right."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import (
    Dead,
    Files,
    Predicted,
    Sent,
    judge,
    latencies_ms,
    quantile,
    recovery_s,
    write_lines,
)

N_PARTITIONS = 3


class History:
    """A run in which every event is answered at once, and every tenth is broken."""

    def __init__(self, n_events: int) -> None:
        self.sent = [_sent(n) for n in range(n_events)]
        self.predicted = [_predicted(record, record.offset) for record in self.sent if record.answer is not None]
        self.dead = [
            Dead(record.partition, record.offset, "undecodable", record.digest)
            for record in self.sent
            if record.answer is None
        ]
        self.during: list[Predicted] | None = None

    def write(self, folder: Path) -> Files:
        files = Files(folder)
        write_lines(files.sent, self.sent)
        write_lines(files.afterwards, self.predicted)
        write_lines(files.during, self.predicted if self.during is None else self.during)
        write_lines(files.dead, self.dead)
        return files


def _sent(number: int) -> Sent:
    partition, offset = number % N_PARTITIONS, number // N_PARTITIONS
    answer = None if number % 10 == 9 else 3.0 * number
    return Sent(f"e{number}", f"key-{number % 12}", answer, f"d{number}", partition, offset, 1000.0 * number)


def _predicted(record: Sent, offset: int) -> Predicted:
    assert record.answer is not None
    return Predicted(
        record.event_id, record.key, record.answer, "1", f"p{record.event_id}", record.partition, offset,
        record.at_ms + 5.0,
    )  # fmt: skip


def test_a_right_history_is_right(tmp_path: Path) -> None:
    verdict = judge(History(100).write(tmp_path))
    assert (verdict.n_events, verdict.n_dead, verdict.duplicated) == (100, 10, 0)
    assert verdict.is_right


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), counts=st.tuples(*[st.integers(0, 8)] * 5))
def test_it_counts_what_was_done(tmp_path_factory: pytest.TempPathFactory, seed: int, counts: tuple[int, ...]) -> None:
    n_lost, n_twice, n_wrong, n_letters_lost, n_letters_twice = counts
    history, rng = History(200), random.Random(seed)
    touched = rng.sample(range(len(history.predicted)), n_lost + n_twice + n_wrong)
    lost, twice, wrong = touched[:n_lost], touched[n_lost : n_lost + n_twice], touched[n_lost + n_twice :]
    lost_ids = {history.predicted[i].event_id for i in lost}
    wrong_ids = {history.predicted[i].event_id for i in wrong}
    for i in wrong:
        history.predicted[i] = replace(history.predicted[i], value=-1.0)
    for copy, i in enumerate(twice):
        history.predicted.append(replace(history.predicted[i], offset=10_000 + copy))
    history.predicted = [found for found in history.predicted if found.event_id not in lost_ids]
    rng.shuffle(history.dead)
    gone, history.dead = history.dead[:n_letters_lost], history.dead[n_letters_lost:]
    history.dead += history.dead[:n_letters_twice]
    lost_ids |= {s.event_id for s in history.sent if (s.partition, s.offset) in {(d.partition, d.offset) for d in gone}}

    verdict = judge(history.write(tmp_path_factory.mktemp("run")))

    assert verdict.lost == lost_ids
    assert verdict.wrong == wrong_ids
    assert verdict.duplicated == n_twice + min(n_letters_twice, 20 - n_letters_lost)
    assert (verdict.reordered, verdict.unequal, verdict.torn) == (0, frozenset(), 0)
    assert verdict.is_right == (not (lost_ids or wrong_ids))


def _swap(history: History) -> None:
    first, second = (i for i, p in enumerate(history.predicted) if p.key == "key-0" and p.offset in (0, 4))
    a, b = history.predicted[first], history.predicted[second]
    history.predicted[first], history.predicted[second] = replace(a, offset=b.offset), replace(b, offset=a.offset)


def _other_bytes(history: History) -> None:
    history.predicted.append(replace(history.predicted[0], offset=999, digest="other"))


def _other_version(history: History) -> None:
    history.predicted.append(replace(history.predicted[0], offset=999, version="2"))


def _never_sent(history: History) -> None:
    history.predicted.append(replace(history.predicted[0], offset=999, event_id="e-none"))


def _other_key(history: History) -> None:
    history.predicted[0] = replace(history.predicted[0], key="other")


def _broken_one_predicted(history: History) -> None:
    history.predicted.append(_predicted(replace(history.sent[9], answer=4.0), history.sent[9].offset))


def _good_one_dead(history: History) -> None:
    record = history.sent[0]
    history.dead.append(Dead(record.partition, record.offset, "undecodable", record.digest))


def _letter_of_other_bytes(history: History) -> None:
    history.dead[0] = replace(history.dead[0], digest="other")


@pytest.mark.parametrize(
    ("do", "found"),
    [
        (_swap, "reordered"),
        (_other_bytes, "unequal"),
        (_other_version, "wrong"),
        (_never_sent, "wrong"),
        (_other_key, "wrong"),
        (_broken_one_predicted, "wrong"),
        (_good_one_dead, "wrong"),
        (_letter_of_other_bytes, "wrong"),
    ],
)
def test_it_finds(do: Callable[[History], None], found: str, tmp_path: Path) -> None:
    history = History(100)
    do(history)
    verdict = judge(history.write(tmp_path))
    assert getattr(verdict, found)
    others = {"lost", "wrong", "unequal", "reordered", "torn"} - {found}
    assert not any(getattr(verdict, other) for other in others)


def test_what_only_one_consumer_saw_is_torn(tmp_path: Path) -> None:
    history = History(100)
    history.during = history.predicted[:-3]
    assert judge(history.write(tmp_path)).torn == 3


def test_what_was_not_acknowledged_may_be_there_or_not(tmp_path: Path) -> None:
    history = History(100)
    for i in (0, 1):
        history.sent[i] = replace(history.sent[i], acked=False, offset=-1)
    history.predicted = [found for found in history.predicted if found.event_id != "e0"]
    verdict = judge(history.write(tmp_path))
    assert verdict.is_right
    assert verdict.n_events == 98


def test_a_record_sent_three_times_may_have_three_answers(tmp_path: Path) -> None:
    history = History(100)
    for offset in (501, 502):
        history.sent.append(replace(history.sent[0], offset=offset))
        history.predicted.append(replace(history.predicted[0], offset=offset))
    assert judge(history.write(tmp_path)).duplicated == 0
    history.predicted.append(replace(history.predicted[0], offset=503))
    assert judge(history.write(tmp_path)).duplicated == 1


def test_recovery_is_that_of_the_slowest_partition(tmp_path: Path) -> None:
    history = History(100)
    # Partition 1 answers nothing until second 70, then what waited, in order.
    history.predicted = [
        replace(p, at_ms=max(p.at_ms, 70_000.0)) if p.partition == 1 and p.at_ms > 40_000 else p
        for p in history.predicted
    ]
    files = history.write(tmp_path)
    assert recovery_s(files, since_ms=50_000.0) == pytest.approx(20.0)
    assert recovery_s(files, since_ms=0.0) == pytest.approx(2.005)  # e2 is partition 2's first
    assert recovery_s(files, since_ms=1e9) is None


def test_latencies_are_those_of_events_sent_in_between(tmp_path: Path) -> None:
    files = History(100).write(tmp_path)
    assert latencies_ms(files, 10_000.0, 20_000.0) == [pytest.approx(5.0)] * 9
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert quantile([1.0, 2.0], 0.99) == 2.0
