"""What a worker's log shows of its client libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from modelstream.streams.broker_probe import BrokerStatus
from modelstream.streams.worker import log_to_stderr


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    names = ("faust", "mode", "asyncio", "aiohttp", "aiokafka")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def librdkafka(kind: str, text: str) -> None:
    logging.getLogger("modelstream.streams.pump").error("%s [%s] %s", kind, "consumer-3", text)


def _log_an_outage(status: BrokerStatus) -> None:
    librdkafka("FAIL", "disconnected")
    for attempt in range(40):
        if attempt == 2:
            status.note_silence("no connection")
        logging.getLogger("aiokafka").error("Unable connect to node with id %s: %s", 1, "refused")
        librdkafka("FAIL", f"attempt {attempt}")
        logging.getLogger("modelstream.streams.app").info("attempt %d", attempt)
    status.note_answer()


def test_an_outage_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info")
    _log_an_outage(BrokerStatus("kafka:9092"))
    lines = capsys.readouterr().err.splitlines()
    assert sum("attempt" in line for line in lines) == 40  # the engine's own messages are never held back
    told = [line.split(maxsplit=3)[3] for line in lines if "attempt" not in line]
    assert told == [
        "broker kafka:9092 does not answer: no connection; waiting for it",
        "broker kafka:9092 answers again, after 0 s",
    ]


def test_trouble_with_connections_that_goes_on_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_to_stderr("info")
    now = [1_000_000.0]
    monkeypatch.setattr(logging.time, "time", lambda: now[0])
    monkeypatch.setattr(logging.time, "time_ns", lambda: int(now[0] * 1e9), raising=False)
    for _ in range(25):
        librdkafka("FAIL", "of one broker of three")
        now[0] += 1
    assert capsys.readouterr().err.count("of one broker of three") == 2


def test_other_messages_are_shown_once_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info")
    for _ in range(2):
        librdkafka("CONFWARN", "a setting")
        librdkafka("PARTCNT", "a topic")
    shown = capsys.readouterr().err
    assert shown.count("CONFWARN") == shown.count("PARTCNT") == 1


def test_debug_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("debug")
    _log_an_outage(BrokerStatus("kafka:9092"))
    assert capsys.readouterr().err.count("Unable connect to node") == 40
