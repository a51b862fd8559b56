"""``modelstream graph``: the pipeline drawn, from its file alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.common import OutputFile, pipeline_argument, read_pipeline, set_option
from modelstream.streams.cli.drawing import graph_of
from modelstream.streams.graph import Graph
from modelstream.streams.graph_mermaid import to_mermaid
from modelstream.streams.graph_svg import to_svg
from modelstream.streams.graph_text import to_text

__all__ = ["command"]


def _to_markdown(graph: Graph) -> str:
    return f"```mermaid\n{to_mermaid(graph)}```\n"


_FORMATS = {"text": to_text, "mermaid": to_mermaid, "svg": to_svg}
#: What the name of the output file means, where no format is named. Without a suffix it is text, as for /dev/stdout.
_SUFFIXES = {
    "": to_text,
    ".txt": to_text,
    ".md": _to_markdown,
    ".mmd": to_mermaid,
    ".mermaid": to_mermaid,
    ".svg": to_svg,
}


@click.command(
    "graph",
    epilog="""\b
Examples:
  modelstream graph examples/flights/pipeline.yaml
  modelstream graph pipeline.yaml -o pipeline.svg
  modelstream graph pipeline.yaml --format mermaid
""",
)
@pipeline_argument
@set_option
@click.option("--format", "form", type=click.Choice(list(_FORMATS)), help="[default: by FILE's name, else text]")
@click.option("-o", "--output", type=OutputFile(), metavar="FILE", help="Write to FILE, not stdout.")
def command(pipeline: Path, overrides: tuple[str, ...], form: str | None, output: Path | None) -> None:
    """Draw PIPELINE: its stages, models with their versions, ensembles, cascades, caches and topics.

    Nothing is loaded; a model that is not there stands as the file names it.
    """
    draw = _FORMATS[form] if form else _drawn_as(output)
    text = draw(graph_of(read_pipeline(pipeline, overrides)))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError("", f"cannot write {output}: {error.strerror}") from None
    click.echo(f"wrote {output}", err=True)


def _drawn_as(output: Path | None) -> Callable[[Graph], str]:
    suffix = output.suffix.lower() if output else ""
    if suffix not in _SUFFIXES:
        raise click.BadParameter(
            f"{suffix!r} is no format of a graph; end the name in .txt, .mmd, .md or .svg, or add --format",
            param_hint="'-o' / '--output'",
        )
    return _SUFFIXES[suffix]
