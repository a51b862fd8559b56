"""Workers whose wall clock is wrong, by a Python module put in their way.

Not by libfaketime: that changes what C programs read, and not the deadlines of C11's `cnd_timedwait`, which librdkafka
waits with, so that a worker under it cannot talk to any broker. Here librdkafka keeps the right clock; what Python code
reads, which is all that the engine does with wall clocks, is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

# Python imports `sitecustomize` at its start.
_SITECUSTOMIZE = """\
import time
from pathlib import Path

_true_time, _true_ns = time.time, time.time_ns

def _offset_s():
    offset_s, rate, since_s = map(float, Path({file!r}).read_text().split())
    return offset_s + (rate - 1.0) * (_true_time() - since_s)

time.time = lambda: _true_time() + _offset_s()
time.time_ns = lambda: _true_ns() + int(_offset_s() * 1e9)
"""


class WrongClock:
    """The wall clock of processes, wrong by an offset that may jump or grow; their monotonic clock is right.

    Parameters
    ----------
    folder : Path
        For its files.
    offset_s : float
        How wrong it is at first.
    rate : float
        How fast it goes; 1 is right.
    """

    def __init__(self, folder: Path, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self._rate, self._since_s = rate, time.time()
        self._file = folder / "clock-offset"
        self._module = folder / "clock" / "sitecustomize.py"
        self._module.parent.mkdir()
        self._module.write_text(_SITECUSTOMIZE.format(file=str(self._file)))
        self.jump(offset_s)

    def jump(self, offset_s: float) -> None:
        """Be wrong by another offset from now on."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{offset_s} {self._rate} {self._since_s}")
        scratch.rename(self._file)  # never read half written

    @property
    def environ(self) -> Mapping[str, str]:
        """What the processes need in their environment."""
        return {"PYTHONPATH": str(self._module.parent)}
