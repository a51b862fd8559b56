"""What a dead letter says: the record as it came, and in headers why it was put aside and where it stood."""

from __future__ import annotations

import hashlib

from modelstream.operators.batch import EventBatch, Fault
from modelstream.streams.delivery import Output
from modelstream.streams.headers import Headers, as_count, own_headers, split_own
from modelstream.streams.records import SourceRecord

__all__ = ["dead_letters"]

# A value too large for the engine may be too large for the dead-letter topic as well: its head and its hash remain.
_MAX_VALUE_BYTES = 900_000
_KEPT_PREFIX_BYTES = 64 * 1024

# Key, value and the record's headers together. A topic takes 1,048,588 bytes by default; what the engine adds, an
# exception's text in the main, is some 4 kB. A letter that Kafka refuses would end the worker, again and again.
_MAX_LETTER_BYTES = 1_000_000
# Two lengths of at most five bytes each stand before a header's name and its value.
_HEADER_OVERHEAD_BYTES = 10

# One line for a person; an exception's text may hold a whole record.
_MAX_DETAIL_CHARS = 500


def dead_letters(topic: str, rejected: EventBatch) -> Output:
    """Return the dead letters of rejected rows.

    Parameters
    ----------
    topic : str
        The dead-letter topic.
    rejected : EventBatch
        Rows with a fault each, whose lineage leads to record batches that an agent has taken up.
    """
    lineage = rejected.lineage
    records = [
        lineage.sources[source].record(index)
        for source, index in zip(lineage.source_index.tolist(), lineage.record_index.tolist(), strict=True)
    ]
    letters = [_letter(record, rejected.faults[row]) for row, record in enumerate(records)]
    return Output(
        topic=topic,
        keys=[key for key, _, _ in letters],
        values=[value for _, value, _ in letters],
        headers=[headers for _, _, headers in letters],
        owed=[(batch.ticket, count) for batch, count in lineage.count_by_source()],
        lineage=lineage,
    )


def _letter(record: SourceRecord, fault: Fault) -> tuple[bytes | None, bytes | None, Headers]:
    # A redriven record says how often it failed before, where it stood first and which letter it was.
    before, headers = split_own(record.headers)
    first_ms = as_count(before.get("timestamp_ms")) if "origin" in before else None
    said: dict[str, str | int | None] = {
        "reason": fault.reason,
        "stage": fault.stage,
        "detail": fault.detail[:_MAX_DETAIL_CHARS],
        "attempts": (as_count(before.get("attempts")) or 0) + 1,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms if first_ms is None else first_ms,
        "exception": fault.exception,
    }
    for name in ("origin", "redriven_from", "dropped_headers"):
        said[name] = before[name].decode("utf-8", "replace")[:_MAX_DETAIL_CHARS] if name in before else None
    key, value, headers = _shortened(record.key, record.value, headers, said)
    return key, value, headers + own_headers(said)


def _shortened(
    key: bytes | None, value: bytes | None, headers: Headers, said: dict[str, str | int | None]
) -> tuple[bytes | None, bytes | None, Headers]:
    """Return what of a record fits into a dead letter: nearly always all of it. What does not is said."""
    n_headers = sum(len(name.encode()) + len(cell or b"") + _HEADER_OVERHEAD_BYTES for name, cell in headers)
    n_key, n_value = len(key or b""), len(value or b"")
    if value is not None and (n_value > _MAX_VALUE_BYTES or n_key + n_value + n_headers > _MAX_LETTER_BYTES):
        said |= {"truncated_from_bytes": n_value, "sha256": hashlib.sha256(value).hexdigest()}
        value = value[:_KEPT_PREFIX_BYTES]
    if n_key + n_headers > _MAX_LETTER_BYTES - _KEPT_PREFIX_BYTES and headers:
        said["dropped_headers"] = len(headers)
        headers = []
    if key is not None and n_key > _MAX_LETTER_BYTES - _KEPT_PREFIX_BYTES:
        said["key_truncated_from_bytes"] = n_key
        key = key[:_KEPT_PREFIX_BYTES]
    return key, value, headers
