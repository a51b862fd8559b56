"""``modelstream replay`` with recorded streams, comparisons and reports, as a person runs it."""

from __future__ import annotations

import re
import sys
import time

import orjson
import pytest
from click.testing import CliRunner
from support.kafka_tools import Outgoing, group_member, produce_all, read_all
from support.onnx_factory import affine, write_model
from support.report_pages import see_report

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.replay import command
from modelstream.streams.replay.capture import CaptureFile

START_MS = 1_700_000_000_000

PIPELINE = """
pipeline: trial
source: {{topic: {source}, event_id: id}}
stages: [{{id: score, infer: {{models: [triple]}}}}]
sink: {{topic: {sink}, dead_letter: {dead}}}
"""


@pytest.fixture
def make_pipeline(tmp_path):
    def make(name, source="events", sink="predictions", dead="dead", factor=3.0):
        folder = tmp_path / name
        write_model(folder / "models", "triple", affine([factor]), '[inputs.x]\nfields = ["seq"]\n')
        (folder / "p.yaml").write_text(PIPELINE.format(source=source, sink=sink, dead=dead))
        return folder / "p.yaml"

    return make


@pytest.fixture
def recorded(kafka, make_topics):
    """A topic with events, a tombstone, a broken one, keys and headers."""
    (topic,) = make_topics(kafka, "recorded", partitions=3)
    events = [
        Outgoing(
            orjson.dumps({"id": f"e{i}", "seq": i}), b"k%d" % (i % 5), i % 3, START_MS + 100 * i,
            [("trace", b"%d" % i), ("trace", b"\xff")] if i % 4 == 0 else (),
        )
        for i in range(60)
    ]  # fmt: skip
    strange = [Outgoing(None, b"\xff\x00", 0, START_MS + 7000), Outgoing(b"{bro\xffken", None, 1, START_MS + 8000)]
    produce_all(kafka.bootstrap, topic, [*events, *strange])
    return topic


def content(held):
    """Return what a replay keeps of records, whatever their order."""
    return sorted(
        (
            (record.key, record.value, tuple(header for header in record.headers if not header[0].endswith("-us")))
            for record in held
        ),
        key=repr,
    )


@pytest.mark.kafka
def test_a_captured_topic_is_sent_again_byte_for_byte(run, kafka, make_topics, make_pipeline, recorded, tmp_path):
    file = tmp_path / "c.parquet"
    source, sink, dead = make_topics(kafka, "again", "predictions", "dead", partitions=2)
    pipeline = make_pipeline("a", source, sink, dead)
    place = ["--broker", kafka.bootstrap]

    done = run("replay", pipeline, "--from-topic", recorded, "--capture", file, *place, "--no-progress")

    assert (done.returncode, done.stdout) == (0, "")
    span = "from 2023-11-14T22:13:20Z to 2023-11-14T22:13:28Z"
    assert re.fullmatch(rf"captured 62 records of {recorded}, {span}: {file}, \d\.\d MB\n", done.stderr)
    held = read_all(kafka.bootstrap, recorded)
    assert CaptureFile(file).n_records == len(held) == 62
    # Nobody answers: it is what is sent that counts here. Event times are the timestamps.
    started_ms = time.time() * 1000
    with group_member(kafka.bootstrap, group=source, topic=source):
        live = ("--live", f"--set=pipeline={source}", "--drain", "0.1")
        done = run("replay", pipeline, file, *place, *live, "--speed", "100x", "--no-progress")
    assert "62 events missing" in done.stderr
    again = read_all(kafka.bootstrap, source)
    assert content(again) == content(held)
    assert all(record.timestamp_ms >= started_ms for record in again)
    order = [
        record.value for record in sorted(again, key=lambda one: dict(one.headers)["modelstream-intended-us"] or b"")
    ]
    assert order == [record.value for record in sorted(held, key=lambda one: one.timestamp_ms)]


@pytest.mark.kafka
def test_a_topic_is_replayed_from_one_time_to_another(run, kafka, make_topics, make_pipeline, recorded):
    source, sink, dead = make_topics(kafka, "again", "predictions", "dead", partitions=2)
    span = ["--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:22Z"]
    with group_member(kafka.bootstrap, group=source, topic=source):
        done = run(
            "replay", make_pipeline("a", source, sink, dead), "--from-topic", recorded, *span, "--broker",
            kafka.bootstrap, "--live", f"--set=pipeline={source}", "--drain", "0.1", "--no-progress",
        )  # fmt: skip
    assert "10 events missing" in done.stderr
    values = [orjson.loads(record.value or b"") for record in read_all(kafka.bootstrap, source)]
    assert sorted(value["seq"] for value in values) == list(range(10, 20))


@pytest.mark.kafka
def test_a_part_of_a_topic_is_captured(kafka, make_pipeline, recorded, tmp_path):
    pipeline, file = make_pipeline("a"), tmp_path / "c.parquet"

    def captured(*options):
        place = ["--from-topic", recorded, "--capture", file, "--broker", kafka.bootstrap, "--no-progress"]
        done = CliRunner().invoke(command, list(map(str, [pipeline, *place, *options])))
        assert done.exit_code == 0, done.output
        return [orjson.loads(value)["seq"] for batch in CaptureFile(file).batches() for value in batch.values]

    span = ["--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:22Z"]
    assert captured(*span) == list(range(10, 20))
    assert captured(*span, "--limit", "7") == list(range(10, 17))


