"""Where the events of a replay come from: a file of events, a file of captured records, or a topic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from modelstream.models.errors import ConfigError
from modelstream.streams.cluster import Cluster
from modelstream.streams.event_files import EventFile, FileFormat, open_events
from modelstream.streams.replay.capture import CaptureFile, is_capture
from modelstream.streams.replay.prepared import TimedRecord, without_times
from modelstream.streams.replay.recorded import RecordedBatch, read_recorded
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.spec import SourceSpec

__all__ = ["CaptureSource", "FileSource", "ReplaySource", "TopicSource", "open_source"]


class ReplaySource(ABC):
    """Records to replay, in their order.

    Attributes
    ----------
    name : str
        What to call it in a message.
    has_times : bool
        Whether records have timestamps, to go by where events have no times of their own.
    """

    name: str
    has_times = True
    #: What to name instead of one without records.
    _another = "a file"

    @abstractmethod
    def records(self) -> Iterator[TimedRecord]:
        """Yield key, value, timestamp, and of recorded ones the headers."""

    def some_records(self) -> Iterator[TimedRecord]:
        """Return the records where there are any; the first one is read at once.

        Raises
        ------
        ConfigError
            There are none.
        """
        records = self.records()
        for first in records:
            return chain([first], records)
        raise ConfigError(self.name, f"holds no events; name {self._another} that has some")

    @abstractmethod
    def share_read(self) -> float | None:
        """Return how much has been read, from 0 to 1; None where nobody knows."""


class FileSource(ReplaySource):
    """Events of a file, as `produce` sends them."""

    has_times = False

    def __init__(self, file: EventFile) -> None:
        self._file, self.name = file, file.name

    def records(self) -> Iterator[TimedRecord]:
        """Yield key and value, without a time."""
        return without_times(self._file.records())

    def share_read(self) -> float | None:
        """Return how much of the file has been read."""
        return self._file.share_read()


class _Recorded(ReplaySource):
    def __init__(self) -> None:
        self._n_read, self._n_records = 0, 0

    def share_read(self) -> float | None:
        """Return how many of the records have been read."""
        return self.share_of(self._n_read)

    def share_of(self, n_records: int) -> float | None:
        """Return which share of all records so many are, from 0 to 1; None where nobody knows."""
        return n_records / self._n_records if self._n_records else None

    def _each(self, batches: Iterable[RecordedBatch]) -> Iterator[TimedRecord]:
        for batch in batches:
            self._n_read += len(batch)
            yield from zip(batch.keys, batch.values, batch.timestamps_ms.tolist(), batch.headers, strict=True)


class CaptureSource(_Recorded):
    """Records of a file that ``replay --capture`` wrote."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = CaptureFile(path)
        self.name = self._file.name
        self._n_records = self._file.n_records

    def records(self) -> Iterator[TimedRecord]:
        """Yield the records in the order of the file."""
        return self._each(self._file.batches())


class TopicSource(_Recorded):
    """Records that a topic holds now, by time.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The topic.
    since_ms, until_ms : int or None
        Of which time; see `read_recorded`.

    Raises
    ------
    ConfigError
        There is no such topic.
    BrokerUnavailable
        The broker does not answer.
    """

    _another = "a topic, or a time by --since and --until,"

    def __init__(self, settings: BrokerSettings, topic: str, since_ms: int | None, until_ms: int | None) -> None:
        super().__init__()
        self._settings, self.topic, self.name = settings, topic, f"topic {topic}"
        self._since_ms, self._until_ms = since_ms, until_ms
        if Cluster(settings).partition_counts([topic])[topic] is None:
            raise ConfigError("--from-topic", f"no topic {topic!r} on {settings.bootstrap}")

    def batches(self, limit: int | None = None) -> Iterator[RecordedBatch]:
        """Yield the records, as many as a limit allows."""
        return read_recorded(
            self._settings, self.topic, since_ms=self._since_ms, until_ms=self._until_ms, limit=limit,
            on_start=lambda n_offsets: setattr(self, "_n_records", n_offsets),
        )  # fmt: skip

    def records(self) -> Iterator[TimedRecord]:
        """Yield the records in the order of their timestamps."""
        return self._each(self.batches())


def open_source(
    path: Path | None, file_format: FileFormat | None, source: SourceSpec, *, as_is: bool = False
) -> FileSource | CaptureSource:
    """Return the events of a file, or the records of one that was captured, which its own metadata tells.

    Parameters
    ----------
    path, file_format, as_is
        As for `open_events`.
    source : SourceSpec
        How the pipeline reads events.

    Raises
    ------
    ConfigError
        There is no such file, or it cannot be read that way.
    """
    if path is not None and file_format in (None, "parquet") and is_capture(path):
        return CaptureSource(path)
    codes = source.code_fields
    return FileSource(open_events(path, file_format, source.key, as_is=as_is, source_format=source.format, codes=codes))
