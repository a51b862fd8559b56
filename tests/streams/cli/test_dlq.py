"""``modelstream dlq``: what it prints, what it takes, and how it says that something is missing."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.kafka_tools import Outgoing, produce_all, read_all
from support.letters import letter
from support.transactions import read_committed

from modelstream.operators.batch import REASONS
from modelstream.streams.cli.dlq import command

pytestmark = pytest.mark.kafka

NOW_MS = int(time.time() * 1000)
HOUR_MS = 3_600_000


@pytest.fixture
def letters(trial):
    """A pipeline with four letters, in partition 0 of the dead-letter topic, and a stranger's record in partition 1."""
    source = trial["source"]
    of_zero = {"to_partition": 0}
    written = [
        letter(source, 9, key=b"N1", written_ms=NOW_MS - 3 * HOUR_MS, **of_zero),
        letter(source, 4, key=b"N2", written_ms=NOW_MS - HOUR_MS, reason="model_failed", **of_zero),
        letter(source, 2, key=b"\xff", stage="delay", written_ms=NOW_MS, attempts="5", **of_zero),
        letter(
            source, 1, 1, key=None, written_ms=NOW_MS, value=b'{"a": [1, "\xc3\xa9"]}', detail="\x1b[31mred", **of_zero
        ),
        Outgoing(b"\xff\x00", partition=1),
    ]
    produce_all(trial["broker"], trial["dead"], written)
    file = trial["file"]
    file.write_text(file.read_text().replace("stages:\n", "stages:\n  - {id: score, filter: {present: [seq]}}\n"))
    return trial


def listed(run, trial, *options):
    done = run("dlq", "list", trial["file"], "--json", *options)
    assert done.returncode == 0
    return [json.loads(line)["letter"] for line in done.stdout.splitlines()]


def test_list_is_a_table_in_the_order_of_origin_and_a_count(run, letters):
    done = run("dlq", "list", letters["file"])
    assert done.returncode == 0
    table, counts = done.stdout.split("\n\n")
    header, *rows = table.splitlines()
    assert header.split() == ["LETTER", "WRITTEN", "AGE", "REASON", "STAGE", "KEY", "ATTEMPTS", "DETAIL"]
    assert [row.split()[0] for row in rows] == ["1/0", "0/2", "0/1", "0/0", "0/3"]
    assert re.search(r"0/2 .*Z  \d+[sm] +missing_field  delay  0xff  5 +field 'seq' is missing \(2\)$", rows[1])
    assert rows[3].split()[2] == "3h"
    assert rows[4].endswith(r"\x1b[31mred")  # no event steers the terminal
    assert counts.splitlines() == [
        f"5 dead letters in {letters['dead']}",
        "  2  missing_field  at score",
        "  1  -              at -",
        "  1  missing_field  at delay",
        "  1  model_failed   at score",
    ]


def test_list_as_json(run, letters):
    done = run("dlq", "list", letters["file"], "--json", "-n", "2")
    stranger, first = map(json.loads, done.stdout.splitlines())
    assert (stranger["reason"], stranger["topic"]) == (None, None)
    assert {name: first[name] for name in ("letter", "reason", "stage", "attempts", "key_base64", "origin")} == {
        "letter": "0/2",
        "reason": "missing_field",
        "stage": "delay",
        "attempts": 5,
        "key_base64": "/w==",
        "origin": f"{letters['source']}/0/2",
    }
    assert "5 dead letters in " in done.stderr
    assert "the first 2 are shown" in done.stderr


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (["--reason", "model_failed"], ["0/1"]),
        (["--reason", "model_failed", "--reason", "rule", "--stage", "delay"], []),
        (["--stage", "source", "--stage", "sink"], []),
        (["--stage", "score", "--stage", "delay"], ["0/2", "0/1", "0/0", "0/3"]),
        (["--since", "2h", "--stage", "score"], ["0/1", "0/3"]),
        (["--until", "2h"], ["0/0"]),
        (["--since", "2001-01-01", "--until", "2001-01-02T00:00:00+01:00"], []),
        (["--key", "N1"], ["0/0"]),
        (["--key", b"\xff"], ["0/2"]),
        (["-n", "1", "--stage", "score"], ["0/1"]),
    ],
)
def test_filters(run, letters, options, places):
    # A key that is no UTF-8 comes from the shell as it is.
    arguments = [
        option.decode("utf-8", "surrogateescape") if isinstance(option, bytes) else option for option in options
    ]
    done = run("dlq", "list", letters["file"], "--json", *arguments)
    assert [json.loads(line)["letter"] for line in done.stdout.splitlines()] == places
    if not places:
        assert done.stderr == f"no dead letter that matches in {letters['dead']}\n"


