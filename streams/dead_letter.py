"""What a dead letter says: the record as it came, and in headers why it was put aside and where it stood."""

from __future__ import annotations

import hashlib

from modelstream.operators.batch import EventBatch, Fault
from modelstream.streams.delivery import Headers, Output
from modelstream.streams.records import SourceRecord

__all__ = ["dead_letters"]

# A value too large for the engine may be too large for the dead-letter topic as well: its head and its hash remain.
_MAX_VALUE_BYTES = 900_000
_KEPT_PREFIX_BYTES = 64 * 1024

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
        keys=[record.key for record in records],
        values=[value for value, _ in letters],
        headers=[headers for _, headers in letters],
        owed=[(batch.ticket, count) for batch, count in lineage.count_by_source()],
    )


def _letter(record: SourceRecord, fault: Fault) -> tuple[bytes | None, Headers]:
    headers: Headers = [
        *record.headers,
        ("modelstream.reason", fault.reason.encode()),
        ("modelstream.stage", fault.stage.encode()),
        ("modelstream.detail", fault.detail[:_MAX_DETAIL_CHARS].encode("utf-8", "backslashreplace")),
        ("modelstream.attempts", b"1"),
        ("modelstream.topic", record.topic.encode()),
        ("modelstream.partition", str(record.partition).encode()),
        ("modelstream.offset", str(record.offset).encode()),
        ("modelstream.timestamp_ms", str(record.timestamp_ms).encode()),
    ]
    if fault.exception is not None:
        headers.append(("modelstream.exception", fault.exception.encode()))
    value = record.value
    if value is not None and len(value) > _MAX_VALUE_BYTES:
        headers.append(("modelstream.truncated_from_bytes", str(len(value)).encode()))
        headers.append(("modelstream.sha256", hashlib.sha256(value).hexdigest().encode()))
        value = value[:_KEPT_PREFIX_BYTES]
    return value, headers