@pytest.mark.embedded
def test_a_real_replay_is_reported_with_every_plot(run, make_pipeline, browser, tmp_path):
    events, report = tmp_path / "events.ndjson", tmp_path / "report.html"
    events.write_bytes(b"".join(orjson.dumps({"id": f"e{i}", "seq": i}) + b"\n" for i in range(3000)))
    done = run("replay", make_pipeline("a"), events, "--rate", "3000/s", "--report", report, "--no-progress")
    assert done.returncode == 0, done.stderr
    assert f"wrote {report}" in done.stderr

    text = see_report(browser, report)
    assert "3,000 events at 3000/s" in text
    assert f"modelstream replay {tmp_path}" in text


def test_two_versions_are_compared_without_a_broker(run, make_pipeline, tmp_path):
    events, out = tmp_path / "events.ndjson", tmp_path / "diff.json"
    events.write_bytes(b"".join(orjson.dumps({"id": f"e[{i}]", "seq": i}) + b"\n" for i in range(100)))
    a, b = make_pipeline("a"), make_pipeline("b", factor=3.5)
    done = run("replay", a, events, "--diff", b, "--json", out, "--worst", "1", "--limit", "50", "--no-progress")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["50", "predicted", "predicted"] in rows
    assert ["triple.value", "50", "1", "49", "0", "0", "12.2", "24.3", "24.5"] in rows
    assert ["e[49]", "147.0", "171.5", "24.5"] in rows
    told = orjson.loads(out.read_bytes())
    assert (told["events"], told["fields"][0]["max_abs"]) == (50, 24.5)
    # They are half an event's number apart.
    arguments = [a, events, "--diff", b, "--json", out, "--tolerance", "10", "--no-progress"]
    assert CliRunner().invoke(command, list(map(str, arguments))).exit_code == 0
    told = orjson.loads(out.read_bytes())["fields"][0]
    assert (told["equal"], told["differing"], told["max_abs"]) == (21, 79, 49.5)
    same = run("replay", a, events, "--diff", a, "--no-progress")
    assert same.stdout.endswith("\nno difference\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the events to replay: either FILE or --from-topic TOPIC"),
        (["f", "--from-topic", "t"], "FILE (f) and --from-topic were both given; leave one of them out"),
        (["f", "--since", "2h"], "--since and --until are for topics"),
        (["f", "--capture", "c.parquet"], "--capture reads a topic; leave FILE out"),
        (["--capture", "c.parquet", "--diff", "b"], "--capture replays nothing"),
        (["--capture", "c.ndjson"], "--capture writes Parquet; call the file c.parquet"),
        (["--capture", "c.parquet", "--rate", "1/s", "--json", "j"], "replays nothing; leave --rate, --json out"),
        (["f", "--diff", "b", "--speed", "max", "--live"], "no pace and no workers; leave --speed, --live out"),
        (["f", "--diff", "b", "--warm-up", "0", "--drain", "1"], "leave --warm-up, --drain out"),
        (["f", "--worst", "3"], "--diff compares, and this replay does not; leave --worst out"),
        (["--from-topic", "t", "--since", "soon"], "'soon' is no time"),
    ],
)
def test_wrong_usage(make_pipeline, arguments, said):
    done = CliRunner().invoke(command, [str(make_pipeline("a")), *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_report_that_could_not_be_written_in_the_end_is_refused_before_the_start(make_pipeline, monkeypatch):
    def refusal(report):
        done = CliRunner().invoke(command, [str(make_pipeline(report[0])), "gone.ndjson", "--report", report])
        assert isinstance(done.exception, ConfigError)
        return str(done.exception)

    assert refusal("no/folder/r.html") == "--report: no folder no/folder"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refusal("r.html") == "--report: needs matplotlib: pip install 'modelstream[report]'"


def test_a_recorded_topic_is_on_no_embedded_broker(make_pipeline, monkeypatch):
    monkeypatch.delenv("MODELSTREAM_BROKER", raising=False)
    for more in ([], ["--broker", "embedded"]):
        done = CliRunner().invoke(command, [str(make_pipeline("a" + "b" * len(more))), "--from-topic", "t", *more])
        assert str(done.exception).startswith("--from-topic: an embedded broker is empty; name the one")


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_named(run, kafka, make_pipeline, tmp_path):
    pipeline = make_pipeline("a")
    for more in (["--capture", tmp_path / "c.parquet"], []):
        done = run("replay", pipeline, "--from-topic", "gone", "--broker", kafka.bootstrap, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--from-topic: no topic 'gone' on {kafka.bootstrap}" in done.stderr


@pytest.mark.kafka
@pytest.mark.parametrize("since", [[], ["--since", "1h"]])
def test_a_topic_without_events_is_told_by_its_name(run, kafka, make_topics, make_pipeline, recorded, since):
    (empty,) = make_topics(kafka, "empty")
    topic = recorded if since else empty  # what was recorded is years old
    done = run("replay", make_pipeline("a"), "--from-topic", topic, *since, "--broker", kafka.bootstrap)
    assert done.returncode == 2
    named = f"topic {topic}: holds no events; name a topic, or a time by --since and --until, that has some"
    assert done.stderr == f"modelstream: error: {named}\n"
