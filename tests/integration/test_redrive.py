"""After the fix: redriven events get exactly the predictions that were missing, whatever happens to the redrive."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from support.kafka_tools import Incoming, Outgoing, end_offsets, produce_all, read_all
from support.letters import letter
from support.load import require_bite
from support.streams import KnownStream, wait_for
from support.transactions import read_committed

pytestmark = pytest.mark.kafka

N_EVENTS, N_KEYS = 4_000, 40
N_LETTERS = 30_000
_FIRST_MS = 1_790_000_000_000

_PIPELINE = """\
pipeline: {s.group}
source: {{topic: {s.source}}}
stages:
  - id: read
    extract: {{columns: {{seq: float32}}}}
  - id: check
    extract: checks:check
  - id: score
    infer: {{models: [triple]}}
sink: {{topic: {s.sink}, dead_letter: {s.dead}}}
"""

#: Raises on every seventh number, on every fourteenth only, on none.
_CHECKS = """\
def check(batch):
    if ({modulus} and any(event["n"] % {modulus} == 3 for event in batch.events)):
        raise RuntimeError("cannot do this one yet")
    return {{}}
"""


class Project:
    """A pipeline without ids and times of its own, that some of its events fail in."""

    def __init__(self, stream: KnownStream) -> None:
        self.stream = stream
        stream.file.write_text(_PIPELINE.format(s=stream), encoding="utf-8")
        self.mend(0)

    def mend(self, modulus: int) -> None:
        (self.stream.folder / "checks.py").write_text(_CHECKS.format(modulus=modulus), encoding="utf-8")

    def send(self, event: Callable[[int], dict[str, Any]]) -> None:
        records = [
            Outgoing(orjson.dumps(event(n)), b"key-%d" % (n % N_KEYS), None, _FIRST_MS + n, [("trace", b"\xff%d" % n)])
            for n in range(N_EVENTS)
        ]
        produce_all(self.stream.bootstrap, self.stream.source, records)

    def work(self, n_done: int, *options: str) -> None:
        """Run a worker until it has dealt with so many events."""
        with self.stream.worker(*options) as worker:

            def done() -> bool:
                stats = worker.stats()
                return (
                    stats.get("predictions", 0) + stats.get("dead_letters", 0) >= n_done and not stats["open_batches"]
                )

            wait_for(done, f"{n_done} events to be done", worker)
            worker.stop()

    def dlq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        action, *options = arguments
        command = [*dlq_command(action), str(self.stream.file), "--broker", self.stream.bootstrap, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def source(self) -> list[Incoming]:
        return read_committed(self.stream.bootstrap, self.stream.source)

    def predictions(self) -> list[dict[str, Any]]:
        return [orjson.loads(record.value or b"") for record in read_all(self.stream.bootstrap, self.stream.sink)]


def dlq_command(action: str) -> list[str]:
    return [sys.executable, "-m", "modelstream", "dlq", action]


@pytest.fixture
def project(make_stream: Callable[..., KnownStream]) -> Project:
    return Project(make_stream(partitions=3))


def attempts_of(record: Incoming) -> int:
    return int(dict(record.headers).get("modelstream.attempts") or 0)


def assert_each_event_has_its_prediction(project: Project, default: float) -> None:
    """Each event as it was sent first has one prediction, under its first place and its first time."""
    source = project.stream.source
    expected = {}
    for record in project.source():
        if not attempts_of(record):
            event = orjson.loads(record.value or b"")
            expected[f"{source}/{record.partition}/{record.offset}"] = 3 * event.get("seq", default) + 1
            assert record.timestamp_ms == _FIRST_MS + event["n"]
    predictions = project.predictions()
    assert len(predictions) == len(expected) == N_EVENTS
    assert {p["event_id"]: p["predictions"]["triple"]["value"] for p in predictions} == expected
    assert len({p["event_time"] for p in predictions}) == N_EVENTS  # as many as there were milliseconds
    assert min(p["event_time"] for p in predictions).startswith("2026-09-21T")


def test_a_default_for_a_missing_field_yields_exactly_the_missing_predictions(project: Project) -> None:
    project.send(lambda n: {"n": n} if n % 10 == 3 else {"n": n, "seq": n})
    project.work(N_EVENTS)
    n_dead = N_EVENTS // 10
    assert len(project.predictions()) == N_EVENTS - n_dead
    listed = project.dlq("list", "--json")
    assert len(listed.stdout.splitlines()) == n_dead
    assert f"{n_dead}  missing_field  at read" in listed.stderr

    rehearsed = project.dlq("redrive", "--dry-run")
    assert f"would redrive {n_dead} dead letters" in rehearsed.stderr
    assert len(project.source()) == N_EVENTS

    redriven = project.dlq("redrive")
    assert f"redrove {n_dead} dead letters to {project.stream.source}" in redriven.stderr
    project.work(n_dead, "--set", "stages[0].extract.columns.seq={dtype: float32, default: -7}")
    assert_each_event_has_its_prediction(project, default=-7)

    originals = {record.value: record for record in project.source() if not attempts_of(record)}
    again = [record for record in project.source() if attempts_of(record)]
    for record in again:
        first = originals[record.value]
        assert (record.key, record.partition, record.headers[0]) == (first.key, first.partition, first.headers[0])
        assert attempts_of(record) == 1
    for partition in range(3):
        offsets = [originals[record.value].offset for record in again if record.partition == partition]
        assert offsets == sorted(offsets)

    assert project.dlq("list").stderr == f"no dead letter in {project.stream.dead}\n"
    assert project.dlq("redrive").stderr == f"no dead letter in {project.stream.dead}\n"
    assert len(project.source()) == N_EVENTS + n_dead


def test_a_function_mended_in_two_steps(project: Project) -> None:
    project.send(lambda n: {"n": n, "seq": n})
    project.mend(7)
    project.work(N_EVENTS)
    dead = [n for n in range(N_EVENTS) if n % 7 == 3]
    still_dead = [n for n in dead if n % 14 == 3]

    project.mend(14)
    project.dlq("redrive")
    project.work(len(dead))
    letters = [orjson.loads(line) for line in project.dlq("list", "--json").stdout.splitlines()]
    assert {one["attempts"] for one in letters} == {2}
    assert len(letters) == len(still_dead)
    places = {f"{project.stream.source}/{r.partition}/{r.offset}": r.value for r in project.source()}
    assert {orjson.loads(places[one["origin"]] or b"")["n"] for one in letters} == set(still_dead)

    assert f"left {len(still_dead)}: failed 2 times or more" in project.dlq("redrive", "--max-attempts", "2").stderr
    project.mend(0)
    project.dlq("redrive")
    project.work(len(still_dead))
    assert_each_event_has_its_prediction(project, default=0)
    assert Counter(map(attempts_of, project.source())) == {0: N_EVENTS, 1: len(dead), 2: len(still_dead)}
    headers = next(record.headers for record in project.source() if attempts_of(record) == 2)
    assert len(headers) == len(dict(headers)) == 5  # the engine's do not pile up
    assert project.dlq("list").stderr == f"no dead letter in {project.stream.dead}\n"


@pytest.fixture
def many_letters(make_stream: Callable[..., KnownStream]) -> KnownStream:
    stream = make_stream(partitions=3)
    letters = (letter(stream.source, n, n % 3, key=b"key-%d" % (n % N_KEYS)) for n in range(N_LETTERS))
    produce_all(stream.bootstrap, stream.dead, letters)
    return stream


def redriven(stream: KnownStream) -> list[list[int]]:
    """Return the numbers of the events that are back, by partition."""
    numbers: list[list[int]] = [[], [], []]
    for record in read_committed(stream.bootstrap, stream.source):
        numbers[record.partition].append(orjson.loads(record.value or b"")["n"])
    return numbers


ALL = [list(range(partition, N_LETTERS, 3)) for partition in range(3)]


def command_of(stream: KnownStream) -> list[str]:
    return [*dlq_command("redrive"), str(stream.file), "--broker", stream.bootstrap]


def test_ctrl_c_keeps_what_was_sent_and_the_next_redrive_sends_the_rest(many_letters: KnownStream) -> None:
    stream = many_letters
    with subprocess.Popen(command_of(stream), stderr=subprocess.PIPE) as process:
        wait_for(lambda: sum(end_offsets(stream.bootstrap, stream.source).values()), "the redrive to send")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    n_sent = sum(map(len, redriven(stream)))
    require_bite(n_sent < N_LETTERS, "the redrive was done before it was interrupted")
    assert process.returncode == 130
    assert said.startswith(f"stopped: redrove {n_sent:,} dead letters".encode())
    assert b"Traceback" not in said
    subprocess.run(command_of(stream), check=True, capture_output=True, timeout=60)
    assert redriven(stream) == ALL


#: A redrive that kills itself at a certain step of its tenth chunk.
_KILLED = """\
import os, signal, sys
from modelstream.streams.dead_letter_reading import read_letters
from modelstream.streams.redrive import Redriver
from modelstream.streams.settings import BrokerSettings

