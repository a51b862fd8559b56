"""``modelstream consume``: NDJSON on standard output and nothing else, from where and until when one wants."""

from __future__ import annotations

import json
import re
import signal

import pytest
from click.testing import CliRunner
from support.kafka_tools import Outgoing, produce_all

from modelstream.streams.cli.consume import command

pytestmark = pytest.mark.kafka

PREDICTIONS = [Outgoing(b'{"event_id":"%d"}' % i, partition=i % 2) for i in range(20_000)]


@pytest.fixture
def predictions(trial):
    produce_all(trial["broker"], trial["sink"], PREDICTIONS)
    return trial


def ids(stdout):
    return sorted(int(json.loads(line)["event_id"]) for line in stdout.splitlines())


def test_from_the_beginning_until_the_end(run, predictions):
    done = run("consume", predictions["file"], "--from-beginning", "--until-end")
    assert done.returncode == 0
    assert ids(done.stdout) == list(range(20_000))
    assert done.stderr == f"20,000 predictions of {predictions['sink']}\n"


def test_an_empty_topic(run, trial):
    done = run("consume", trial["file"], "--from-beginning", "--until-end")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_number_of_records(run, predictions):
    done = run("consume", predictions["file"], "--from-beginning", "-n", "5")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5


def test_a_group_goes_on(run, predictions):
    group = ["--group", predictions["sink"]]
    first = run("consume", predictions["file"], "--from-beginning", "-n", "5", *group)
    second = run("consume", predictions["file"], "--until-end", *group)
    assert ids(first.stdout + second.stdout) == list(range(20_000))


def test_new_records_until_ctrl_c(start, predictions):
    process = start("consume", predictions["file"])
    assert process.stderr.readline().startswith(b"waiting for predictions of ")
    produce_all(predictions["broker"], predictions["sink"], [b'{"event_id":"new"}'])
    assert process.stdout.readline() == b'{"event_id":"new"}\n'
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, b"")
    assert stderr == f"1 prediction of {predictions['sink']}\n".encode()


def test_ctrl_c_before_the_number_is_reached(start, trial):
    process = start("consume", trial["file"], "-n", "3", "--from-beginning")
    produce_all(trial["broker"], trial["sink"], [b"{}"])
    assert process.stdout.readline() == b"{}\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.parametrize("arguments", [["--from-beginning", "--until-end"], ["--from-beginning"]])
def test_a_reader_that_goes_away_ends_it_quietly(start, predictions, arguments):
    process = start("consume", predictions["file"], *arguments)
    assert process.stdout.readline().startswith(b'{"event_id":')
    process.stdout.close()
    process.stdout = None
    # Without --until-end too, though nothing more is there to be written.
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.fullmatch(rb"(waiting for .*\n)?", stderr)


def test_dead_letters(run, trial):
    headers = [
        ("origin", b"gate"),
        ("modelstream.reason", b"undecodable"),
        ("modelstream.stage", b"source"),
        ("modelstream.offset", b"3"),
    ]
    produce_all(trial["broker"], trial["dead"], [Outgoing(b"{\xff", b"N1", headers=headers)])
    done = run("consume", trial["file"], "--dead-letters", "--from-beginning", "--until-end")
    (letter,) = map(json.loads, done.stdout.splitlines())
    assert (letter["reason"], letter["stage"], letter["offset"]) == ("undecodable", "source", 3)
    assert (letter["key"], letter["value_base64"]) == ("N1", "e/8=")
    assert letter["headers"] == [{"name": "origin", "value": "gate"}]
    assert done.stderr == f"1 dead letter of {trial['dead']}\n"


def test_a_missing_topic_is_a_matter_of_configuration(run, trial):
    done = run("consume", trial["file"], "--set", "sink.topic=no-such-topic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("modelstream: error: sink.topic: no topic 'no-such-topic' on ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--follow", "--until-end", "--from-beginning"], "exclude each other"),
        (["--until-end"], "add --from-beginning, or --group"),
        (["-n", "0"], "Invalid value for '-n'"),
        ([], "modelstream: error: broker: no broker named"),
        (["--broker", "nowhere"], "--broker: must be HOST:PORT"),
    ],
)
def test_wrong_usage(run, nowhere_file, arguments, problem):
    done = run("consume", nowhere_file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


def test_help_has_examples():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "Examples:\n    modelstream consume " in done.output
