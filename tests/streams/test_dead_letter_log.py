"""What a worker's log says of dead letters: no reason is kept back, and no count is that of long ago."""

from __future__ import annotations

import asyncio

import pytest

from modelstream.operators.batch import Fault
from modelstream.streams import dead_letter_log
from modelstream.streams.dead_letter_log import DeadLetterLog


def test_a_new_reason_is_told_at_once_and_the_rest_later_with_their_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letter_log, "_REPEAT_AFTER_S", 0.02)
    n_letters = 0
    log = DeadLetterLog(lambda: n_letters)

    async def work() -> None:
        nonlocal n_letters
        told_all = asyncio.Event()
        tell = log._tell_latest
        monkeypatch.setattr(log, "_tell_latest", lambda: (tell(), told_all.set()))
        for fault in [Fault("score", "decode", f"no JSON {i}") for i in range(3)] + [Fault("score", "type", "a text")]:
            n_letters += 1
            log.note([fault])
        assert len(caplog.messages) == 2
        n_letters += 5
        await asyncio.wait_for(told_all.wait(), 10)
        await asyncio.sleep(0.05)

    asyncio.run(work())
    assert caplog.messages == [
        "1 dead letter so far in all, now: decode at stage 'score': no JSON 0",
        "4 dead letters so far in all, now: type at stage 'score': a text",
        "9 dead letters so far in all, now: decode at stage 'score': no JSON 2",
    ]
