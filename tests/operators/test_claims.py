from __future__ import annotations

import numpy as np
import pytest

from modelstream.operators.answer_parts import AnswerParts
from modelstream.operators.claims import Claims

ALL = np.arange(3)
DIGESTS = [b"a", b"b", b"c"]


def test_only_what_nobody_computes_is_claimed() -> None:
    claims = Claims()
    first, others = claims.claim(DIGESTS, ALL[:2])
    assert (first.claimed, others) == ([b"a", b"b"], [])
    second, others = claims.claim([b"c", b"b", b"d"], ALL)
    assert second.claimed == [b"c", b"d"]
    assert others == [(first, [1])]
    third, others = claims.claim([b"d", b"b"], ALL[:2])
    assert third.claimed == []
    assert others == [(second, [0]), (first, [1])]


@pytest.mark.parametrize("given_up", [False, True])
def test_what_is_released_may_be_claimed_again(given_up: bool) -> None:
    claims = Claims()
    first, _ = claims.claim(DIGESTS, ALL)
    if given_up:
        claims.give_up(first)
        second, others = claims.claim(DIGESTS, ALL)
        assert (second.claimed, others) == (DIGESTS, [])
        # That the first one ends at last does not take it away from the second.
        claims.release(first)
        third, others = claims.claim(DIGESTS, ALL)
        assert (third.claimed, others) == ([], [(second, [0, 1, 2])])
        claims.release(second)
    else:
        claims.release(first)
    last, others = claims.claim(DIGESTS, ALL)
    assert (last.claimed, others) == (DIGESTS, [])


def test_waiting() -> None:
    claim, _ = Claims().claim(DIGESTS, ALL)
    assert claim.wait(0.001) is None
    parts = AnswerParts(3)
    claim.fulfil(parts)
    assert claim.wait(0) is parts
    failed, _ = Claims().claim(DIGESTS, ALL)
    failed.fulfil(None)
    assert failed.wait(60) is None
