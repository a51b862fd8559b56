"""A call that would run for hours is stopped; the model goes on with the next."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.onnx_factory import affine, patient, write_model

from modelstream.models.contract import ContractBreach
from modelstream.models.errors import InferenceError, InferenceTimeout
from modelstream.models.loading import load_model
from modelstream.models.session import open_session, run_rows, run_session
from modelstream.models.watchdog import CallTimeout, Watchdog, within

FOREVER = np.array([[1e12]], np.float32)


VALUE = '[outputs.value]\n[outputs.looped]\nkind = "value"'


@pytest.fixture
def model(models_dir):
    write_model(models_dir, "m", patient(), VALUE)
    return load_model(models_dir, "m", timeout_s=0.2)


def test_a_call_past_its_time_is_stopped_and_the_next_one_works(model):
    for _ in range(2):
        with pytest.raises(InferenceTimeout) as caught:
            model.predict({"x": np.array([1.0, 1e12])}, 2)
        assert str(caught.value) == "model m@1: took longer than 0.2 s, and was stopped, with a batch of 2"
        assert isinstance(caught.value, InferenceError)
        assert model.predict({"x": np.array([3.0])}, 1)["value"].tolist() == [3]


def test_only_the_late_call_is_stopped(model):
    with ThreadPoolExecutor(3) as pool:
        late = pool.submit(model.predict, {"x": FOREVER}, 1)
        quick = [pool.submit(model.predict, {"x": np.array([float(i % 7)])}, 1) for i in range(500)]
        assert [one.result()["value"][0] for one in quick] == [i % 7 for i in range(500)]
        assert isinstance(late.exception(), InferenceTimeout)


def test_all_late_calls_are_stopped(model):
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(model.predict, {"x": FOREVER}, 1) for _ in range(4)]
        assert all(isinstance(call.exception(), InferenceTimeout) for call in calls)


def test_an_error_before_the_deadline_is_no_timeout(model):
    with pytest.raises(InferenceError) as caught:
        model.predict({"y": FOREVER}, 1)
    assert not isinstance(caught.value, InferenceTimeout)


def test_the_deadline_is_for_all_rows_of_a_model_that_takes_one_at_a_time(models_dir):
    write_model(models_dir, "m", patient(1), VALUE)
    model = load_model(models_dir, "m", timeout_s=0.2)
    with pytest.raises(InferenceTimeout):
        model.predict({"x": np.array([1.0, 1e12, 1.0])}, 3)
    assert model.predict({"x": np.array([1.0, 2.0])}, 2)["value"].tolist() == [1, 2]


def test_a_shorter_deadline_overtakes_a_longer_one():
    session = open_session(patient())
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(run_session, session, ["value", "looped"], {"x": FOREVER}, 3.0)
        with pytest.raises(CallTimeout):
            run_session(session, ["value", "looped"], {"x": FOREVER}, 0.1)
        assert not long.done()
        assert isinstance(long.exception(), CallTimeout)


def test_without_a_timeout_there_is_no_watchdog():
    before = threading.active_count()
    session = open_session(affine([1]))
    for run in (run_session, run_rows):
        run(session, ["value"], {"x": np.ones((3, 1), np.float32)})
    assert threading.active_count() <= before


def test_one_thread_watches_all_calls_and_is_no_hindrance_at_the_end():
    watchdog = Watchdog()
    before = threading.active_count()
    for _ in range(100):
        with watchdog.within(60):
            pass
    [thread] = [one for one in threading.enumerate() if one is watchdog._thread]
    assert thread.daemon
    assert threading.active_count() == before + 1


def test_errors_that_are_not_of_the_model_pass_as_they_are():
    watchdog = Watchdog()
    with pytest.raises(KeyError), watchdog.within(0.001) as options:
        while not options.terminate:
            time.sleep(0.001)
        raise KeyError
    with pytest.raises(CallTimeout, match=r"took longer than 0\.001 s, and was stopped"), watchdog.within(0.001) as o:
        while not o.terminate:
            time.sleep(0.001)
        raise ContractBreach("stopped")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking with threads warns")
def test_a_forked_process_has_a_watchdog_of_its_own():
    with within(60):
        pass
    child = os.fork()
    if not child:
        signal.alarm(30)
        with within(0.01) as options:
            while not options.terminate:
                time.sleep(0.001)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
