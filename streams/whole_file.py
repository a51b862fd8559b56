"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_or_nothing"]


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Give the path to write to, ``NAME.part``, which gets the file's name in the end; after an error it is removed.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # where it could not even be made, what failed is told already
            part.unlink(missing_ok=True)
