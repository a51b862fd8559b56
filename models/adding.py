"""A model file made a version of a model: its folder, its digest, its contract, checked before anybody sees it."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelstream.models.contract import ContractBreach, ModelContract
from modelstream.models.contract_file import CONTRACT_FILE, MODEL_FILE
from modelstream.models.errors import ConfigError, ModelLoadError
from modelstream.models.loading import load_model
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.registry import new_version
from modelstream.models.session import open_session

__all__ = ["add_model"]


def add_model(
    models_dir: Path,
    name: str,
    onnx_file: Path,
    *,
    version: str | None = None,
    fields: Mapping[str, Sequence[str]] | None = None,
    vectors: Mapping[str, str] | None = None,
    widths: Mapping[str, int | str] | None = None,
    score_class: int | str | None = None,
    classes: Sequence[int | str] = (),
) -> OnnxModel:
    """Make a model file a version of a model, and return it, loaded and checked.

    Nothing is there before all checks have passed: a worker that starts meanwhile never sees half a version.

    Parameters
    ----------
    models_dir : Path
        Directory of models; made where it is missing.
    name : str
        The model.
    onnx_file : Path
        What becomes ``model.onnx``; it is copied.
    version : str, optional
        By default the whole number above the highest version, or 1.
    fields : mapping of str to sequence of str, optional
        By input tensor, the scalar fields that are packed into it, in order. An empty name means the only input. An
        input that is not named takes the field of its own name.
    vectors : mapping of str to str, optional
        By input tensor, the one field that holds its list of numbers.
    widths : mapping of str to int or "any", optional
        How many numbers those lists have, where the graph leaves it open.
    score_class : int or str, optional
        The class whose probability the score of a classifier is; by default the label's that is answered.
    classes : sequence of int or str, optional
        All classes in the order of the score's columns, where those are not 0, 1, 2, ….

    Raises
    ------
    ConfigError
        If there is such a version, or the file or the directory cannot be used.
    ModelLoadError
        If the model would not load, or does not do what is said of it.
    """
    new = new_version(models_dir, name, version)
    try:
        content = onnx_file.read_bytes()
        models_dir.mkdir(parents=True, exist_ok=True)
        # A folder with a dot before its name is no model. On the same file system, so that it moves at once.
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=models_dir) as folder:
            made = Path(folder) / name / new.version
            made.mkdir(parents=True)
            (made / MODEL_FILE).write_bytes(content)
            said = {"name": name, "version": new.version, "sha256": hashlib.sha256(content).hexdigest()}
            text = "".join(f"{key} = {_toml(value)}\n" for key, value in said.items())
            text += _inputs(content, fields or {}, vectors or {}, widths or {})
            model = _load(made, text, onnx_file)
            if score_class is not None:
                model = _load(made, text + _outputs(model.contract, score_class, classes), onnx_file)
            new.directory.parent.mkdir(exist_ok=True)
            made.rename(new.directory)
    except ContractBreach as error:
        raise ModelLoadError(name, new.version, f"{onnx_file}: {error}") from None
    except OSError as error:
        raise ConfigError("", f"{error.filename}: {error.strerror}") from None
    return model


def _load(made: Path, contract: str, onnx_file: Path) -> OnnxModel:
    (made / CONTRACT_FILE).write_text(contract, encoding="utf-8")
    try:
        return load_model(made.parent.parent, f"{made.parent.name}@{made.name}")
    except ModelLoadError as error:
        problem = error.problem.replace(f"{made / CONTRACT_FILE}: ", "").replace(str(made / MODEL_FILE), str(onnx_file))
        raise ModelLoadError(error.name, error.version, f"{problem}; nothing was added") from None


def _inputs(
    content: bytes, fields: Mapping[str, Sequence[str]], vectors: Mapping[str, str], widths: Mapping[str, int | str]
) -> str:
    tables: dict[str, dict[str, object]] = {}
    said = {"fields": {name: list(packed) for name, packed in fields.items()}, "field": vectors, "width": widths}
    for key, by_input in said.items():
        for name, value in by_input.items():
            tables.setdefault(name, {})[key] = value
    # To know the only input's name takes a session.
    names = [tensor.name for tensor in open_session(content).get_inputs()] if "" in tables else []
    if len(names) > 1:
        listed = ", ".join(names)
        raise ContractBreach(f"has {len(names)} inputs, {listed}: say which one is meant, as {names[0]}=…")
    only = names[0] if names else ""
    return "".join(_table(f"inputs.{_key(name or only)}", table) for name, table in tables.items())


def _outputs(contract: ModelContract, score_class: int | str, classes: Sequence[int | str]) -> str:
    if all(output.kind != "score" for output in contract.outputs):
        found = ", ".join(f"{output.field} ({output.kind})" for output in contract.outputs)
        raise ContractBreach(f"has no score that could be of class {score_class!r}, only {found}")
    text = ""
    for output in contract.outputs:
        table: dict[str, object] = {"tensor": output.tensor}
        if output.kind == "score":
            table |= {"class": score_class} | ({"classes": list(classes)} if classes else {})
        text += _table(f"outputs.{_key(output.field)}", table)
    return text


def _table(name: str, table: Mapping[str, object]) -> str:
    return "".join([f"\n[{name}]\n", *(f"{key} = {_toml(value)}\n" for key, value in table.items())])


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: object) -> str:
    # A text, a number and a list of them look alike in both.
    return json.dumps(value, ensure_ascii=False)
