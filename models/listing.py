"""What stands in a directory of models, read from its files without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelstream.models.contract import ContractBreach
from modelstream.models.contract_file import CONTRACT_FILE, MAX_CONTRACT_BYTES, MODEL_FILE, parse_contract
from modelstream.models.registry import list_models

__all__ = ["VersionSummary", "list_versions"]


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A model version, as far as its files tell at a glance.

    Parameters
    ----------
    name, version : str
        Which one.
    is_default : bool
        Whether the name alone means this version: it is the highest.
    n_bytes : int or None
        Size of `model.onnx`; None where it is not there.
    metrics : mapping
        As they stand in `model.toml`.
    problem : str
        What is wrong with its files at a glance, or empty. Only loading checks all.
    """

    name: str
    version: str
    is_default: bool
    n_bytes: int | None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def list_versions(models_dir: Path) -> list[VersionSummary]:
    """Return every version of every model, by name, lowest version first.

    Parameters
    ----------
    models_dir : Path
        The directory of models.

    Raises
    ------
    ConfigError
        If there is no such directory, or it cannot be read.
    """
    return [
        _summary(models_dir / name / version, name, version, version == versions[-1])
        for name, versions in list_models(models_dir).items()
        for version in versions
    ]


def _summary(directory: Path, name: str, version: str, is_default: bool) -> VersionSummary:
    n_bytes: int | None = None
    try:
        n_bytes = (directory / MODEL_FILE).stat().st_size
        with (directory / CONTRACT_FILE).open("rb") as file:
            contract = parse_contract(file.read(MAX_CONTRACT_BYTES))
    except OSError as error:
        lacking = CONTRACT_FILE if n_bytes is not None else MODEL_FILE
        return VersionSummary(name, version, is_default, n_bytes, problem=f"{lacking}: {error.strerror}")
    except ContractBreach as error:
        return VersionSummary(name, version, is_default, n_bytes, problem=f"{error.file}: {error}")
    named = (contract.name, contract.version) == (name, version)
    problem = "" if named else f"{CONTRACT_FILE}: is of {contract.name}@{contract.version}"
    return VersionSummary(name, version, is_default, n_bytes, contract.metrics, problem)
