from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import EventBatch
from modelstream.operators.encode import PredictionEncoder
from modelstream.streams.replay.matching import UNKNOWN, Matcher, hash_ids, hash_predictions

ids = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=30)
nasty = st.text() | st.sampled_from(['"', '","key":', '\\","key":"', "é\n", ""])


@given(ids, ids, st.integers(0, 30))
def test_predictions_belong_to_the_events_of_their_id_in_order(sent: list[str], found: list[str], n: int) -> None:
    left = {name: [i for i, event_id in enumerate(sent) if event_id == name] for name in "abcd"}
    expected = [left[name].pop(0) if left[name] else UNKNOWN for name in found]
    assert Matcher(hash_ids(sent)).match(hash_ids(found)).tolist() == expected
    in_parts = Matcher(hash_ids(sent))
    assert [p for part in (found[:n], found[n:]) for p in in_parts.match(hash_ids(part)).tolist()] == expected


def test_events_with_the_id_of_an_earlier_one_are_counted_but_not_those_without_any() -> None:
    assert Matcher(hash_ids(["a", "b", "a", "", "", "a"])).n_repeated == 2
    assert Matcher(hash_ids([])).n_repeated == 0


@given(st.lists(nasty, min_size=1, max_size=10), st.none() | nasty.map(str.encode))
def test_the_hash_of_a_prediction_is_that_of_its_event(event_ids: list[str], key: bytes | None) -> None:
    batch = EventBatch.of_events([{}] * len(event_ids))
    batch.ids, batch.keys = event_ids, [key] * len(event_ids)
    documents = [document.encode() for document in PredictionEncoder("seed").encode(batch)]
    assert hash_predictions(documents).tolist() == hash_ids(event_ids).tolist()


def test_what_is_no_prediction_answers_nothing() -> None:
    found = hash_predictions([b"", b"x", b'{"id":"'])
    assert (Matcher(hash_ids(["a"])).match(found) == np.full(3, UNKNOWN)).all()
