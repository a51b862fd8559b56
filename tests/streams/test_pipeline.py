"""Pipelines as values: built in Python or read from a file, made ready, and tried without Kafka."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from support.onnx_factory import affine, write_model

import modelstream
from modelstream import streams
from modelstream.models.errors import ConfigError, ModelLoadError
from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.json_format import JsonFormat
from modelstream.streams.pipeline import Pipeline, Source, extract, filter_events, infer, load_pipeline
from modelstream.streams.simulation import simulate
from modelstream.streams.spec import SourceSpec

EVENT = {"id": "e1", "tail": "N1", "at": "2013-01-01T10:15:00Z", "dep_delay": 3, "distance": 100}


def python_built() -> Pipeline:
    """Return what the project's pipeline file says."""
    return (
        Pipeline("flights", Source(topic="flights.events", key="tail", event_id="id", event_time="at"))
        .then("departed", filter_events(present=["dep_delay"]))
        .then("daytime", filter_events("features:daytime"))
        .then("features", extract("features:departure"))
        .then("delay", infer(["arrival_delay"], max_size=4))
        .then("more", infer(["total@1"]))
        .to("flights.predictions")
    )


def changed(file: Path, old: str, new: str) -> Pipeline:
    """Return the pipeline of a file after an edit."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return load_pipeline(file)


class TestValue:
    def test_file_and_python_give_the_same_value(self, project: Path) -> None:
        assert load_pipeline(project) == python_built()
        assert load_pipeline(project).folder == project.parent

    def test_yaml_round_trip(self, project: Path, tmp_path: Path) -> None:
        original = (
            load_pipeline(
                project,
                ["broker=k:9092", "redis=redis://r", "models_dir=m", "sink.dead_letter=d", "source.max_depth=9"],
            )
            .then("y", infer(["b"], cache_ttl_s=60))
            .then(
                "x",
                extract(
                    columns={"a": "float32", "ü": {"dtype": "int32", "from": "b.c", "width": 2, "default": [0, 1]}}
                ),
            )
        )
        copy = tmp_path / "copy.yaml"
        copy.write_text(original.to_yaml(), "utf-8")
        assert load_pipeline(copy) == original
        assert "max_record_bytes" not in original.to_yaml()

    def test_methods_leave_the_pipeline_as_it_is(self) -> None:
        base = Pipeline("p", "in").then("m", infer(["a"]))
        first, second = base.to("out"), base.then("n", infer(["b"])).to("out")
        assert [len(pipeline.stages) for pipeline in (base, first, second)] == [1, 1, 2]
        assert base.sink is None
        with pytest.raises(AttributeError):
            base.name = "q"  # type: ignore[misc]

    def test_different_pipelines_differ(self) -> None:
        pipeline = python_built()
        assert pipeline != pipeline.to("flights.predictions", dead_letter="elsewhere")
        assert pipeline != pipeline.then("last", infer(["another"]))

    def test_overrides_change_the_value(self, project: Path) -> None:
        pipeline = load_pipeline(project, ["stages[3].infer.batch.max_size=64", "sink.topic=other"])
        assert pipeline.stages[3].infer is not None and pipeline.stages[3].infer.batch.max_size == 64
        assert pipeline.spec.sink.dead_letter == "other.dead"

    @pytest.mark.parametrize("step", [extract, filter_events])
    def test_a_step_is_a_function_or_declared(self, step: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="takes either a function or"):
            step()
        with pytest.raises(TypeError, match="takes either a function or"):
            step("m:f", **{"columns" if step is extract else "present": ["x"]})

    def test_source_keys_are_those_of_the_file(self) -> None:
        assert set(get_type_hints(Source)) == set(SourceSpec.model_fields)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Pipeline("p", {"topc": "in"}), "source.topc: unknown key; did you mean 'topic'?"),
            (lambda: Pipeline("p", "in").then("a b", infer(["m"])), "stages[0].id: 'a b' is no name; use"),
            (
                lambda: Pipeline("p", "in").then("a", infer(["m"])).then("b", infer("m")),
                "stages[1].infer.models: must be a list, not 'm'",
            ),
            (
                lambda: Pipeline("p", "in").then("a", infer(["m"])).then("a", infer(["n"])).to("out"),
                "stages[1].id: 'a' is the id of stages[0] already",
            ),
            (lambda: Pipeline("p", "in").then("a", infer(["m"])).to("in"), "sink.topic: 'in' is the source's topic"),
            (lambda: Pipeline("p", "in").then("a", infer(["m"])).to("b c"), "sink.topic: 'b c' is no Kafka topic name"),
            (lambda: Pipeline("P", "in").then("a", infer(["m"])).to("out"), "pipeline: 'P' is no name; use"),
            (lambda: Pipeline("p", "in").to("out"), "stages: must not be empty"),
            (
                lambda: Pipeline("p", "in").then("a", infer(["m"])).spec,
                "sink: missing; end the pipeline with .to(TOPIC)",
            ),
            (
                lambda: (
                    Pipeline("p", "in").then("a", extract(lambda batch: {})).then("b", infer(["m"])).to("o").to_yaml()
                ),
                "stages[0].extract: TestValue.<lambda>.<locals>.<lambda> has no name that a file can use; define it at",
            ),
        ],
    )
    def test_errors_have_paths_in_python_too(self, make: Callable[[], object], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(message)

    def test_a_function_itself_is_written_by_its_name(self) -> None:
        pipeline = Pipeline("p", "in").then("a", extract(np.stack)).then("b", infer(["m"])).to("out")
        assert "extract: numpy:stack" in pipeline.to_yaml()


class TestBuild:
    def test_gives_what_a_worker_runs(self, project: Path) -> None:
        built = load_pipeline(project).build()
        assert [stage.step_id for stage in built.stages] == ["departed", "daytime", "features", "delay", "more"]
        assert [stage.operator.step_id for stage in built.stages] == [stage.step_id for stage in built.stages]
        assert [f"{model.name}@{model.version}" for model in built.models] == ["arrival_delay@1", "total@1"]
        assert built.codec == Codec(JsonFormat(max_depth=1024), event_id="id", event_time="at")
        assert built.spec == load_pipeline(project).spec

    def test_a_name_alone_is_the_highest_version(self, project: Path) -> None:
        built = changed(project, "total@1", "total").build()
        assert built.models[1].version == "2"

    def test_a_version_is_loaded_once_however_it_is_named(self, tmp_path: Path) -> None:
        write_model(tmp_path / "models", "m", affine([1.0]), '[inputs.x]\nfields = ["x"]\n')
        pipeline = (
            Pipeline("p", {"topic": "in", "event_id": "id"}, folder=tmp_path)
            .then("first", infer(["m", {"model": "m@1", "as": "same"}]))
            .then("second", infer([{"model": "m", "as": "in_time"}], timeout_ms=60_000))
            .to("out")
        )
        assert len(pipeline.build().models) == 1
        [found] = pipeline.simulate([{"id": "1", "x": 2}]).predictions
        assert [said["value"] for said in found["predictions"].values()] == [2, 2, 2]

    def test_models_from_another_folder(self, project: Path, tmp_path: Path) -> None:
        (project.parent / "models").rename(tmp_path / "elsewhere")
        assert load_pipeline(project).build(tmp_path / "elsewhere").models
        assert load_pipeline(project, [f"models_dir={tmp_path / 'elsewhere'}"]).build().models
        assert load_pipeline(project, ["models_dir=../elsewhere"]).build().models

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("[arrival_delay]", "[arrival_dely]", "stages[3].infer.models[0]: no model 'arrival_dely' in registry"),
            ("[arrival_delay]", "[arrival_dely]", "; did you mean 'arrival_delay'?"),
            ("total@1", "total@9", "stages[4].infer.models[0]: model 'total' has no version '9'"),
            (
                "features:daytime",
                "featurs:daytime",
                "stages[1].filter: no module 'featurs', neither next to the pipeline file nor installed"
                "; did you mean 'features'?",
            ),
            ("features:daytime", "features.sub:x", "stages[1].filter: no module 'features.sub', neither next to"),
            (
                "features:departure",
                "features:departur",
                "stages[2].extract: module 'features' has no function 'departur'; did you mean 'departure'?",
            ),
            (
                "features:departure",
                "features:NUMBER",
                "stages[2].extract: features:NUMBER is no function, but of type int",
            ),
            (
                "features:departure",
                "features:waiting",
                "stages[2].extract: features:waiting is asynchronous; it must be an ordinary function",
            ),
            (
                "features:departure",
                "features:needy",
                "stages[2].extract: features:needy(batch, more) must take one argument, the event batch",
            ),
        ],
    )
    def test_what_is_named_must_be_there(self, project: Path, old: str, new: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            changed(project, old, new).build()
        assert message in str(caught.value)
        assert str(caught.value).startswith(message.partition(":")[0]) or message.startswith(";")

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("def departure(:\n", "SyntaxError: invalid syntax"),
            ("import pandaz\n", "ModuleNotFoundError: No module named 'pandaz'"),
            ("from . import other\n", "ImportError: attempted relative import with no known parent package"),
            ("1 / 0\n", "ZeroDivisionError: division by zero"),
            ("import sys\nsys.exit('gone')\n", "SystemExit: gone"),
        ],
    )
    def test_a_module_that_cannot_be_imported(self, project: Path, code: str, message: str) -> None:
        (project.parent / "features.py").write_text(code)
        with pytest.raises(ConfigError) as caught:
            load_pipeline(project).build()
        assert str(caught.value).startswith(f"stages[1].filter: importing 'features' failed: {message}")
        assert "_modelstream_" not in str(caught.value)

    def test_a_broken_model_is_told_by_its_name(self, project: Path) -> None:
        (project.parent / "models/total/1/model.onnx").write_bytes(b"")
        with pytest.raises(ModelLoadError, match=r"^model total@1: .*is empty"):
            load_pipeline(project).build()

    @pytest.mark.parametrize(
        ("columns", "problem"),
        [
            ("{x: {dtype: float32, width: 20}}", "float32[20]"),
            ("{x: float64}", "float64"),
            ("{x: {dtype: string, width: 2}}", "string[2]"),
        ],
    )
    def test_declared_columns_must_fit_the_model(self, project: Path, columns: str, problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            changed(project, 'extract: "features:departure"', f"extract: {{columns: {columns}}}").build()
        assert str(caught.value) == (
            "stages[3].infer.models[0]: model arrival_delay@1 reads field 'x' as float32[2], "
            f"but stages[2].extract.columns.x is {problem}"
        )

    def test_a_function_may_replace_a_declared_column(self, project: Path) -> None:
        first = Pipeline("p", "in", folder=project.parent).then("a", extract(columns={"x": "float32"}))
        first.then("b", extract("features:departure")).then("c", infer(["arrival_delay"])).to("out").build()

    def test_declared_numbers_are_cast(self, project: Path) -> None:
        pipeline = Pipeline("p", "in", folder=project.parent).then(
            "a", extract(columns={"x": {"dtype": "int32", "width": 2}, "dep_delay": "bool"})
        )
        simulation = pipeline.then("b", infer(["arrival_delay", "total"])).to("out").simulate(
            [{"x": [1, 2], "dep_delay": True}]
        )  # fmt: skip
        predictions = simulation.predictions[0]["predictions"]
        assert predictions == {"arrival_delay": {"version": "1", "value": 4}, "total": {"version": "2", "value": 1}}

    def test_models_that_read_one_field_differently(self, project: Path) -> None:
        write_model(project.parent / "models", "wide", affine([1, 1, 1], tensor="x"), '[inputs.x]\nfield = "x"\n')
        with pytest.raises(ConfigError, match=r"^stages\[3\]\.infer\.models: field 'x' is read as a vector of 2 and"):
            changed(project, "[arrival_delay]", "[arrival_delay, wide]").build()


class TestSeveralModels:
    """Ensembles, cascades and models that read others, from the file to the prediction."""

    def pipeline(self, folder: Path, infer_: dict[str, Any], **more: Any) -> Pipeline:
        first = Pipeline("p", "in", folder=folder).then("a", extract(columns={"x": {"dtype": "float32", "width": 2}}))
        return first.then("b", infer(**infer_, **more)).to("out")

    def test_they_work_together(self, project: Path) -> None:
        # arrival_delay is 2·x[0] + x[1], total is the delay at the gate.
        keys = {
            "models": [
                "arrival_delay",
                {"model": "total", "as": "late", "inputs": {"dep_delay": "arrival_delay.value"}},
                {"model": "total@2", "as": "gate", "inputs": {"dep_delay": "at.gate"}},
            ],
            "ensembles": {"blend": {"mean": ["arrival_delay", "gate"]}, "w": {"weighted": {"gate": 3, "late": 1}}},
            "cascades": {"verdict": {"steps": ["arrival_delay", "gate"], "unsure": "value > 4"}},
        }
        pipeline = self.pipeline(project.parent, keys)
        copy = project.with_name("copy.yaml")
        copy.write_text(pipeline.to_yaml())
        assert load_pipeline(copy) == pipeline
        found = (
            load_pipeline(copy)
            .simulate([{"x": [1, 2], "at": {"gate": 8}}, {"x": [2, 2], "at": {"gate": 10}}])
            .predictions
        )
        sure, unsure = (record["predictions"] for record in found)
        assert sure == {
            "arrival_delay": {"version": "1", "value": 4},
            "late": {"version": "2", "value": 4},
            "verdict": {"version": "1", "model": "arrival_delay", "value": 4},
        }
        assert unsure == {
            "arrival_delay": {"version": "1", "value": 6},
            "late": {"version": "2", "value": 6},
            "gate": {"version": "2", "value": 10},
            "blend": {"version": "arrival_delay@1+gate@2", "value": 8},
            "w": {"version": "gate@2+late@2", "value": 9},
            "verdict": {"version": "2", "model": "gate", "value": 10},
        }

    def test_a_stage_reads_answers_of_the_stages_before(self, project: Path) -> None:
        pipeline = Pipeline("p", "in", folder=project.parent).then("a", infer(["total@2"]))
        pipeline = pipeline.then(
            "b", infer([{"model": "total", "as": "again", "inputs": {"dep_delay": "total.value"}}])
        )
        [record] = pipeline.to("out").simulate([{"dep_delay": 5}]).predictions
        assert record["predictions"]["again"] == {"version": "2", "value": 5}

    def test_ids_depend_on_how_the_models_work_together(self, project: Path) -> None:
        def made_id(**keys: Any) -> str:
            models = keys.pop("models", ["arrival_delay", "total"])
            pipeline = self.pipeline(project.parent, {"models": models}, **keys)
            [record] = pipeline.simulate([{"id": "1", "x": [1, 2], "dep_delay": 1, "d": 1}]).predictions
            return str(record["id"])

        cascade = {"steps": ["arrival_delay", "total"], "unsure": "value > 1"}
        variants: list[dict[str, Any]] = [
            {},
            {"models": ["arrival_delay", {"model": "total", "as": "sum"}]},
            {"models": ["arrival_delay", {"model": "total", "inputs": {"dep_delay": "d"}}]},
            {"ensembles": {"e": {"mean": ["arrival_delay", "total"]}}},
            {"ensembles": {"e": {"weighted": {"arrival_delay": 1, "total": 2}}}},
            {"ensembles": {"e": {"weighted": {"arrival_delay": 1, "total": 3}}}},
            {"cascades": {"c": cascade}},
            {"cascades": {"c": cascade | {"unsure": "value > 2"}}},
        ]
        assert len({made_id(**variant) for variant in variants}) == len(variants)

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (
                {"ensembles": {"e": {"mean": ["arrival_dely", "total"]}}},
                "stages[1].infer.ensembles.e.mean[0]: there is no 'arrival_dely' in this stage; "
                "did you mean 'arrival_delay'?",
            ),
            (
                {"ensembles": {"e": {"weighted": {"totl": 2}}}},
                "stages[1].infer.ensembles.e.weighted.totl: there is no 'totl' in this stage; did you mean 'total'?",
            ),
            (
                {"cascades": {"c": {"steps": ["total", "e"], "unsure": "x"}}, "ensembles": {"e": {"mean": ["total"]}}},
                "stages[1].infer.cascades.c.steps[1]: 'e' is an ensemble; a step must be a model",
            ),
            (
                {"ensembles": {"total": {"mean": ["total"]}}},
                "stages[1].infer.ensembles.total: the name 'total' stands at stages[1].infer.models[1] already",
            ),
            (
                {"ensembles": {"e": {"mean": ["f"]}, "f": {"vote": ["e"]}}},
                "stages[1].infer: 'e' reads 'f' reads 'e': none of them can be asked first",
            ),
            (
                {"models": ["arrival_delay", {"model": "total", "inputs": {"dep_delay": "total.value"}}]},
                "stages[1].infer: 'total' reads 'total': none of them can be asked first",
            ),
            (
                {"models": ["total", {"model": "total", "as": "t", "inputs": {"dep_dely": "x"}}]},
                "stages[1].infer.models[1].inputs.dep_dely: model total@2 reads no field 'dep_dely'; "
                "did you mean 'dep_delay'?",
            ),
            (
                {"models": ["arrival_delay", {"model": "total", "inputs": {"dep_delay": "arrival_delay.valu"}}]},
                "stages[1].infer.models[1].inputs.dep_delay: 'arrival_delay' answers with no field 'valu'; "
                "did you mean 'value'?",
            ),
            (
                {"models": ["arrival_delay", {"model": "total", "inputs": {"dep_delay": "x"}}]},
                "stages[1].infer.models[1]: model total@2 reads field 'dep_delay' as float32, "
                "but stages[0].extract.columns.x is float32[2]",
            ),
            (
                {"cascades": {"c": {"steps": ["arrival_delay", "total"], "unsure": "valu > 1"}}},
                "stages[1].infer.cascades.c.unsure: there is no 'valu'; did you mean 'value'?",
            ),
            (
                {"ensembles": {"e": {"stack": ["total"], "model": "totl"}}},
                "stages[1].infer.ensembles.e.model: no model 'totl' in registry",
            ),
            ({"batch": {"pad_to": [4]}}, "stages[1].infer.batch.pad_to: no model of the stage reads a field of width"),
        ],
    )
    def test_what_does_not_go_together_is_told_with_its_path(
        self, project: Path, keys: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            self.pipeline(project.parent, {"models": ["arrival_delay", "total"]} | keys).build()
        assert str(caught.value).startswith(message)

    def test_numbers_that_are_not_finite_may_be_null(self, project: Path) -> None:
        write_model(project.parent / "models", "huge", affine([3e38, 3e38]))
        event = {"x": [3, 3]}
        rejecting = self.pipeline(project.parent, {"models": ["huge"]}).simulate([event])
        assert [letter["reason"] for letter in rejecting.dead_letters] == ["non_finite"]
        keeping = self.pipeline(project.parent, {"models": ["huge"]}, non_finite="null").simulate([event])
        assert keeping.predictions[0]["predictions"] == {"huge": {"version": "1", "value": None}}


class TestFunctions:
    def test_two_pipelines_may_each_have_their_own_modules(self, make_project: Callable[..., Path]) -> None:
        before = set(sys.modules)
        first, second = make_project("a", scale=1), make_project("b", scale=10)
        builds = [load_pipeline(file).build() for file in (first, second)]
        values = [build.stages[2].operator(EventBatch.of_events([EVENT])).columns["x"][0, 0] for build in builds]  # type: ignore[call-overload]
        assert values == [3, 30]
        left = {name for name in set(sys.modules) - before if not name.startswith("_modelstream_")}
        assert not {"features", "helper"} & left

    def test_a_module_of_the_same_name_elsewhere_does_not_matter(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = types.ModuleType("helper")
        monkeypatch.setitem(sys.modules, "helper", other)
        assert load_pipeline(project).simulate([EVENT]).predictions
        assert sys.modules["helper"] is other

    def test_a_new_build_sees_a_changed_file(self, project: Path) -> None:
        pipeline = load_pipeline(project)
        pipeline.build()
        (project.parent / "features.py").write_text(
            "def daytime(batch): ...\ndef departure(batch): ...\ndef f(batch): ...\n"
        )
        pipeline.then("new", extract("features:f")).build()

    def test_stages_of_one_build_share_a_module(self, project: Path) -> None:
        built = load_pipeline(project).build()
        functions = [built.stages[i].operator.function for i in (1, 2)]  # type: ignore[attr-defined]
        assert functions[0].__globals__ is functions[1].__globals__

    @pytest.mark.parametrize("init", [True, False])
    def test_functions_in_a_package(self, project: Path, init: bool) -> None:
        package = project.parent / "mine"
        package.mkdir()
        if init:
            (package / "__init__.py").touch()
        (package / "rules.py").write_text("from .deep import daytime\nfrom mine.deep import NAME\n")
        (package / "deep.py").write_text(
            "class Rule:\n    @staticmethod\n    def late(batch): ...\nNAME = 1\ndef daytime(batch): ...\n"
        )
        changed(project, "features:daytime", "mine.rules:daytime").build()
        changed(project, "mine.rules:daytime", "mine.deep:Rule.late").build()
        assert not [name for name in sys.modules if name.split(".")[0] == "mine"]

    def test_installed_modules_and_those_in_the_working_directory(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed(project, "features:daytime", "numpy:isnan").build()
        (tmp_path / "in_working_directory.py").write_text("def f(batch): ...\n")
        monkeypatch.chdir(tmp_path)
        path = list(sys.path)
        changed(project, "numpy:isnan", "in_working_directory:f").build()
        assert sys.path == path

    def test_the_function_itself(self, project: Path) -> None:
        def double(batch: EventBatch) -> dict[str, Any]:
            return {"dep_delay": np.array([2 * event["dep_delay"] for event in batch.events])}

        pipeline = Pipeline("p", "in", folder=project.parent).then("double", extract(double))
        simulation = pipeline.then("total", infer(["total@2"])).to("out").simulate([EVENT])
        assert simulation.predictions[0]["predictions"]["total"]["value"] == 6


class TestSimulate:
    def test_a_prediction(self, project: Path) -> None:
        simulation = load_pipeline(project).simulate([EVENT])
        [prediction] = simulation.predictions
        assert len(prediction.pop("id")) == 32
        assert prediction == {
            "event_id": "e1",
            "key": "N1",
            "event_time": "2013-01-01T10:15:00Z",
            "predictions": {
                "arrival_delay": {"version": "1", "value": 7.0},
                "total": {"version": "1", "value": 103.0},
            },
        }
        assert (simulation.dead_letters, simulation.filtered) == ([], 0)

    def test_every_event_has_one_fate(self, project: Path) -> None:
        events: list[Any] = [{**EVENT, "id": str(i), "dep_delay": i} for i in range(3000)]
        events[5] = {**EVENT, "dep_delay": None}
        events[6] = {**EVENT, "hour": 23}
        events[7] = b"{"
        events[8] = None
        events[9] = {**EVENT, "dep_delay": "late"}
        events[2000] = {**EVENT, "distance": None}
        events[2001] = {**EVENT, "at": "yesterday"}
        simulation = load_pipeline(project).simulate(events)
        assert simulation.filtered == 2
        assert [(letter["offset"], letter["stage"], letter["reason"]) for letter in simulation.dead_letters] == [
            (7, "source", "undecodable"),
            (8, "source", "undecodable"),
            (9, "features", "operator_failed"),
            (2000, "more", "missing_field"),
            (2001, "source", "wrong_type"),
        ]
        assert simulation.dead_letters[0]["value"] == b"{"
        assert simulation.dead_letters[2]["exception"] == "ValueError"
        good = [i for i in range(3000) if i not in (5, 6, 7, 8, 9, 2000, 2001)]
        assert [prediction["event_id"] for prediction in simulation.predictions] == [str(i) for i in good]
        values = [prediction["predictions"]["arrival_delay"]["value"] for prediction in simulation.predictions]
        assert values == [2 * i + 1 for i in good]

    def test_bytes_and_mappings_are_the_same(self, project: Path) -> None:
        pipeline = load_pipeline(project)
        record = b'{"id":"e1","tail":"N1","at":"2013-01-01T10:15:00Z","dep_delay":3,"distance":100}'
        read_only = types.MappingProxyType(EVENT)
        numpy_event = {**EVENT, "dep_delay": np.float32(3), "distance": np.int64(100)}
        simulations = [pipeline.simulate([event]) for event in (EVENT, record, read_only, numpy_event)]
        assert all(simulation == simulations[0] for simulation in simulations)

    def test_ids_come_from_pipeline_stages_and_versions(self, project: Path) -> None:
        def first_id(pipeline: Pipeline) -> str:
            return str(pipeline.simulate([EVENT]).predictions[0]["id"])

        original = load_pipeline(project)
        assert first_id(original) == first_id(load_pipeline(project))
        others = [
            load_pipeline(project, ["pipeline=other"]),
            load_pipeline(project, ["stages[3].id=other"]),
            load_pipeline(project, ["stages[4].infer.models[0]=total@2"]),
        ]
        assert len({first_id(pipeline) for pipeline in (original, *others)}) == 4

    def test_events_without_id_time_and_key(self, project: Path) -> None:
        pipeline = Pipeline("p", "in", folder=project.parent).then("a", infer(["total@2"])).to("out")
        predictions = pipeline.simulate([{"dep_delay": 1}, {"dep_delay": 2}]).predictions
        assert [prediction["event_id"] for prediction in predictions] == ["in/0/0", "in/0/1"]
        assert {(prediction["key"], prediction["event_time"]) for prediction in predictions} == {
            (None, "1970-01-01T00:00:00Z")
        }

    @pytest.mark.parametrize(("key", "expected"), [(7, "7"), (True, "true"), (None, None), ("ü", "ü")])
    def test_keys_are_text(self, project: Path, key: object, expected: str | None) -> None:
        simulation = load_pipeline(project).simulate([{**EVENT, "tail": key}])
        assert simulation.predictions[0]["key"] == expected

    @pytest.mark.parametrize("event", [{"a": {1}}, "text", 5])
    def test_what_is_no_event(self, project: Path, event: Any) -> None:
        with pytest.raises(ConfigError, match=r"^events\[1\]: (cannot be written as JSON|must be a mapping or bytes)"):
            load_pipeline(project).simulate([EVENT, event])

    def test_no_events(self, project: Path) -> None:
        simulation = load_pipeline(project).simulate([])
        assert (simulation.predictions, simulation.dead_letters, simulation.filtered) == ([], [], 0)

    def test_a_cache_is_left_out_unless_redis_is_named(self, project: Path) -> None:
        pipeline = changed(project, "[arrival_delay]", "[arrival_delay], cache: {ttl_s: 60}")
        assert len(pipeline.simulate([EVENT]).predictions) == 1
        assert pipeline.build().caches == {}

    @pytest.mark.redis
    def test_answers_are_kept_where_redis_is_named(self, project: Path, redis_url: str) -> None:
        pipeline = changed(project, "[arrival_delay]", "[arrival_delay], cache: {ttl_s: 60}")
        built = pipeline.build(redis_url=redis_url)
        once, again = (simulate(built, [EVENT, b"?", EVENT]) for _ in range(2))
        assert once == again == pipeline.simulate([EVENT, b"?", EVENT])
        built.close()
        [found] = built.caches.values()
        assert (found.memory_hits, found.misses, found.duplicates) == (1, 1, 2)


class TestPackage:
    @pytest.mark.parametrize("package", [modelstream, streams])
    def test_public_names(self, package: types.ModuleType) -> None:
        assert all(getattr(package, name) is not None for name in package.__all__)
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = package.nothing

    def test_looking_at_a_pipeline_loads_neither_faust_nor_kafka_nor_onnx(self) -> None:
        code = (
            "import sys, modelstream; modelstream.Pipeline('p', 'in').then('m', modelstream.infer(['a'])).to('out');"
            "heavy = {'faust', 'mode', 'aiokafka', 'confluent_kafka', 'onnxruntime', 'redis'};"
            "print(sorted(heavy & set(sys.modules)))"
        )
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert printed.strip() == "[]"
