"""``modelstream validate``: the checks of a worker's start, and what it would run."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelstream.streams.cli.validate import command
from modelstream.streams.embedded import free_port

SUMMARY = """\
pipeline  flights, at least once
source    flights.events, json, key tail, event_id id, event_time at
stage     departed: filter present dep_delay
stage     daytime: filter features:daytime
stage     features: extract features:departure
stage     delay: infer arrival_delay, at most 4 rows at once
stage     more: infer total@1, at most 1024 rows at once
model     arrival_delay@1 reads x float32[2]; gives value
model     total@1 reads dep_delay float32, distance int64; gives value
sink      flights.predictions, dead letters to flights.predictions.dead
"""


def test_a_pipeline_that_would_run(run, project):
    done = run("validate", project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == SUMMARY + "broker    not asked; none is named\nok\n"


def test_declared_columns_are_named(run, project):
    columns = "stages[2].extract={columns: {x: {dtype: float32, width: 2}, distance: int64}}"
    done = run("validate", project, "--set", columns)
    assert done.returncode == 0
    assert "stage     features: extract x float32[2], distance int64\n" in done.stdout


def test_ensembles_and_cascades_are_named(run, project):
    models = "stages[4].infer.models=[total@1, {model: total@1, as: again}]"
    ensembles = "stages[4].infer.ensembles={both: {weighted: {total: 1, again: 3}}}"
    cascades = "stages[4].infer.cascades={sure: {steps: [total, again], unsure: value < 2}}"
    done = run("validate", project, "--set", models, "--set", ensembles, "--set", cascades)
    assert done.returncode == 0, done.stderr
    assert "  gives   both: weighted mean of total, again\n" in done.stdout
    assert "  gives   sure: cascade: total → again, unsure: value < 2\n" in done.stdout


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("sorce=1", "sorce: unknown key; did you mean 'source'?"),
        ("stages[3].infer.models=[arrival_dely]", "did you mean 'arrival_delay'?"),
        ("stages[2].extract=features:departur", "did you mean 'departure'?"),
        ("stages[4].infer.models=[total@9]", "stages[4].infer.models[0]: "),
    ],
)
def test_what_is_wrong_is_told_by_its_path(run, project, override, problem):
    done = run("validate", project, "--set", override)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("modelstream: error: ")
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("source", "note"),
    [
        (
            "arival_delay.value",
            "note      stages[4].infer.models[0].inputs.distance: no answer 'arival_delay', so it is read as an event "
            "field; did you mean 'arrival_delay.value'?\n",
        ),
        ("plane.year", ""),
        ("arrival", ""),
    ],
)
def test_an_input_that_is_nearly_an_answer_is_noted(run, project, source, note):
    entry = f"stages[4].infer.models=[{{model: total@1, inputs: {{distance: {source}}}}}]"
    done = run("validate", project, "--set", entry)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines(keepends=True) if line.startswith("note")] == [note] * bool(note)


def test_a_name_that_only_data_can_check_is_noted(run, project):
    done = run("validate", project, "--set", "stages[1]={id: daytime, rules: {keep: 'distance > 0'}}")
    assert (done.returncode, "there is no 'distance'" in done.stderr) == (2, True)
    stages = (
        "stages[1]={id: daytime, extract: 'features:departure'}",
        "stages[2]={id: far, rules: {keep: 'distance > 0'}}",
    )
    done = run("validate", project, "--set", stages[0], "--set", stages[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "note      stages[2].rules: nothing checks 'distance', which a function of a stage before must make; "
        "fields of the events are declared under rules.fields\n"
    ) in done.stdout


def test_a_cache_needs_the_name_of_a_redis(run, project):
    cache = ("--set", "stages[3].infer.cache.ttl_s=60")
    done = run("validate", project, *cache)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "modelstream: error: stages[3].infer.cache: needs a Redis; "
        "name one with --redis, MODELSTREAM_REDIS, or redis in the file\n"
    )
    for named in (("--redis", "redis://nowhere"), ("--set", "redis=redis://nowhere")):
        done = run("validate", project, *cache, *named)
        assert done.returncode == 0
        assert "delay: infer arrival_delay, at most 4 rows at once, answers kept for 60 s\n" in done.stdout
        assert "redis     does not answer: " in done.stdout
    assert run("validate", project, *cache, MODELSTREAM_REDIS="redis://nowhere").returncode == 0


def test_a_broken_model(run, project):
    model = project.parent / "models" / "arrival_delay" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-20])
    done = run("validate", project)
    assert (done.returncode, done.stdout) == (2, "")
    assert "model arrival_delay@1: " in done.stderr


@pytest.mark.kafka
def test_the_topics_of_a_named_broker_are_checked(run, project, kafka, make_topics):
    source, sink = make_topics(kafka, "events", "predictions", partitions=2)
    options = ["--broker", kafka.bootstrap, "--set", f"source.topic={source}", "--set", f"sink.topic={sink}"]
    done = run("validate", project, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"modelstream: error: sink.dead_letter: no topic '{sink}.dead' on ")

    (dead,) = make_topics(kafka, "dead", partitions=1)
    done = run("validate", project, *options, "--set", f"sink.dead_letter={dead}")
    assert done.returncode == 0
    assert f"broker    {kafka.bootstrap}, has {source} (2 partitions), " in done.stdout
    assert done.stdout.endswith("\nok\n")


@pytest.mark.kafka
def test_a_broker_that_can_do_exactly_once(run, project, kafka, make_topics):
    source, sink, dead = make_topics(kafka, "events", "predictions", "dead")
    topics = (f"source.topic={source}", f"sink={{topic: {sink}, dead_letter: {dead}}}", "delivery=exactly_once")
    done = run(
        "validate", project, "--broker", kafka.bootstrap, *(part for topic in topics for part in ("--set", topic))
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pipeline  flights, exactly once\n")


@pytest.mark.embedded
def test_a_broker_that_cannot_do_exactly_once(run, project, embedded_broker, make_topics):
    broker = embedded_broker
    source, sink, dead = make_topics(broker, "events", "predictions", "dead")
    topics = (f"source.topic={source}", f"sink={{topic: {sink}, dead_letter: {dead}}}", "delivery=exactly_once")
    done = run(
        "validate", project, "--broker", broker.bootstrap, *(part for topic in topics for part in ("--set", topic))
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"modelstream: error: delivery: exactly_once is not possible with the broker {broker.bootstrap}: it accepts "
        "offsets of workers that are not in their group; use Apache Kafka 2.5 or newer, or at_least_once\n"
    )


def test_offline_asks_no_broker(run, project):
    nowhere = f"127.0.0.1:{free_port()}"
    done = run("validate", project, "--offline", MODELSTREAM_BROKER=nowhere)
    assert done.returncode == 0
    assert done.stdout.endswith("broker    not asked (--offline)\nok\n")


def test_help_has_examples():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "Examples:\n    modelstream validate " in done.output