bootstrap, dead, source, step, transactions = sys.argv[1:]
settings = BrokerSettings(bootstrap)

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

with Redriver(settings, dead, source, 3, transactions=transactions == "True") as redriver:
    redriver.send(read_letters(settings, dead), lambda n_sent: n_sent == 4_500 and setattr(redriver, step, kill))
"""


def kill_in(stream: KnownStream, step: str, transactions: bool) -> None:
    arguments = [stream.bootstrap, stream.dead, stream.source, step, str(transactions)]
    done = subprocess.run([sys.executable, "-c", _KILLED, *arguments], timeout=60, check=False)
    require_bite(done.returncode == -signal.SIGKILL, f"the redrive ended with {done.returncode} before it was killed")


def test_a_redrive_that_is_killed_in_a_transaction_sends_no_letter_twice(many_letters: KnownStream) -> None:
    stream = many_letters
    for _ in range(2):
        kill_in(stream, "_commit", transactions=True)
    assert redriven(stream) == [ALL[0][: 2 * 4_500], [], []]  # in the order of origin
    written = read_all(stream.bootstrap, stream.source, isolation="read_uncommitted")
    require_bite(len(written) == 2 * 5_000, "no transaction was open")
    subprocess.run(command_of(stream), check=True, capture_output=True, timeout=60)
    assert redriven(stream) == ALL


def test_without_transactions_a_killed_redrive_repeats_and_loses_nothing(many_letters: KnownStream) -> None:
    stream = many_letters
    kill_in(stream, "_marker", transactions=False)
    assert sum(map(len, redriven(stream))) == 5_000  # of which 500 have no marker
    subprocess.run(command_of(stream), check=True, capture_output=True, timeout=60)
    numbers = redriven(stream)
    assert [sorted(set(of_partition)) for of_partition in numbers] == ALL
    assert sum(map(len, numbers)) == N_LETTERS + 500


def test_redrives_at_once_with_filters_that_overlap_send_each_letter_once(many_letters: KnownStream) -> None:
    stream = many_letters
    command = command_of(stream)
    options = [["--stage", "score"], ["--reason", "missing_field"], []]
    running = [subprocess.Popen([*command, *more], stderr=subprocess.PIPE) for more in options]
    for process in running:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0 or b"another redrive of" in said, said
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert redriven(stream) == ALL
