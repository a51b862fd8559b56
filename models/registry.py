"""The directory of models, ``NAME/VERSION/``: what is there, and which version a reference means."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["ModelVersion", "find_version", "list_models", "list_without_version", "new_version", "version_key"]

#: No slash, no leading dot: a name can never lead out of the directory, nor be hidden in it.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

#: 1, 2.10, 1.4.0, 1.4.0-rc.1
_VERSION = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.(?:0|[1-9][0-9]{0,17})){0,2}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model version and where it stands.

    Parameters
    ----------
    name, version : str
        Which one.
    directory : Path
        Where its files are.
    """

    name: str
    version: str
    directory: Path


def version_key(version: str) -> tuple[object, ...]:
    """Return a key that sorts versions: by number, a pre-release before its release.

    Parameters
    ----------
    version : str
        A version.

    Examples
    --------
    >>> sorted(["10", "9", "1.10.0", "1.9", "1.10.0-rc1"], key=version_key)
    ['1.9', '1.10.0-rc1', '1.10.0', '9', '10']
    """
    release, _, pre = version.partition("-")
    numbers = [int(part) for part in release.split(".")]
    # As SemVer orders them: numbers before words, and numbers by their value.
    words = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    # The text last, so that 1 and 1.0 have an order too.
    return (*numbers, *[0] * (3 - len(numbers)), not pre, words, version)


def list_models(models_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return the versions of every model, lowest first. What is not named like a model or a version is passed over.

    Parameters
    ----------
    models_dir : Path
        The directory of models.

    Raises
    ------
    ConfigError
        If there is no such directory, or it cannot be read.
    """
    try:
        names = sorted(path.name for path in models_dir.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
        versions = {name: _versions(models_dir / name) for name in names}
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ConfigError("", f"the directory of models {models_dir} {reason}") from None
    return {name: found for name, found in versions.items() if found}


def list_without_version(models_dir: Path) -> list[str]:
    """Return the names of folders that hold model files, and no version: whoever made them took one for a version.

    Parameters
    ----------
    models_dir : Path
        The directory of models.

    Raises
    ------
    ConfigError
        If there is no such directory, or it cannot be read.
    """
    models = list_models(models_dir)
    return sorted(path.parent.name for path in models_dir.glob("*/*.onnx") if path.parent.name not in models)


def _versions(directory: Path) -> tuple[str, ...]:
    found = [path.name for path in directory.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    return tuple(sorted((version for version in found if version != "0"), key=version_key))


def new_version(models_dir: Path, name: str, version: str | None = None) -> ModelVersion:
    """Return a version that is not there yet.

    Parameters
    ----------
    models_dir : Path
        The directory of models; it need not be there.
    name : str
        The model.
    version : str, optional
        By default the whole number above the highest version, or 1.

    Raises
    ------
    ConfigError
        If the name or the version is none, it is there already, or the directory cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("", f"{name!r} is no name of a model; use letters, digits, '.', '_' and '-'")
    if version is None:
        versions = list_models(models_dir).get(name, ()) if models_dir.exists() else ()
        version = str(int(re.split("[.-]", versions[-1])[0]) + 1) if versions else "1"
    if not _VERSION.fullmatch(version) or version == "0":
        raise ConfigError("", f"{version!r} is no version; write 1, 2.10 or 1.4.0")
    directory = models_dir / name / version
    if os.path.lexists(directory):
        raise ConfigError("", f"{directory} is there already, and a version never changes; make it another one")
    return ModelVersion(name, version, directory)


def find_version(models_dir: Path, reference: str, path: str = "") -> ModelVersion:
    """Return the model version that a reference means.

    Parameters
    ----------
    models_dir : Path
        The directory of models.
    reference : str
        ``NAME@VERSION``, or ``NAME`` for the highest version.
    path : str, optional
        Where the reference stands, for the error.

    Raises
    ------
    ConfigError
        If the reference is malformed, or there is no such model or version.
    """
    name, at, version = reference.partition("@")
    if not _NAME.fullmatch(name) or (at and not _VERSION.fullmatch(version)):
        raise ConfigError(path, f"{reference!r} is no model reference; write NAME or NAME@VERSION, as delay or delay@2")
    try:
        models = list_models(models_dir)
    except ConfigError as error:
        raise ConfigError(path, error.problem) from None
    if name not in models:
        if (models_dir / name).is_dir():
            raise ConfigError(
                path,
                f"model {name!r} has no version in registry {models_dir}/; a version is a folder with a number for a "
                f"name, as {name}/1/model.onnx",
            )
        there = did_you_mean(name, models) or f"; it has {_listed(models)}"
        raise ConfigError(path, f"no model {name!r} in registry {models_dir}/{there}")
    if at and version not in models[name]:
        raise ConfigError(
            path, f"model {name!r} has no version {version!r} in registry {models_dir}/; it has {_listed(models[name])}"
        )
    chosen = version if at else models[name][-1]
    return ModelVersion(name, chosen, models_dir / name / chosen)


def _listed(words: dict[str, tuple[str, ...]] | tuple[str, ...]) -> str:
    shown = list(words)[-8:]
    return ", ".join(["…"] * (len(words) > len(shown)) + shown) or "none"
