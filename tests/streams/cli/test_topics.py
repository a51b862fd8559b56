"""``modelstream topics``: what is missing is made, what is there is left alone."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from support.kafka_tools import delete_topics, partitions_of

from modelstream.streams.cli.topics import command

pytestmark = pytest.mark.kafka


def test_missing_topics_are_created(run, trial):
    sink = trial["sink"] + "-new"
    options = ["--set", f"sink.topic={sink}", "--partitions", "3"]
    try:
        done = run("topics", trial["file"], *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"exists   {trial['source']}  2 partitions",
            f"created  {sink}  3 partitions",
            f"exists   {trial['dead']}  2 partitions",
        ]
        assert partitions_of(trial["broker"], sink) == [0, 1, 2]

        again = run("topics", trial["file"], *options)
        assert again.returncode == 0
        assert "created" not in again.stdout
    finally:
        delete_topics(trial["broker"], [sink])


def test_more_copies_than_brokers(run, trial):
    done = run("topics", trial["file"], "--set", "sink.topic=never", "--replication-factor", "1000")
    assert done.returncode == 1
    assert "cannot create topic 'never': " in done.stderr


@pytest.mark.parametrize("arguments", [["--partitions", "0"], ["--replication-factor", "0"], []])
def test_wrong_usage(run, nowhere_file, arguments):
    done = run("topics", nowhere_file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_help_has_examples():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "Examples:\n    modelstream topics " in done.output
