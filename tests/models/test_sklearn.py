"""Models as skl2onnx exports them, with no more in model.toml than which file it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support.onnx_factory import run_plain, write_model

from modelstream import Pipeline, extract, infer
from modelstream.models.contract import FieldSpec
from modelstream.models.errors import ModelLoadError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
LABELS = {
    "two numbers": (X[:, 0] > 0).astype(int),
    "two texts": np.where(X[:, 0] > 0, "late", "on time"),
    "three numbers": np.digitize(X[:, 0], [-0.5, 0.5]) + 5,
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_gives_label_and_score(load, labels, zipmap):
    classifier = LogisticRegression().fit(X, LABELS[labels])
    onnx = to_onnx(classifier, X[:1], options={"zipmap": zipmap}).SerializeToString()
    model = load(onnx)
    predicted = model.predict({"X": X}, len(X))
    assert list(predicted) == ["label", "score"]
    label, scores = run_plain(onnx, {"X": X})
    assert_array_equal(predicted["label"], label)
    assert predicted["score"].dtype == np.float32
    by_row = [max(row.values()) if zipmap else row.max() for row in scores]
    assert_array_equal(predicted["score"], np.array(by_row, np.float32))
    assert len(model.notes) == zipmap
    assert all("zipmap" in note for note in model.notes)


@pytest.mark.parametrize("zipmap", [True, False])
def test_the_score_of_one_class(load, zipmap):
    classifier = LogisticRegression().fit(X, LABELS["two texts"])
    onnx = to_onnx(classifier, X[:1], options={"zipmap": zipmap}).SerializeToString()
    tensor = "output_probability" if zipmap else "probabilities"
    toml = f'[outputs.score]\ntensor = "{tensor}"\nclass = "late"\nclasses = ["late", "on time"]'
    model = load(onnx, toml)
    assert_allclose(model.predict({"X": X}, len(X))["score"], classifier.predict_proba(X)[:, 0], rtol=1e-4, atol=1e-6)


def test_boosted_trees_give_a_value(load):
    onnx = to_onnx(GradientBoostingRegressor(n_estimators=20).fit(X, X[:, 1]), X[:1]).SerializeToString()
    predicted = load(onnx).predict({"X": X}, len(X))
    # Several threads, the default, add the trees up in another order.
    assert_allclose(predicted["value"], run_plain(onnx, {"X": X})[0][:, 0], rtol=1e-5, atol=1e-6)


def _mixed(handle_unknown: str) -> bytes:
    carriers = np.where(X[:, 2] > 0, "AA", "UA")
    table = np.empty((len(X), 3), object)
    table[:, 0], table[:, 1], table[:, 2] = carriers, X[:, 0], np.arange(len(X)) % 5
    encode = make_column_transformer((OneHotEncoder(handle_unknown=handle_unknown), [0]), (StandardScaler(), [1, 2]))
    pipeline = make_pipeline(encode, Ridge()).fit(table, X[:, 1])
    types = [
        ("carrier", StringTensorType([None, 1])),
        ("dep_delay", FloatTensorType([None, 1])),
        ("hour", Int64TensorType([None, 1])),
    ]
    return convert_sklearn(pipeline, initial_types=types).SerializeToString()


def test_named_columns_of_several_types_need_no_contract(load):
    onnx = _mixed("ignore")
    model = load(onnx)
    assert model.required_fields == (
        FieldSpec("carrier", "string"),
        FieldSpec("dep_delay", "float32"),
        FieldSpec("hour", "int64"),
    )
    carriers = ["AA", "UA", "never seen"]
    predicted = model.predict({"carrier": carriers, "dep_delay": X[:3, 0], "hour": np.array([1, 2, 3.0])}, 3)
    expected = run_plain(
        onnx,
        {"carrier": np.array(carriers, object)[:, None], "dep_delay": X[:3, :1], "hour": np.array([[1], [2], [3]])},
    )[0]
    assert_allclose(predicted["value"], expected[:, 0], rtol=1e-5, atol=1e-6)


def test_a_model_that_takes_known_categories_only_needs_examples(load, models_dir):
    onnx = _mixed("error")
    with pytest.raises(
        ModelLoadError, match=r"Unknown Category.*; if it takes certain values only, list some under \["
    ):
        load(onnx)
    toml = models_dir / "m" / "1" / "model.toml"
    toml.write_text(toml.read_text() + '[examples]\ncarrier = ["AA", "UA"]\n')
    from modelstream.models.loading import load_model

    assert load_model(models_dir, "m").predict({"carrier": ["AA"], "dep_delay": [1.0], "hour": [7]}, 1)["value"].shape


def test_a_pipeline_with_an_imputer_gets_its_missing_values(tmp_path):
    rows = X[:, :2].copy()
    rows[::3, 1] = np.nan
    regression = make_pipeline(SimpleImputer(), Ridge()).fit(rows, X[:, 2])
    onnx = to_onnx(regression, rows[:1]).SerializeToString()
    write_model(tmp_path / "models", "filled", onnx, '[inputs.X]\nfields = ["a", "b"]\n')
    columns = {"a": "float32", "b": {"dtype": "float32", "default": float("nan")}}
    pipeline = Pipeline("p", {"topic": "in", "event_id": "id"}, folder=tmp_path)
    pipeline = pipeline.then("columns", extract(columns=columns)).then("score", infer(["filled"])).to("out")
    events = [
        {"id": str(i), "a": float(a), **({} if np.isnan(b) else {"b": float(b)})} for i, (a, b) in enumerate(rows)
    ]
    found = [record["predictions"]["filled"]["value"] for record in pipeline.simulate(events).predictions]
    assert_allclose(found, regression.predict(rows), rtol=1e-4, atol=1e-5)