@pytest.mark.parametrize("action", ["list", "redrive"])
@pytest.mark.parametrize(
    ("option", "word", "hint"),
    [
        ("--reason", "mising_field", f"; there are {', '.join(REASONS)}; did you mean 'missing_field'?"),
        ("--reason", "odd", f"; there are {', '.join(REASONS)}"),
        ("--stage", "dely", "; there are source, delay, sink; did you mean 'delay'?"),
        ("--stage", "odd", "; there are source, delay, sink"),
    ],
)
def test_a_reason_or_stage_that_there_is_not(run, nowhere_file, action, option, word, hint):
    done = run("dlq", action, nowhere_file, option, word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"modelstream: error: {option}: no {option[2:]} {word!r}{hint}\n"


def test_the_reasons_are_those_that_are_documented():
    text = (Path(__file__).parents[3] / "docs" / "dead-letters.md").read_text("utf-8")
    table = text.split("## Reasons")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(REASONS)


def test_show_says_what_was_redriven(run, letters):
    run("dlq", "redrive", letters["file"], "--reason", "model_failed")
    done = run("dlq", "show", letters["file"], "0/1", "0/0")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("redriven ")]
    assert line.split(maxsplit=1)[1] == "yes; only `dlq redrive --again` sends it once more"
    assert done.stdout.index(line) < done.stdout.index("letter 0/0 of ")
    done = run("dlq", "show", letters["file"], "0/1", "0/0", "--json")
    assert [json.loads(line)["redriven"] for line in done.stdout.splitlines()] == [True, False]


def test_a_raw_vector_is_never_shown_as_text(run, trial):
    values = [b"1234567", b"\0\0\x80?" * 300]
    produce_all(trial["broker"], trial["dead"], [letter("events", 1, value=value, to_partition=0) for value in values])
    source = f"source={{topic: {trial['source']}, format: {{f32: 2, field: x}}}}"
    done = run("dlq", "show", trial["file"], "0/0", "0/1", "--set", source)
    assert done.returncode == 0, done.stderr
    first, second = (told.split("\nvalue")[1].splitlines() for told in done.stdout.split("\n\n"))
    assert first[0].strip() == "7 bytes, 1 float32 number and 3 bytes; --raw writes them as they are"
    assert first[1].split() == ["00000000", "31", "32", "33", "34", "35", "36", "37", "1234567"]
    note = "1,200 bytes, 300 float32 numbers, the first 1,024 in hexadecimal; --raw writes them as they are"
    assert (second[0].strip(), len(second)) == (note, 1 + 64)


def test_show_says_everything(run, letters):
    done = run("dlq", "show", letters["file"], "0/3")
    assert done.returncode == 0
    head, *lines = done.stdout.splitlines()
    assert head.startswith(f"letter 0/3 of {letters['dead']}, written ")
    said = [line.split(maxsplit=1) for line in lines[:9]]
    assert said == [
        ["reason", "missing_field"],
        ["stage", "score"],
        ["detail", r"\x1b[31mred"],
        ["exception", "-"],
        ["attempts", "1"],
        ["source", f"{letters['source']}/1/1, of 2023-11-14T22:13:20Z"],
        ["key", "-"],
        ["header", "trace: /w== (base64)"],
        ["value", "16 bytes, JSON (indented here)"],
    ]
    assert json.loads("\n".join(lines[9:])) == {"a": [1, "é"]}


def test_show_several_and_some_that_are_not_there(run, letters):
    done = run("dlq", "show", letters["file"], "1/0", "0/0", "0/99", "7/1")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("letter ")][1].startswith("letter 0/0 of")
    assert "00000000  ff 00 " in done.stdout
    assert done.stderr == f"no dead letter 0/99 in {letters['dead']}\nno dead letter 7/1 in {letters['dead']}\n"


def test_show_as_json(run, letters):
    done = run("dlq", "show", letters["file"], "0/0", "0/1", "--json")
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == ["N1", "N2"]


def test_show_raw_is_the_value_and_nothing_else(start, letters):
    process = start("dlq", "show", letters["file"], "1/0", "--raw")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (0, b"\xff\x00", b"")


