from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import EventBatch, Fault, Lineage, ModelOutput, RowStatus, Settled

SOURCES = ("source a", "source b", "source c")
FATES = st.sampled_from(RowStatus)


def make_batch(places: list[tuple[int, int]]) -> EventBatch:
    """Return a batch in which every column says which row it belongs to."""
    rows = range(len(places))
    numbers = np.arange(len(places))
    return EventBatch(
        keys=[None if row % 3 == 0 else b"key %d" % row for row in rows],
        ids=[f"id {row}" for row in rows],
        event_times=numbers.astype("datetime64[ms]"),
        events=[{"row": row} for row in rows],
        lineage=Lineage(
            SOURCES,
            np.array([source for source, _ in places], np.int32),
            np.array([record for _, record in places], np.int32),
        ),
        columns={
            "number": numbers.astype(np.float32),
            "text": [f"text {row}" for row in rows],
            "vector": np.column_stack([numbers, -numbers]),
        },
        outputs={"model": ModelOutput("2", {"value": numbers * 0.5, "label": [f"label {row}" for row in rows]})},
    )


def contents(batch: EventBatch) -> list[tuple[Any, ...]]:
    """Return the batch row by row."""
    outputs = [
        [column[i] for column in output.fields.values()] for output in batch.outputs.values() for i in range(len(batch))
    ]
    lineage = batch.lineage
    return [
        (
            batch.keys[i],
            batch.ids[i],
            batch.event_times[i],
            batch.events[i]["row"],
            (lineage.sources[lineage.source_index[i]], int(lineage.record_index[i])),
            float(batch.columns["number"][i]) if batch.columns else None,
            batch.columns["text"][i] if batch.columns else None,
            tuple(batch.columns["vector"][i]) if batch.columns else None,
            outputs[i] if batch.outputs else None,
            batch.faults.get(i),
        )
        for i in range(len(batch))
    ]


places = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000)), min_size=1, max_size=30)


@given(places, st.data())
def test_select_and_concat_put_a_batch_together_again(where: list[tuple[int, int]], data: st.DataObject) -> None:
    batch = make_batch(where)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(where)), max_size=4)))
    bounds = [0, *cuts, len(where)]
    rows = np.arange(len(where))
    parts = [batch.select(rows[start:stop]) for start, stop in pairwise(bounds)]
    assert contents(EventBatch.concat(parts)) == contents(batch)


@given(places, st.data())
def test_select_by_mask_is_select_by_index(where: list[tuple[int, int]], data: st.DataObject) -> None:
    batch = make_batch(where)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(where), max_size=len(where))))
    whole = contents(batch)
    assert contents(batch.select(mask)) == [whole[i] for i in np.flatnonzero(mask)]
    assert contents(batch.select(np.flatnonzero(mask))) == contents(batch.select(mask))


@given(places, st.data())
def test_settle_gives_every_row_one_fate_and_loses_none(where: list[tuple[int, int]], data: st.DataObject) -> None:
    batch = make_batch(where)
    whole = contents(batch)
    fates = data.draw(st.lists(FATES, min_size=len(where), max_size=len(where)))
    for row, fate in enumerate(fates):
        if fate == RowStatus.REJECTED:
            batch.reject(row, Fault("stage", "wrong_type", f"row {row}"))
    batch.filter_out(np.array([fate == RowStatus.FILTERED for fate in fates]))
    settled = batch.settle()

    assert contents(settled.kept) == [whole[i] for i, fate in enumerate(fates) if fate == RowStatus.KEPT]
    n_filtered = fates.count(RowStatus.FILTERED)
    assert (0 if settled.filtered is None else len(settled.filtered)) == n_filtered
    rejected = [] if settled.rejected is None else contents(settled.rejected)
    expected = [i for i, fate in enumerate(fates) if fate == RowStatus.REJECTED]
    assert [row[3] for row in rejected] == expected
    assert [row[-1].detail for row in rejected] == [f"row {i}" for i in expected]

    booked: Counter[Any] = Counter()
    lineages = [settled.kept.lineage, settled.filtered, settled.rejected.lineage if settled.rejected else None]
    for lineage in lineages:
        if lineage is not None:
            booked.update(dict(lineage.count_by_source()))
    assert +booked == Counter(SOURCES[source] for source, _ in where)


def test_settle_without_a_fate_is_the_batch_itself() -> None:
    batch = make_batch([(0, 0), (1, 1)])
    assert batch.settle() == Settled(batch, None, None)
    assert batch.settle().kept is batch


def test_concat_keeps_status_and_faults_at_their_rows() -> None:
    first, second = make_batch([(0, 0), (0, 1)]), make_batch([(1, 0), (1, 1)])
    fault = Fault("stage", "wrong_type", "bad")
    second.reject(1, fault)
    joined = EventBatch.concat([first, second])
    assert joined.faults == {3: fault}
    assert joined.status is not None
    assert joined.status.tolist() == [0, 0, 0, RowStatus.REJECTED]


def test_concat_keeps_a_shared_source_once() -> None:
    batch = make_batch([(0, 0), (1, 1), (2, 2)])
    rows = np.arange(3)
    lineage = EventBatch.concat([batch.select(rows[:1]), batch.select(rows[1:])]).lineage
    assert lineage.sources == SOURCES


def test_the_first_fault_of_a_row_counts() -> None:
    batch = make_batch([(0, 0)])
    first = Fault("stage", "wrong_type", "first")
    batch.reject(0, first)
    batch.reject(0, Fault("stage", "wrong_type", "second"))
    assert batch.faults == {0: first}


def test_a_rejected_row_is_not_filtered() -> None:
    batch = make_batch([(0, 0), (0, 1)])
    batch.reject(0, Fault("stage", "wrong_type", "bad"))
    batch.filter_out(np.array([True, True]))
    settled = batch.settle()
    assert settled.rejected is not None and len(settled.rejected) == 1
    assert settled.filtered is not None and len(settled.filtered) == 1


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_lineage_of_a_source_counts_its_rows(n_rows: int) -> None:
    lineage = Lineage.of_source("source", n_rows)
    assert len(lineage) == n_rows
    assert lineage.count_by_source() == ([("source", n_rows)] if n_rows else [])
