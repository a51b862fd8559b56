"""``modelstream replay`` with real processes: generator, workers, brokers."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient
from support.kafka_tools import read_all
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.replay import command
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.worker_process import WorkerProcess

PIPELINE = """\
pipeline: trial
source: {topic: trial.events, key: tail, event_id: id, event_time: at}
stages:
  - {id: wanted, filter: {present: [seq]}}
  - {id: score, infer: {models: [triple]}}
sink: {topic: trial.predictions, dead_letter: trial.dead}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Return a pipeline file that names no broker."""
    write_model(tmp_path / "models", "triple", affine([3.0], bias=1.0), '[inputs.x]\nfields = ["seq"]\n')
    file = tmp_path / "trial.yaml"
    file.write_text(PIPELINE)
    return file


def lines(n: int, **changes: Any) -> bytes:
    """Return events, ten milliseconds of event time apart."""
    events = (
        {"id": f"e{i}", "seq": i, "tail": f"k{i % 7}", "at": 1_700_000_000_000 + 10 * i, **changes} for i in range(n)
    )
    return b"".join(orjson.dumps(event) + b"\n" for event in events)


def test_a_replay_needs_no_broker_and_accounts_for_every_event(run: Run, pipeline: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "events.ndjson", tmp_path / "result.json"
    # As in real files: an event that no stage keeps, a broken line, and an id that comes twice.
    filtered = lines(20, seq=None).replace(b'"id":"e', b'"id":"f')
    file.write_bytes(lines(400) + filtered + b"{broken\n" + lines(1))
    done = run("replay", pipeline, file, "--as-is", "--json", out, "--no-progress")
    assert done.returncode == 0, done.stderr
    result = ReplayResult.read(out)
    assert (result.events, result.predictions, result.filtered, result.dead_letters) == (422, 401, 20, 1)
    assert (result.missing, result.duplicates, result.workers, result.speed) == (0, 0, 1, "max")
    # The embedded broker does not stamp: the consumer's clock is all there is.
    assert (result.latency_clock, result.append_latency, result.environment.broker) == ("consumer", None, "embedded")
    assert result.consumer_latency is not None
    assert result.p99_ms == result.consumer_latency.p99_ms
    assert result.series[-1].answered == 402
    assert result.repeated_ids == 1
    assert result.first_dead_letter.startswith("event 421, undecodable at 'source': ")
    assert "1  events with the id of an earlier one" in done.stdout
    assert result.stages[0].step_id == "score"
    assert sum(result.stages[0].sizes.values()) == result.stages[0].batches
    assert result.cpu_us_per_event is not None
    if result.machine_cpu_us_per_event is not None:  # not in a container with a share of the machine
        assert result.machine_cpu_us_per_event >= result.cpu_us_per_event
        assert "here in use, by these and whatever else ran" in done.stdout
    assert result.peak_rss_mb is not None
    assert "predictions out" in done.stdout


def test_on_kafka_two_workers_keep_the_pace_on_topics_of_their_own(
    run: Run, pipeline: Path, tmp_path: Path, kafka: Any
) -> None:
    file, out = tmp_path / "events.ndjson", tmp_path / "result.json"
    file.write_bytes(lines(200).replace(b"1700000000070", b"1700000000020"))  # e7 comes after e6, and was before it
    options = ["--broker", kafka.bootstrap, "--partitions", 2, "--workers", 2, "--json", out, "--warm-up", 0.4]
    done = run("replay", pipeline, file, "--speed", "2x", *options)
    assert done.returncode == 0, done.stderr
    result = ReplayResult.read(out)
    assert (result.events, result.predictions, result.missing, result.partitions) == (200, 200, 0, 2)
    # 199 gaps of ten milliseconds at twice the speed: nothing was sent before its time.
    assert result.seconds >= 0.995 - 0.01
    assert (result.speed, result.arrivals, result.clamped_events) == ("2x", "recorded", 1)
    # The broker's stamp is earlier than the consumer's, and cut to the millisecond.
    assert result.latency_clock == "log_append_time"
    assert result.append_latency is not None
    assert result.consumer_latency is not None
    assert result.append_latency.p50_ms <= result.consumer_latency.p50_ms
    assert (result.warm_up, result.append_latency.n, result.consumer_latency.n) == (0.4, 120, 120)
    assert result.p50_ms == result.append_latency.p50_ms
    left = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    assert not [topic for topic in left if topic.startswith(("modelstream-replay", "trial."))]


def test_a_live_replay_goes_through_the_workers_that_run(
    run: Run, pipeline: Path, tmp_path: Path, kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=2)
    options = [f"--set=source.topic={source}", f"--set=sink.topic={sink}", f"--set=sink.dead_letter={dead}"]
    options += ["--broker", kafka.bootstrap, f"--set=pipeline={source}"]
    file, out = tmp_path / "events.ndjson", tmp_path / "result.json"
    file.write_bytes(lines(50))
    with WorkerProcess([str(pipeline), *options]) as worker:
        worker.wait_until_ready()
        for _ in range(2):  # what an earlier replay has left on the topics is none of the next one's
            done = run("replay", pipeline, file, *options, "--live", "--rate", "500/s", "--json", out)
            assert done.returncode == 0, done.stderr
            result = ReplayResult.read(out)
            assert (result.events, result.predictions, result.duplicates, result.workers) == (50, 50, 0, None)
            # Whether an event without a prediction was filtered, only the workers know.
            assert (result.filtered, result.missing, result.cpu_us_per_event, result.stages) == (None, None, None, ())
        worker.stop()


def test_a_live_replay_that_nobody_would_answer_is_refused_before_it_sends(
    run: Run, pipeline: Path, kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    source, sink, dead = make_topics(kafka, "events", "predictions", "dead", partitions=2)
    options = [f"--set=source.topic={source}", f"--set=sink.topic={sink}", f"--set=sink.dead_letter={dead}"]
    options += ["--broker", kafka.bootstrap, f"--set=pipeline={source}"]
    done = run("replay", pipeline, "-", *options, "--live", input=lines(5))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--live: no worker is in the consumer group '{source}'" in done.stderr
    assert f"start one with `modelstream run {pipeline}`" in done.stderr
    assert read_all(kafka.bootstrap, source) == []


def wait_for_answers(process: subprocess.Popen[bytes]) -> None:
    """Wait until some events have been answered: the first line may come before that."""
    assert process.stderr is not None
    while not re.search(rb"answered [1-9]", line := process.stderr.readline()):
        assert line, "it ended before it began"


@pytest.mark.parametrize(
    ("part", "said"), [("modelstream run", "the worker ended"), ("replay.generator", "the generator has ended")]
)
def test_what_there_was_until_a_process_died_is_not_lost(
    start: Callable[..., subprocess.Popen[bytes]], pipeline: Path, tmp_path: Path, part: str, said: str
) -> None:
    file, out = tmp_path / "events.ndjson", tmp_path / "result.json"
    file.write_bytes(lines(5000))
    process = start("replay", pipeline, file, "--rate", "100/s", "--json", out)
    wait_for_answers(process)
    of_this_replay = psutil.Process(process.pid).children(recursive=True)
    died = [child for child in of_this_replay if part in " ".join(child.cmdline())]
    assert died
    for child in died:
        child.kill()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert b"Traceback" not in stderr
    assert said in stderr.decode()
    assert "ended early, by a failure" in stdout.decode()
    result = ReplayResult.read(out)
    assert result.failure.startswith(said)
    # Whether an event was filtered, only a worker can say.
    assert (result.interrupted, result.missing) == (False, None)
    assert result.filtered == (None if part == "modelstream run" else 0)
    assert 0 < result.predictions <= result.events < 5000


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_it_with_what_there_was(
    start: Callable[..., subprocess.Popen[bytes]], pipeline: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    file, out = tmp_path / "events.ndjson", tmp_path / "result.json"
    file.write_bytes(lines(5000))
    process = start("replay", pipeline, file, "--rate", "100/s", "--json", out, start_new_session=True)
    wait_for_answers(process)
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert b"Traceback" not in stderr
    assert b"predictions out" in stdout
    result = ReplayResult.read(out)
    assert result.interrupted
    assert result.missing is None
    assert 0 < result.predictions <= result.events < 5000


def test_capacity_finds_a_rate_that_the_pipeline_can_have(
    start: Callable[..., subprocess.Popen[bytes]], pipeline: Path, tmp_path: Path
) -> None:
    # A stage sleeps for 1 ms an event: 1,000/s are the most on any machine, and leave time to one with much else to do.
    (tmp_path / "slow.py").write_text(
        "import time\n\nimport numpy as np\n\n\n"
        "def wait(batch):\n    time.sleep(0.001 * len(batch))\n    return np.ones(len(batch), bool)\n"
    )
    pipeline.write_text(PIPELINE.replace("filter: {present: [seq]}", 'filter: "slow:wait"'))
    file, out = tmp_path / "events.ndjson", tmp_path / "capacity.json"
    file.write_bytes(lines(300))  # fewer than a probe needs: they come again
    options = ["--probe-s", 2, "--precision", 0.5, "--p99-ms", 60_000, "--price-per-core-hour", 36, "--json", out]
    process = start("capacity", pipeline, file, *options)
    stdout, stderr = process.communicate(timeout=110)  # some ten seconds of it are probes
    assert process.returncode == 0, stdout + stderr
    found = orjson.loads(out.read_bytes())
    assert len(re.findall(rb"^ *[0-9,]+ events/s", stdout, re.MULTILINE)) == 1 + len(found["probes"])
    kept_up = [probe["rate_per_s"] for probe in found["probes"] if not probe["problems"]]
    assert any(found["rate_per_s"] == pytest.approx(rate, abs=0.1) for rate in kept_up)
    # Up to 2 % of a rate may be left behind, and what came before the warm-up was over.
    assert 0 < found["rate_per_s"] < 1200
    assert found["cost_per_million"] == pytest.approx(found["cpu_s_per_million"] / 100)


def test_a_worker_that_fails_is_told_with_its_last_words(run: Run, pipeline: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(lines(1))
    done = run("replay", pipeline, file, "--set", "stages[0].filter=nowhere:wanted")
    assert done.returncode == 2  # the pipeline is wrong, not the run
    assert "starting a worker" in done.stderr
    assert "stages[0].filter: no module 'nowhere'" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "2x", "--rate", "5/s"], "--speed and --rate exclude each other"),
        (["--arrivals", "even"], "--arrivals needs --rate"),
        (["--speed", "quick"], "no speed; write 1x, 60x or max"),
        (["--speed", "2x", "--set", "source.event_time=null"], "source.event_time: the pipeline names none"),
        (["--live", "--workers", "2"], "leave --workers and --partitions out"),
        (["--live"], "needs a broker"),
        (["--live", "--broker", "localhost:1", "--set", "source.event_id=null"], "--live: needs source.event_id"),
    ],
)
def test_mistakes_are_told_before_anything_starts(pipeline: Path, options: list[str], said: str) -> None:
    done = CliRunner().invoke(command, [str(pipeline), "-", *options], input=lines(1), env={"MODELSTREAM_BROKER": None})
    assert said in (str(done.exception) if isinstance(done.exception, ConfigError) else done.output)
    assert done.exit_code == 2 or isinstance(done.exception, ConfigError)


def test_a_broken_line_ends_it_before_workers_start(run: Run, pipeline: Path) -> None:
    done = run("replay", pipeline, "-", input=lines(1) + b"{broken\n")
    assert done.returncode == 1
    assert "standard input:2: no JSON" in done.stderr
    assert "worker" not in done.stderr


def test_a_redis_that_does_not_answer_is_told_before_it_is_measured(run: Run, pipeline: Path) -> None:
    cached = ("--set", "stages[1].infer.cache={ttl_s: 60}", "--redis", "redis://127.0.0.1:1/0")
    done = run("replay", pipeline, "-", *cached, "--no-progress", input=lines(50))
    assert done.returncode == 0
    assert "note: Redis does not answer: Redis: " in done.stderr
    assert done.stderr.count("this measures a cache without it") == 1
