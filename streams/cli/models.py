"""``modelstream models``: what is in a directory of models, and whether a model keeps its contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from modelstream.models.errors import ConfigError
from modelstream.models.listing import VersionSummary, list_versions
from modelstream.models.registry import list_models, list_without_version
from modelstream.streams.cli.common import EXIT_FAILED
from modelstream.streams.cli.models_text import check_as_dict, print_check, print_versions

__all__ = ["command"]

#: Decimals, dates and the like, as people write them under [metrics].
_AS_TEXT = str

_models_dir_option = click.option(
    "--models-dir",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    metavar="DIR",
    help="Directory of models, with NAME/VERSION/.",
)


@click.group("models", context_settings={"max_content_width": 100})
def command() -> None:
    """List models, and check that they keep their contracts."""


@command.command(
    "list",
    short_help="List every version of every model.",
    epilog="""\b
Examples:
  modelstream models list
  modelstream models list --models-dir examples/flights/models --json
""",
)
@_models_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(models_dir: Path, as_json: bool) -> None:
    """List every version of every model; the ones marked * are what a name alone means.

    Exit code 0, or 2 if there is no such directory. A version whose files are wrong is listed with what is wrong.
    """
    if not models_dir.exists():
        raise _no_models(models_dir, "is not there")
    versions = list_versions(models_dir)
    if as_json:
        for version in versions:
            _write(_version_as_dict(version))
    elif versions:
        print_versions(versions)
    else:
        click.echo(f"no models in {models_dir}/; a model is a folder NAME/VERSION/ with model.onnx and model.toml")
    for name in list_without_version(models_dir):
        click.echo(
            f"{models_dir / name} has no version; a version is a folder with a number for a name, as "
            f"{name}/1/model.onnx",
            err=True,
        )


@command.command(
    "check",
    short_help="Check one: its contract, its edges, its price.",
    epilog="""\b
Examples:
  modelstream models check late_arrival --models-dir examples/flights/models
  modelstream models check late_arrival@1 --rows 1000
  modelstream models check late_arrival --json | jq .price
""",
)
@click.argument("model")
@_models_dir_option
@click.option("--provider", default="cpu", show_default=True, metavar="NAME", help="Execution provider, as cuda.")
@click.option(
    "--rows",
    "n_rows",
    type=click.IntRange(2, 100_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Random rows to predict alone and together.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check_command(model: str, models_dir: Path, provider: str, n_rows: int, as_json: bool) -> None:
    """Check MODEL, which is NAME or NAME@VERSION: its contract, its edges, what it makes of NaN, and its price.

    Exit code 0 means that all is well, 1 that a prediction depends on the batch it was in, or that the model fails on
    random rows; 2 that there is no such model, or it would not load.
    """
    from modelstream.models.check import check_model
    from modelstream.models.providers import find_provider

    find_provider(provider, "--provider")
    if not models_dir.exists():
        raise _no_models(models_dir, "is not there")
    if models_dir.is_dir() and not list_models(models_dir) and not list_without_version(models_dir):
        raise _no_models(models_dir, "has none")
    report = check_model(models_dir, model, provider=provider, n_rows=n_rows, path="MODEL")
    if as_json:
        _write(check_as_dict(report))
    else:
        print_check(report)
    for problem in report.problems:
        click.echo(f"modelstream: error: model {report.contract.name}@{report.contract.version}: {problem}", err=True)
    sys.exit(EXIT_FAILED if report.problems else 0)


def _no_models(models_dir: Path, problem: str) -> ConfigError:
    return ConfigError("", f"the directory of models {models_dir} {problem}; name another with --models-dir DIR")


def _version_as_dict(version: VersionSummary) -> dict[str, Any]:
    return {
        "model": version.name,
        "version": version.version,
        "is_default": version.is_default,
        "bytes": version.n_bytes,
        "metrics": version.metrics,
        "problem": version.problem or None,
    }


def _write(value: dict[str, Any]) -> None:
    click.echo(orjson.dumps(value, default=_AS_TEXT))
