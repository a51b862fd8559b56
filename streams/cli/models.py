"""``modelstream models``: what is in a directory of models, what comes into it, and whether it keeps its contract."""

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
from modelstream.streams.cli.models_text import check_as_dict, describe_model, print_check, print_versions

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
    """List models, add them, and check that they keep their contracts."""


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


def _by_input(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Return what ``INPUT=TEXT`` says, by input; under an empty name what goes without one."""
    named = dict(text.rpartition("=")[::2] for text in texts)
    if len(named) < len(texts):
        raise click.BadParameter("says of one input twice", param_hint=option)
    return named


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


@command.command(
    "add",
    short_help="Make an ONNX file a version of a model.",
    epilog="""\b
Examples:
  modelstream models add churn churn.onnx --fields age,tenure_months,monthly_fee --class 1
  modelstream models add digits cnn.onnx --field pixels --version 1.2.0
  modelstream models add match two_towers.onnx --field user=user_vector --field item=item_vector
""",
)
@click.argument("name")
@click.argument("onnx_file", metavar="FILE", type=click.Path(path_type=Path))
@_models_dir_option
@click.option("--version", metavar="V", help="As 2 or 1.4.0  [default: the next whole number]")
@click.option("--fields", multiple=True, metavar="[INPUT=]A,B,…", help="Fields packed into an input, in this order.")
@click.option("--field", multiple=True, metavar="[INPUT=]NAME", help="One field that holds a list of numbers.")
@click.option("--width", multiple=True, metavar="[INPUT=]N", help="Numbers in that list, or any; if the graph is open.")
@click.option("--class", "of_class", metavar="CLASS", help="Whose probability the score is  [default: the label's own]")
@click.option("--classes", metavar="A,B,…", help="All classes in the order of the columns, if not 0, 1, 2, …")
def add_command(
    name: str,
    onnx_file: Path,
    models_dir: Path,
    version: str | None,
    fields: tuple[str, ...],
    field: tuple[str, ...],
    width: tuple[str, ...],
    of_class: str | None,
    classes: str | None,
) -> None:
    """Make the ONNX file FILE a version of the model NAME: its folder, with model.onnx and a model.toml that fits.

    It is loaded and checked first, as at the start of a worker; nothing is added unless all is well. An input that is
    not named takes the field of its own name.
    """
    from modelstream.models.adding import add_model

    packed = {tensor: names.split(",") for tensor, names in _by_input(fields, "--fields").items()}
    vectors = _by_input(field, "--field")
    widths = {tensor: _number_or_text(text) for tensor, text in _by_input(width, "--width").items()}
    model = add_model(
        models_dir, name, onnx_file, version=version, fields=packed, vectors=vectors, widths=widths,
        score_class=None if of_class is None else _number_or_text(of_class),
        classes=[_number_or_text(one) for one in classes.split(",")] if classes else (),
    )  # fmt: skip
    click.echo(f"added {models_dir / model.name / model.version}: {describe_model(model)}")
    lists = [read.name for read in model.required_fields if read.width and read.name not in vectors.values()]
    notes = [f"{one} is read as one field, a list; where each number has its own, name them: --fields" for one in lists]
    for note in (*model.notes, *notes):
        click.echo(f"note: {note}")


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