def test_a_dry_run_says_what_would_go_where(run, letters):
    done = run("dlq", "redrive", letters["file"], "--dry-run", "-n", "2")
    assert done.returncode == 0
    header, *rows = done.stdout.splitlines()
    assert header.endswith("  TO")
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [
        ("0/1", f"{letters['source']}[0]"),
        ("0/0", f"{letters['source']}[0]"),
    ]
    assert done.stderr.splitlines() == [
        f"would redrive 2 dead letters to {letters['source']}; nothing was sent",
        "left 1: not written by a worker",
        "left 1: failed 5 times or more",
    ]
    assert read_all(letters["broker"], letters["source"]) == []


def test_redrive_sends_once_and_again_where_asked(run, letters):
    first = run("dlq", "redrive", letters["file"], "--reason", "model_failed")
    assert re.fullmatch(r"redrove 1 dead letter to \S+ in \d+\.\d s\n", first.stderr)
    assert listed(run, letters) == ["1/0", "0/2", "0/0", "0/3"]
    assert listed(run, letters, "--all") == ["1/0", "0/2", "0/1", "0/0", "0/3"]
    second = run("dlq", "redrive", letters["file"], "--max-attempts", "9")
    assert "redrove 3 dead letters" in second.stderr
    third = run("dlq", "redrive", letters["file"])
    assert "redrove 0 dead letters" in third.stderr  # the stranger's record stays
    assert "redrove 1 dead letter to " in run("dlq", "redrive", letters["file"], "--again", "--key", "N2").stderr
    sent = read_committed(letters["broker"], letters["source"])
    assert sorted(record.key or b"" for record in sent) == [b"", b"N1", b"N2", b"N2", b"\xff"]
    done = run("consume", letters["file"], "--dead-letters", "--from-beginning", "--until-end")
    assert done.stderr == f"5 dead letters of {letters['dead']}\n"  # no marker among them


def test_an_empty_topic_is_said_to_be_empty(run, trial):
    for action in ("list", "redrive"):
        done = run("dlq", action, trial["file"])
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"no dead letter in {trial['dead']}\n"


@pytest.mark.parametrize("arguments", [["list"], ["show", "0/1"], ["redrive"]])
def test_a_missing_topic_and_a_missing_broker_are_one_message(run, trial, nowhere_file, arguments):
    action, *rest = arguments
    done = run("dlq", action, trial["file"], *rest, "--set", "sink.dead_letter=no-such-topic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("modelstream: error: sink.dead_letter: no topic 'no-such-topic' on ")
    away = run("dlq", action, nowhere_file, *rest, "--broker", "127.0.0.1:1")
    assert (away.returncode, away.stdout) == (1, "")
    assert "127.0.0.1:1 does not answer yet" in away.stderr
    assert "\nmodelstream: error: broker 127.0.0.1:1: " in away.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["show"], "Missing argument 'PARTITION/OFFSET...'"),
        (["show", "5"], "'5' is no letter; write PARTITION/OFFSET"),
        (["show", "0/1", "0/2", "--raw"], "--raw writes the value of one letter"),
        (["list", "--since", "soon"], "'soon' is no time; write how long ago, as 30m, 2h or 7d"),
        (["list", "-n", "0"], "Invalid value for '-n'"),
        (["redrive", "--max-attempts", "0"], "Invalid value for '--max-attempts'"),
        (["list"], "modelstream: error: broker: no broker named"),
    ],
)
def test_wrong_usage(run, nowhere_file, arguments, problem):
    action, *rest = arguments
    done = run("dlq", action, nowhere_file, *rest)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


@pytest.mark.parametrize("action", ["list", "show", "redrive"])
def test_help_has_examples(action):
    done = CliRunner().invoke(command, [action, "--help"])
    assert done.exit_code == 0
    assert f"Examples:\n    modelstream dlq {action} " in done.output


def test_what_is_resolved_is_listed_and_redriven_no_more(run, letters):
    before = listed(run, letters)
    done = run("dlq", "resolve", letters["file"], before[0], before[2], before[0], "1/7")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"no dead letter 1/7 in {letters['dead']}",
        f"marked 2 dead letters in {letters['dead']} as done",
    ]
    assert listed(run, letters) == [place for place in before if place not in (before[0], before[2])]
    assert listed(run, letters, "--all") == before
    again = run("dlq", "resolve", letters["file"], before[0])
    assert (again.returncode, again.stderr) == (0, f"marked 0 dead letters in {letters['dead']} as done\n")
    assert not read_all(letters["broker"], letters["source"])
