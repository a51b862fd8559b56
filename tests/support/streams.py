"""A small pipeline on real topics whose every answer is known, and the oracle that counts what came of its events."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from support.kafka_tools import Incoming, Outgoing, committed_offsets, end_offsets, produce_all, read_all
from support.onnx_factory import affine, write_model

from modelstream.streams.worker_process import WorkerProcess

#: What a wait may take at the most; a test that passes never comes near it.
DEADLINE_S = 100.0

_PIPELINE = """\
pipeline: {group}
source: {{topic: {source}, event_id: id}}
stages:
  - id: wanted
    filter: {{present: [seq]}}
  - id: score
    infer: {{models: [triple]}}
sink: {{topic: {sink}, dead_letter: {dead}}}
"""


@dataclass
class Outcome:
    """What came of the events that were sent.

    An event is *lost* if it has neither a prediction nor a dead letter; a prediction is *wrong* if its value is not
    the model's, and *out of order* if an earlier event of its key comes for the first time after a later one.
    """

    lost: set[str]
    duplicates: int
    wrong: list[str]
    out_of_order: int
    dead_letters: list[Incoming]
    predictions: Counter[str] = field(repr=False)

    @property
    def is_clean(self) -> bool:
        """Whether every event has exactly one right prediction, in the order of its key."""
        return not (self.lost or self.duplicates or self.wrong or self.out_of_order or self.dead_letters)


@dataclass
class KnownStream:
    """Topics, a pipeline file and a model that answers ``3·seq + 1``."""

    bootstrap: str
    folder: Path
    source: str
    sink: str
    dead: str
    group: str

    def __post_init__(self) -> None:
        write_model(self.folder / "models", "triple", affine([3.0], bias=1.0), '[inputs.x]\nfields = ["seq"]\n')
        self.file = self.folder / "pipeline.yaml"
        self.file.write_text(
            _PIPELINE.format(group=self.group, source=self.source, sink=self.sink, dead=self.dead), encoding="utf-8"
        )

    def worker(self, *options: str, broker: str | None = None, **environ: str) -> WorkerProcess:
        """Return a worker on this pipeline, not started yet."""
        return WorkerProcess([str(self.file), "--broker", broker or self.bootstrap, *options], os.environ | environ)

    def script(self, file: Path) -> WorkerProcess:
        """Return a process that runs a Python file on this pipeline, not started yet."""
        return _Script(self, file)

    def send(self, numbers: Iterable[int], n_keys: int = 50) -> None:
        """Produce one event a number, keyed so that the events of a key come in the order of their numbers."""
        produce_all(self.bootstrap, self.source, (known_record(n, n_keys) for n in numbers))

    def outcome(self, numbers: Iterable[int], *, isolation: str = "read_uncommitted") -> Outcome:
        """Read the output topics to their ends and compare with what was sent."""
        sent = {f"e{n}": n for n in numbers}
        found: Counter[str] = Counter()
        wrong, out_of_order, last = [], 0, dict[bytes | None, int]()
        for record in read_all(self.bootstrap, self.sink, isolation=isolation):
            prediction = orjson.loads(record.value or b"")
            event_id, value = prediction["event_id"], prediction["predictions"]["triple"]["value"]
            if value != 3 * sent[event_id] + 1 or record.key is None or prediction["key"] != record.key.decode():
                wrong.append(event_id)
            if not found[event_id]:
                out_of_order += last.get(record.key, -1) > sent[event_id]
                last[record.key] = sent[event_id]
            found[event_id] += 1
        dead = read_all(self.bootstrap, self.dead, isolation=isolation)
        put_aside = {letter.value for letter in dead}
        lost = {event_id for event_id, n in sent.items() if not found[event_id] and _event(n) not in put_aside}
        return Outcome(lost, found.total() - len(found), wrong, out_of_order, dead, found)

    def lag(self) -> int:
        """Return how many records the group has not committed."""
        committed = committed_offsets(self.bootstrap, self.group, self.source)
        return sum(end - committed.get(p, 0) for p, end in end_offsets(self.bootstrap, self.source).items())

    def wait_until_committed(self, *workers: WorkerProcess, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the group has committed all there is."""
        wait_for(
            lambda: self.lag() == 0, "the group to commit everything", *workers, deadline_s=deadline_s, every_s=0.1
        )


class _Script(WorkerProcess):
    def __init__(self, stream: KnownStream, file: Path) -> None:
        super().__init__([])
        self._file = file
        self._environ = [f"MODELSTREAM_PIPELINE={stream.file}", f"MODELSTREAM_BROKER={stream.bootstrap}"]

    def _command(self) -> list[str]:
        # `env` becomes the worker: its process id, and so its signals, are the worker's.
        return ["env", *self._environ, sys.executable, str(self._file)]


def known_record(number: int, n_keys: int = 50) -> Outgoing:
    """Return the record of one event of a `KnownStream`."""
    return Outgoing(_event(number), b"key-%d" % (number % n_keys))


def _event(number: int) -> bytes:
    return orjson.dumps({"id": f"e{number}", "seq": number})


def wait_for(
    condition: Callable[[], object],
    what: str,
    *workers: WorkerProcess,
    deadline_s: float = DEADLINE_S,
    every_s: float = 0.02,
) -> None:
    """Wait until something holds, while the workers are alive."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        for worker in workers:
            worker.check()
        if time.monotonic() >= deadline:
            logs = "".join(f"\n{worker.log_tail()}" for worker in workers)
            raise AssertionError(f"waited {deadline_s:.0f} s for {what}{logs}")
        time.sleep(every_s)
