"""Dead letters as a worker writes them, without a worker."""

from __future__ import annotations

from support.kafka_tools import Outgoing

#: When the events of these letters were produced.
FIRST_MS = 1_700_000_000_000


def letter(
    source: str,
    offset: int,
    partition: int = 0,
    *,
    key: bytes | None = b"k",
    value: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (("trace", b"\xff"),),
    written_ms: int | None = None,
    to_partition: int | None = None,
    **said: str,
) -> Outgoing:
    """Return a dead letter.

    Parameters
    ----------
    source, partition, offset : str, int, int
        Where the event stood.
    key, value, headers : bytes, bytes, tuple
        What it was; by default an event with its offset as its number.
    written_ms : int, optional
        The letter's own timestamp.
    to_partition : int, optional
        Where in the dead-letter topic; by default the key decides.
    **said : str
        What the engine says besides or instead, such as ``reason="too_large"``.
    """
    engine = {
        "reason": "missing_field",
        "stage": "score",
        "detail": f"field 'seq' is missing ({offset})",
        "attempts": "1",
        "topic": source,
        "partition": str(partition),
        "offset": str(offset),
        "timestamp_ms": str(FIRST_MS + offset),
        **said,
    }
    return Outgoing(
        b'{"n":%d}' % offset if value is None else value,
        key,
        partition=to_partition,
        timestamp_ms=written_ms,
        headers=[*headers, *((f"modelstream.{name}", text.encode()) for name, text in engine.items())],
    )
