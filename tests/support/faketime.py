"""Workers whose wall clock is wrong: by libfaketime where it is installed, else by a Python module put in their way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Where Debian's package puts it; the MT variant is for processes with threads.
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

# Python imports `sitecustomize` at its start. C code, librdkafka's, keeps the right clock.
_SITECUSTOMIZE = """\
import time
from pathlib import Path

_true_time, _true_ns = time.time, time.time_ns

def _offset_s():
    return float(Path({file!r}).read_text())

time.time = lambda: _true_time() + _offset_s()
time.time_ns = lambda: _true_ns() + int(_offset_s() * 1e9)
"""


class WrongClock:
    """The wall clock of processes, wrong by an offset that may jump; their monotonic clock is right.

    Parameters
    ----------
    folder : Path
        For its files.
    offset_s : float
        How wrong it is at first.
    """

    def __init__(self, folder: Path, offset_s: float = 0.0) -> None:
        self._file = folder / "clock-offset"
        self._folder = folder / "clock-site"
        self.by = "libfaketime" if _LIBRARIES else "sitecustomize"
        self.jump(offset_s)

    def jump(self, offset_s: float) -> None:
        """Be wrong by another offset from now on."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{offset_s:+.3f}" if self.by == "libfaketime" else str(offset_s))
        scratch.rename(self._file)  # never read half written

    @property
    def environ(self) -> Mapping[str, str]:
        """What the processes need in their environment."""
        if self.by == "libfaketime":
            return {
                "LD_PRELOAD": str(_LIBRARIES[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self._folder.mkdir(exist_ok=True)
        (self._folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(file=str(self._file)))
        return {"PYTHONPATH": str(self._folder)}
