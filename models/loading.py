"""From a directory to a model that may serve: every check is made here, before the worker joins its group."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelstream.models.contract import ContractBreach, ModelContract, merge_fields
from modelstream.models.contract_file import CONTRACT_FILE, MAX_CONTRACT_BYTES, MODEL_FILE, ContractFile, parse_contract
from modelstream.models.edges import refuse_edge_surprises
from modelstream.models.errors import ConfigError, ModelLoadError
from modelstream.models.fitting import fit_inputs, fit_outputs, takes_single_rows
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.outputs import is_zipmap
from modelstream.models.providers import find_provider
from modelstream.models.registry import ModelVersion, find_version
from modelstream.models.session import open_session
from modelstream.models.trial import Trial, check_trial, padding_is_neutral, run_trials

__all__ = ["DEFAULT_MAX_BYTES", "load_model"]

#: 512 MiB: any model that scores a stream on a CPU is far smaller, and a wrong file should not fill the memory.
DEFAULT_MAX_BYTES = 512 * 1024 * 1024

#: Edge rows are tried at every start where they delay it by a fraction of a second only: some 15 calls.
_CHEAP_S = 0.01


def load_model(
    models_dir: Path,
    reference: str,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    path: str = "",
    provider: str = "cpu",
    timeout_s: float | None = None,
) -> OnnxModel:
    """Load a model version and check that it keeps its contract.

    The digest is checked on the very bytes that ONNX Runtime gets, so a file that is replaced meanwhile does no harm.

    Parameters
    ----------
    models_dir : Path
        Directory of models, with ``NAME/VERSION/model.onnx`` and ``model.toml``.
    reference : str
        ``NAME@VERSION``, or ``NAME`` for the highest version.
    max_bytes : int, optional
        Largest ONNX file that is read.
    path : str, optional
        Where the reference stands, such as ``stages[1].infer.models[0]``, for a `ConfigError`.
    provider : str, optional
        What ONNX Runtime computes on, such as ``cuda``.
    timeout_s : float, optional
        Seconds that a call of `OnnxModel.predict` may take; a call is stopped before the next node of the graph.
        Without it there is no limit, and no watchdog.

    Returns
    -------
    OnnxModel
        The model, warmed up.

    Raises
    ------
    ConfigError
        If there is no such model or version, or the installed ONNX Runtime has no such provider.
    ModelLoadError
        If its files are missing, broken, changed, too large or outside of the directory, or the model does not do
        what `model.toml` says.

    Examples
    --------
    >>> load_model(Path("models"), "arrival_delay@1").required_fields  # doctest: +SKIP
    (FieldSpec(name='dep_delay', dtype='float32', width=None),)
    """
    found = find_version(models_dir, reference, path)
    find_provider(provider, path)
    try:
        return _load(models_dir, found, max_bytes, provider, timeout_s)
    except ContractBreach as error:
        raise ModelLoadError(found.name, found.version, f"{found.directory / error.file}: {error}") from None


def _load(models_dir: Path, found: ModelVersion, max_bytes: int, provider: str, timeout_s: float | None) -> OnnxModel:
    file = parse_contract(_read(models_dir, found.directory / CONTRACT_FILE, MAX_CONTRACT_BYTES))
    _check_identity(file, found)
    content = _read(models_dir, found.directory / MODEL_FILE, max_bytes)
    _check_digest(file, content)
    session = open_session(content, provider)
    del content  # ONNX Runtime has its own copy.
    inputs = fit_inputs(file, session.get_inputs())
    try:
        merge_fields(field for spec in inputs for field in spec.fields)
    except ConfigError as error:
        raise ContractBreach(error.problem, CONTRACT_FILE) from None
    row_by_row = takes_single_rows(session.get_inputs())
    trials = run_trials(session, inputs, file.examples, row_by_row)
    outputs = fit_outputs(file, trials[0].batch)
    sample = check_trial(outputs, trials)
    neutral = padding_is_neutral(session, inputs, outputs, trials[0], row_by_row)
    contract = ModelContract(
        name=file.name,
        version=file.version,
        sha256=file.sha256.lower(),
        inputs=inputs,
        outputs=outputs,
        metrics=file.metrics,
        training=file.training,
        row_by_row=row_by_row,
        examples=file.examples,
    )
    notes = tuple(_notes(contract, trials[0], neutral))
    model = OnnxModel(contract, session, sample, notes, timeout_s=timeout_s, padding_is_neutral=neutral)
    if trials[0].seconds < _CHEAP_S and not row_by_row:
        refuse_edge_surprises(model)
    return model


def _read(models_dir: Path, path: Path, max_bytes: int) -> bytes:
    """Return the content of a file that really lies in the directory of models."""
    try:
        real = path.resolve(strict=True)
        # Links within the directory are how Kubernetes and DVC lay files out.
        if not real.is_relative_to(models_dir.resolve()):
            raise ContractBreach(f"is a link out of {models_dir}, to {real}; put the file itself there", path.name)
        if not real.is_file():
            raise ContractBreach("is not a regular file", path.name)
        with real.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > max_bytes else file.read(size)
    except FileNotFoundError:
        raise ContractBreach("is not there; a model version is model.onnx and model.toml", path.name) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, until Python 3.12.
        reason = getattr(error, "strerror", None) or "a loop of links"
        raise ContractBreach(f"cannot be read: {reason}", path.name) from None
    if size > max_bytes:
        problem = f"has {size:,} bytes, over the limit of {max_bytes:,}; raise max_bytes if it is right"
        raise ContractBreach(problem, path.name)
    return content


def _check_identity(file: ContractFile, found: ModelVersion) -> None:
    for key, said, is_ in (("name", file.name, found.name), ("version", file.version, found.version)):
        if said != is_:
            raise ContractBreach(f"{key}: is {said!r}, but the directory says {is_!r}", CONTRACT_FILE)


def _check_digest(file: ContractFile, content: bytes) -> None:
    if not content:
        raise ContractBreach("is empty; export the model again", MODEL_FILE)
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256.lower():
        raise ContractBreach(
            f"has SHA-256 {digest}, but model.toml says {file.sha256.lower()}: it was changed or not copied whole; "
            "copy it again, or publish it as a new version",
            MODEL_FILE,
        )


def _notes(contract: ModelContract, trial: Trial, neutral: bool) -> Iterator[str]:
    for spec in contract.outputs:
        if is_zipmap(trial.batch[spec.tensor]):
            yield (
                f"output {spec.tensor!r} is a ZipMap, a Python dict for each row, which takes 10 times as long as a "
                "tensor; export the model with options={'zipmap': False}"
            )
    yield from _class_notes(contract, trial)
    if contract.row_by_row:
        yield (
            f"its batch axis is fixed at 1: rows go through one by one, at {trial.seconds * 1e6:.0f} µs each; "
            f"export the model with a dynamic batch axis, as torch's dynamic_axes={{{contract.inputs[0].tensor!r}: "
            "{0: 'n'}}"
        )
    if not neutral:
        yield (
            "zeros at the end of a row change its answer: only rows of one length can share a call; "
            "mask the padding in the model"
        )


def _class_notes(contract: ModelContract, trial: Trial) -> Iterator[str]:
    """Note a score whose column never is the largest where its class is the label, and another one always is.

    So it looks where the labels are 1 and 2, and column 1 was taken for the one of class 1. It may be right: of a model
    whose threshold is its own.
    """
    labels = next((trial.batch[spec.tensor] for spec in contract.outputs if spec.kind == "label"), None)
    for spec in contract.outputs:
        scores = trial.batch[spec.tensor]
        if labels is None or spec.class_index is None or np.ndim(scores) != 2:
            continue
        largest = np.argmax(scores, axis=1)[np.ravel(labels) == spec.of_class].tolist()
        if largest and spec.class_index not in largest and len(set(largest)) == 1:
            yield (
                f"outputs.{spec.field}.class: of class {spec.of_class!r} is column {spec.class_index} of "
                f"{spec.tensor!r}, but where that is the label, column {largest[0]} is the largest; list all classes "
                "in the order of the columns: classes = […]"
            )
