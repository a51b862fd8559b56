"""What a worker's log shows of its client libraries."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

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


def _log_an_outage() -> None:
    for attempt in range(40):
        logging.getLogger("aiokafka").error("Unable connect to node with id %s: %s", 1, "refused")
        logging.getLogger("modelstream.streams.pump").error("%s [%s] %s", "FAIL", "consumer-3", f"attempt {attempt}")
        logging.getLogger("modelstream.streams.app").info("attempt %d", attempt)


def test_an_outage_is_told_and_not_40_times_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info")
    _log_an_outage()
    shown = capsys.readouterr().err
    assert shown.count("Unable connect to node") == 1
    assert shown.count("FAIL") == 1
    assert shown.count("INFO    attempt") == 40  # the engine's own messages are never held back


def test_other_messages_of_the_same_library_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info")
    for node in (1, 2, 1):
        logging.getLogger("aiokafka").error("Unable connect to node with id %s: %s", node, "refused")
    assert capsys.readouterr().err.count("Unable connect") == 2


def test_debug_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("debug")
    _log_an_outage()
    assert capsys.readouterr().err.count("Unable connect to node") == 40
