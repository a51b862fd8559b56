"""``modelstream produce``: events on Kafka, exit codes, and what it says meanwhile."""

from __future__ import annotations

import gzip
import os
import pty
import re
import signal
import subprocess
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.kafka_tools import read_all

from modelstream.streams.cli.produce import command
from modelstream.streams.embedded import free_port

pytestmark = pytest.mark.kafka

EVENTS = b"".join(b'{"id": %d, "tail": "N%d"}\n' % (i, i % 50) for i in range(1000))


@pytest.fixture
def events(tmp_path):
    file = tmp_path / "events.ndjson"
    file.write_bytes(EVENTS)
    return file


def test_a_file_is_on_kafka_and_the_last_line_says_so(run, trial, events):
    done = run("produce", trial["file"], events)
    assert (done.returncode, done.stdout) == (0, "")
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"produced 1,000 events to {trial['source']} in [\d.]+ s \([\d,]+ events/s\)", last)
    received = read_all(trial["broker"], trial["source"])
    assert sorted(record.value for record in received) == sorted(EVENTS.splitlines())
    assert all(b'"tail": "%s"' % record.key in record.value for record in received)
    assert {record.partition for record in received} == {0, 1}


def test_a_key_that_no_event_has_is_told(run, trial, events):
    done = run("produce", trial["file"], events, "--set", "source.key=tial", "--no-progress")
    assert done.returncode == 0
    note = "no event has a field 'tial' (source.key), so none has a key, and they keep no order among them"
    assert done.stderr.splitlines()[1:] == [f"note: {note}"]
    first = b'{"id": 1000}\n'
    done = run("produce", trial["file"], "-", "--no-progress", input=first + EVENTS)
    assert "note" not in done.stderr
    assert sum(record.key is None for record in read_all(trial["broker"], trial["source"])) == 1001


def test_a_file_without_events_is_sent_with_a_note(run, trial):
    done = run("produce", trial["file"], "-", "--no-progress", input=b"\n")
    assert done.returncode == 0
    assert done.stderr.splitlines()[1:] == ["note: standard input holds no events"]


def test_standard_input_a_limit_and_a_rate(run, trial):
    done = run("produce", trial["file"], "-", "--limit", "25", "--rate", "500/s", "--no-progress", input=EVENTS)
    assert done.returncode == 0
    assert done.stderr.startswith("produced 25 events to ")
    assert done.stderr.count("\n") == 1
    assert {r.value for r in read_all(trial["broker"], trial["source"])} == set(EVENTS.splitlines()[:25])


def test_live_lines_go_out_as_they_come(start, trial):
    process = start("produce", trial["file"], "-", stdin=subprocess.PIPE)
    process.stdin.write(b'{"id":1}\n')
    process.stdin.flush()
    while not read_all(trial["broker"], trial["source"]):
        assert process.poll() is None
    process.communicate(b'{"id":2}', timeout=60)
    assert process.returncode == 0
    assert len(read_all(trial["broker"], trial["source"])) == 2


def test_csv_and_parquet(run, trial, tmp_path):
    table = tmp_path / "events.csv.gz"
    table.write_bytes(gzip.compress(b"id,tail,delay\n1,N1,2.5\n2,,\n"))
    assert run("produce", trial["file"], table).returncode == 0
    named_otherwise = tmp_path / "events.data"
    pq.write_table(pa.table({"id": [3], "tail": ["N3"], "delay": [1.0]}), named_otherwise)
    assert run("produce", trial["file"], named_otherwise, "--format", "parquet").returncode == 0
    assert {(r.key, r.value) for r in read_all(trial["broker"], trial["source"])} == {
        (b"N1", b'{"id":1,"tail":"N1","delay":2.5}'),
        (None, b'{"id":2,"tail":null,"delay":null}'),
        (b"N3", b'{"id":3,"tail":"N3","delay":1.0}'),
    }


def test_a_broken_line_ends_it_after_those_before(run, trial):
    broken = b'{"id":1}\n{"id":2}\n{"id":\n{"id":4}\n'
    done = run("produce", trial["file"], "-", input=broken)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(f"stopped: produced 2 events to {trial['source']} in ")
    assert second.startswith("modelstream: error: standard input:3: no JSON: ")
    assert second.endswith("; with --as-is such lines are sent too, and become dead letters")
    assert len(read_all(trial["broker"], trial["source"])) == 2

    assert run("produce", trial["file"], "-", "--as-is", input=broken).returncode == 0
    assert len(read_all(trial["broker"], trial["source"])) == 6


def test_ctrl_c_sends_what_was_read_and_says_how_much(start, trial):
    process = start("produce", trial["file"], "-", stdin=subprocess.PIPE)
    process.stdin.write(EVENTS)
    process.stdin.flush()
    while not read_all(trial["broker"], trial["source"]):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    said = re.match(rb"stopped: produced ([\d,]+) events", stderr)
    assert int(said[1].replace(b",", b"")) == len(read_all(trial["broker"], trial["source"])) > 0


def test_a_record_that_kafka_refuses_is_told(run, trial):
    huge = b'{"id":1,"x":"' + b"x" * 2_000_000 + b'"}\n'
    done = run("produce", trial["file"], "-", input=b'{"id":0}\n' + huge)
    assert done.returncode == 1
    assert f"modelstream: error: 1 of 2 records were not delivered to {trial['source']}: " in done.stderr
    assert len(read_all(trial["broker"], trial["source"])) == 1


def test_a_missing_topic_is_a_matter_of_configuration(run, trial, events):
    done = run("produce", trial["file"], events, "--set", "source.topic=no-such-topic")
    assert done.returncode == 2
    assert done.stderr.startswith("modelstream: error: source.topic: no topic 'no-such-topic' on ")


def test_a_broker_that_is_not_there(run, nowhere_file, events):
    done = run("produce", nowhere_file, events, "--broker", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer yet, trying for 8 s" in done.stderr
    assert "\nmodelstream: error: broker 127.0.0.1:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["missing.ndjson"], "modelstream: error: missing.ndjson: no such file"),
        (["-", "--rate", "0"], "'0' is no rate"),
        (["-", "--rate", "fast"], "'fast' is no rate"),
        (["-", "--limit", "0"], "Invalid value for '--limit'"),
        (["-", "--format", "xml"], "Invalid value for '--format'"),
        (["-", "--format", "parquet"], "Parquet cannot be read from standard input"),
        (["-", "--format", "csv", "--as-is"], "--as-is: is for lines of NDJSON"),
        (["-"], "modelstream: error: broker: no broker named"),
        (["-", "--set", "sorce.topic=x"], "did you mean 'source'"),
        ([], "Missing argument 'FILE'"),
    ],
)
def test_wrong_usage(run, nowhere_file, arguments, problem):
    done = run("produce", nowhere_file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


def test_a_terminal_has_a_bar_that_goes_away(start, trial, events):
    ours, theirs = pty.openpty()
    with start("produce", trial["file"], events, stderr=theirs) as process:
        os.close(theirs)
        shown = b"".join(chain.from_iterable(iter(lambda: _read(ours), None)))
    os.close(ours)
    assert process.returncode == 0
    assert "━".encode() in shown
    assert shown.splitlines()[-1].endswith(b" events/s)")


def _read(descriptor):
    try:
        return [os.read(descriptor, 10_000)]
    except OSError:  # the other end is closed
        return None


def test_help_has_examples():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "Examples:\n    modelstream produce " in done.output
