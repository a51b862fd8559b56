"""Which letters a redrive sends."""

from __future__ import annotations

from dataclasses import replace

from modelstream.streams.dead_letter_reading import Letter, Place, RecordPlace
from modelstream.streams.redrive_plan import plan_redrive

LETTER = Letter(
    Place(0, 1), 0, 9, b"k", "undecodable", "source", "broken", 1, RecordPlace("events", 0, 7, 5), ("events", 0, 7)
)


def failed(offset: int, **changed: object) -> Letter:
    source = RecordPlace("events", 0, offset, 5)
    letter = replace(LETTER, place=Place(0, offset), source=source, origin=source[:3])
    return replace(letter, **changed)  # type: ignore[arg-type]


def test_all_that_can_be_sent_is_in_the_order_given() -> None:
    letters = [failed(2), failed(3), failed(5)]
    plan = plan_redrive(letters, "events", max_attempts=5)
    assert (plan.send, plan.left) == (letters, {})


def test_what_cannot_be_sent_says_why() -> None:
    letters = [
        failed(1, source=None),
        failed(2, source=RecordPlace("others", 0, 2, 5)),
        failed(3, incomplete="of 2000000 bytes of the value only the beginning was kept"),
        failed(4, attempts=3),
        failed(5, attempts=2),
    ]
    plan = plan_redrive(letters, "events", max_attempts=3)
    assert plan.send == [letters[-1]]
    assert plan.left == {
        "not written by a worker": 1,
        "of topic others, not events": 1,
        "only a part of the record was kept": 1,
        "failed 3 times or more": 1,
    }


def test_a_record_that_became_two_letters_is_sent_once() -> None:
    letters = [failed(1), replace(failed(1), place=Place(1, 8)), failed(2)]
    plan = plan_redrive(letters, "events", max_attempts=5)
    assert plan.send == [letters[0], letters[2]]
    assert plan.left == {"the same record as another letter": 1}


def test_a_record_of_a_topic_made_anew_is_another_one() -> None:
    letters = [failed(1), failed(1, source=RecordPlace("events", 0, 1, 6))]
    assert plan_redrive(letters, "events", max_attempts=5).send == letters


def test_a_limit_counts_what_is_sent() -> None:
    letters = [failed(1, attempts=9), failed(2), failed(3), failed(4)]
    assert plan_redrive(letters, "events", max_attempts=5, limit=2).send == letters[1:3]
