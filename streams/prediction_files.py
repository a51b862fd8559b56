"""Files of predictions: NDJSON, each line a prediction record, or Parquet; whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.operators.answers import OutputSchema
from modelstream.streams.whole_file import whole_or_nothing

__all__ = ["NdjsonWriter", "PredictionWriter", "open_output", "open_predictions", "output_format"]

OutputFormat = Literal["ndjson", "parquet"]

_SUFFIXES: dict[str, OutputFormat] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}

#: The fastest: predictions are all alike, so it takes a tenth of the size, and 6 % more of it at the default of 9.
_GZIP_LEVEL = 1


class PredictionWriter(ABC):
    """Writes prediction records, in the order in which they come."""

    @abstractmethod
    def write(self, values: Sequence[str]) -> None:
        """Write some records, each a JSON document on one line."""

    @abstractmethod
    def close(self) -> None:
        """Write what is held back. The stream below stays open."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the stream, whose file will not be kept."""


class NdjsonWriter(PredictionWriter):
    """One record a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, values: Sequence[str]) -> None:
        """Write some records."""
        self._stream.write("".join([value + "\n" for value in values]).encode())

    def close(self) -> None:
        """Write what is held back."""
        self._stream.flush()

    def abandon(self) -> None:
        """Do nothing: what is written is in the stream."""


def output_format(path: Path | None) -> OutputFormat:
    """Return what a file is to hold by its suffix; standard output (None) gets NDJSON.

    Raises
    ------
    ConfigError
        The suffix says nothing that can be written.

    Examples
    --------
    >>> output_format(Path("out.ndjson.gz")), output_format(Path("out.pq")), output_format(None)
    ('ndjson', 'parquet', 'ndjson')
    """
    if path is None:
        return "ndjson"
    name = path.name.lower()
    found = _SUFFIXES.get(Path(name.removesuffix(".gz")).suffix)
    if found is None or (found == "parquet" and name.endswith(".gz")):
        raise ConfigError(str(path), "predictions are written as .parquet, .ndjson or .ndjson.gz, or to - as NDJSON")
    return found


@contextlib.contextmanager
def open_predictions(path: Path | None, answers: Mapping[str, OutputSchema]) -> Iterator[PredictionWriter]:
    """Open a file for predictions; it is there when the block has ended well, and not before.

    Parameters
    ----------
    path : Path or None
        The file; None is standard output.
    answers : mapping of str to OutputSchema
        What the predictions say, for the columns of a Parquet file.

    Raises
    ------
    ConfigError
        It cannot be written, or Parquet cannot for want of pyarrow.
    """
    form = output_format(path)
    with open_output(path) as stream:
        if form == "ndjson":
            writer: PredictionWriter = NdjsonWriter(stream)
        else:
            from modelstream.streams.prediction_tables import ParquetWriter

            writer = ParquetWriter(stream, answers)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.close()


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open a file to write, compressed if its name says so; a file of that name is replaced once all is written.

    Raises
    ------
    ConfigError
        It cannot be made.
    ModelStreamError
        It cannot be written to its end.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with whole_or_nothing(path) as part, _make(part, path) as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(path.stem, "wb", _GZIP_LEVEL, file, mtime=0) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield file
    except OSError as error:
        raise ModelStreamError(f"{path}: cannot be written: {error.strerror or error}") from None


def _make(part: Path, path: Path) -> BinaryIO:
    try:
        return part.open("wb")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from None
