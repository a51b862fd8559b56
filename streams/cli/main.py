"""The command group ``modelstream``; a command's module is imported only when it is called."""

from __future__ import annotations

import importlib

import click

import modelstream
from modelstream.streams.cli.common import run_command

__all__ = ["main"]

# A command imports Faust, ONNX Runtime or Arrow; --help and mistakes in usage should not wait for them.
_COMMANDS = {
    "demo": "the main job on real data: embedded broker, 336,776 flights, three models",
    "run": "run a worker on a pipeline",
    "produce": "send events of a file to the pipeline's input topic",
    "batch": "predict the events of a file without Kafka, as a worker does",
    "consume": "print predictions as NDJSON",
    "replay": "send a file's events at their pace, and measure: latency, throughput, CPU",
    "capacity": "find the highest rate that a pipeline sustains, and its cost",
    "what-if": "predict latency and throughput for other batch sizes, waits and threads",
    "explain": "tell how the predictions of one key or event came about",
    "dlq": "list, show, redrive and resolve dead letters",
    "validate": "make every check that `run` makes, without joining",
    "graph": "draw the pipeline: stages, models, topics",
    "models": "add a model, list them, and check one: its contract, its edges, its price",
    "topics": "create the pipeline's topics",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"modelstream.streams.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start here:
  modelstream demo --events 20000
  modelstream validate examples/flights/pipeline.yaml
  modelstream run examples/flights/pipeline.yaml --broker localhost:9092
""",
)
@click.version_option(modelstream.__version__, prog_name="modelstream")
def modelstream_group() -> None:
    """Run ONNX models on Kafka topics, in micro-batches."""


def main() -> None:
    """Run the command line."""
    run_command(modelstream_group)
