"""``modelstream run``: what it asks for before it starts."""

from __future__ import annotations

import pytest

CACHED = ("--set", "stages[3].infer.cache.ttl_s=60", "--broker", "127.0.0.1:1")


def test_a_cache_needs_the_name_of_a_redis(run, project):
    done = run("run", project, *CACHED)
    assert (done.returncode, done.stdout) == (2, "")
    assert "modelstream: error: stages[3].infer.cache: needs a Redis; name one with --redis" in done.stderr


@pytest.mark.parametrize("url", ["cache:6379", "redis://:s3cret@h/0?nonsense=1"])
def test_a_url_that_is_none(run, project, url):
    done = run("run", project, *CACHED, "--redis", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "redis: " in done.stderr
    assert "s3cret" not in done.stderr


def test_the_app_of_the_environment_needs_it_too(run, project, monkeypatch):
    from modelstream.models.errors import ConfigError
    from modelstream.streams.app import app_from_environment

    project.write_text(project.read_text().replace("[arrival_delay]", "[arrival_delay], cache: {ttl_s: 60}"))
    monkeypatch.delenv("MODELSTREAM_REDIS", raising=False)
    monkeypatch.setenv("MODELSTREAM_PIPELINE", str(project))
    with pytest.raises(ConfigError, match=r"stages\[3\]\.infer\.cache: needs a Redis"):
        app_from_environment()


def test_the_app_of_the_environment_says_what_may_be_misspelt(project, monkeypatch, caplog):
    from modelstream.streams.app import app_from_environment

    misspelt = "[{model: total@1, inputs: {distance: arival_delay.value}}]"
    project.write_text(project.read_text().replace("[total@1]", misspelt))
    monkeypatch.setenv("MODELSTREAM_PIPELINE", str(project))
    monkeypatch.setenv("MODELSTREAM_BROKER", "127.0.0.1:1")
    app_from_environment()
    [note] = caplog.messages
    assert note.startswith("stages[4].infer.models[0].inputs.distance: no answer 'arival_delay'")
