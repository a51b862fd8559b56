"""How ``modelstream models`` tells what it found: as tables, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelstream.models.check import CheckReport, NonFiniteResult
from modelstream.models.contract import ANY_WIDTH, FieldSpec
from modelstream.models.edges import EdgeResult
from modelstream.models.listing import VersionSummary
from modelstream.models.onnx_model import OnnxModel
from modelstream.models.pricing import Price
from modelstream.operators.fields import ColumnSpec, type_text

__all__ = ["check_as_dict", "describe_field", "describe_model", "print_check", "print_versions"]

#: Metrics of a version that are named in its row: the first numbers of its table.
_NAMED_METRICS = 4

#: Fields that are named in a line; the rest are counted.
_NAMED_FIELDS = 6


def print_versions(versions: Sequence[VersionSummary]) -> None:
    """Print one row for each version."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("version")
    table.add_column("size", justify="right")
    table.add_column("metrics, or what is wrong")
    for one in versions:
        size = "" if one.n_bytes is None else f"{one.n_bytes / 1000:,.1f} kB"
        numbers = [f"{key} {value}" for key, value in one.metrics.items() if type(value) in (int, float)]
        metrics = ", ".join(numbers[:_NAMED_METRICS])
        cells = (one.name, one.version + " *" * one.is_default, size, one.problem or metrics)
        table.add_row(*map(Text, cells))  # as they are: file names and files may hold rich's markup
    Console().print(table)


def print_check(report: CheckReport) -> None:
    """Print what a check found."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _lines(report):
        table.add_row(Text(label), Text(text))
    console = Console()
    console.print(table)
    if report.price is not None:
        console.print(_curve(report.price))


def _lines(report: CheckReport) -> Iterator[tuple[str, str]]:
    contract = report.contract
    yield "model", f"{contract.name}@{contract.version} on {report.provider}"
    for spec in contract.inputs:
        shape = "[N]" if spec.rank == 1 else f"[N, {_width(spec.fields)}]"
        yield "input", f"{spec.tensor} {spec.fields[0].dtype} {shape} ← {_names([one.name for one in spec.fields])}"
    for output in contract.outputs:
        yield "output", f"{output.field} ({output.kind}) ← {output.tensor}"
    axis = "fixed at 1, rows go one by one" if contract.row_by_row else "dynamic"
    alike = "; ".join(one for one in report.problems if one.startswith(("random", "fails"))) or _alike(report)
    yield "batch", f"axis {axis}; {report.n_rows} random rows alone and together: {alike}"
    yield from _grouped("edges", [(edge.edge, _edge(edge)) for edge in report.edges])
    yield from _grouped("inputs of", [(one.value, _policy(one)) for one in report.non_finite])
    if report.price is not None:
        yield from _price(report.price)
    for note in report.notes:
        yield "note", note


def _alike(report: CheckReport) -> str:
    if not report.row_difference:
        return "alike, to the last bit"
    return f"alike, within {report.row_difference:.2g}; the last bits depend on the batch"


def _grouped(label: str, found: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield a line for each thing that was found, naming all that it was found of."""
    for text in dict.fromkeys(text for _, text in found):
        yield label, f"{', '.join(name for name, other in found if other == text)}: {text}"


def _width(fields: Sequence[FieldSpec]) -> int | str:
    if len(fields) > 1:
        return len(fields)
    return "any" if fields[0].width == ANY_WIDTH else fields[0].width or 1


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_FIELDS
    return ", ".join(names[:_NAMED_FIELDS]) + (f" and {more} more" if more > 0 else "")


def _edge(edge: EdgeResult) -> str:
    if edge.problem:
        return edge.problem
    told = []
    if edge.n_failed:
        told.append(f"fails on {edge.n_failed} of {edge.n_rows} ({edge.failure}), each a dead letter")
    if edge.n_non_finite:
        told.append(f"{edge.n_non_finite} of {edge.n_rows} predictions are not finite, each a dead letter")
    return "; ".join(told) or "predicted, alone as among others"


def _policy(one: NonFiniteResult) -> str:
    fates = {
        "the prediction is not finite either": one.propagates,
        "hidden by a finite prediction": one.hides,
        "fails": one.fails,
    }
    told = [f"{fate} ({_names(names)})" for fate, names in fates.items() if names]
    return "; ".join([*told, one.problem] if one.problem else told)


def _price(price: Price) -> Iterator[tuple[str, str]]:
    yield "cost", f"t(n) = {price.fixed_s * 1e6:,.1f} µs + {price.per_row_s * 1e6:,.3f} µs · n, with one thread"
    beyond = "" if price.batch == price.knee else f", beyond the {price.batch:,} measured"
    yield "knee", f"{price.knee:,} rows{beyond}; a larger batch saves less than 10 %"
    yield "price", f"{price.us_per_row:,.2f} µs a row, {price.rows_per_s:,.0f} rows/s, in batches of {price.batch:,}"


def _curve(price: Price) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("rows", "µs a call", "µs a row", "rows/s", "calls"):
        table.add_column(title, justify="right")
    for point in price.points:
        per_s = point.n_rows / point.seconds if point.seconds else 0
        numbers = f"{point.n_rows:,}", f"{point.seconds * 1e6:,.1f}", f"{point.us_per_row:,.2f}", f"{per_s:,.0f}"
        table.add_row(*numbers, str(point.n_calls))
    return table


def check_as_dict(report: CheckReport) -> dict[str, Any]:
    """Return what a check found, for JSON."""
    contract = report.contract
    return {
        "model": contract.name,
        "version": contract.version,
        "sha256": contract.sha256,
        "provider": report.provider,
        "inputs": [
            {
                "tensor": spec.tensor,
                "dtype": spec.fields[0].dtype,
                "width": None if spec.rank == 1 else _width(spec.fields),
                "fields": [one.name for one in spec.fields],
            }
            for spec in contract.inputs
        ],
        "outputs": [{"field": one.field, "kind": one.kind, "tensor": one.tensor} for one in contract.outputs],
        "row_by_row": contract.row_by_row,
        "rows_compared": report.n_rows,
        "row_difference": report.row_difference,
        "edges": [
            {
                "edge": one.edge,
                "rows": one.n_rows,
                "failed": one.n_failed,
                "non_finite": one.n_non_finite,
                "failure": one.failure or None,
                "problem": one.problem or None,
            }
            for one in report.edges
        ],
        "non_finite_inputs": [
            {
                "value": one.value,
                "propagates": one.propagates,
                "hides": one.hides,
                "fails": one.fails,
                "problem": one.problem or None,
            }
            for one in report.non_finite
        ],
        "price": None if report.price is None else _price_as_dict(report.price),
        "notes": report.notes,
        "problems": report.problems,
        "ok": not report.problems,
    }


def _price_as_dict(price: Price) -> dict[str, Any]:
    return {
        "fixed_us": price.fixed_s * 1e6,
        "per_row_us": price.per_row_s * 1e6,
        "knee": price.knee,
        "batch": price.batch,
        "us_per_row": price.us_per_row,
        "rows_per_s": price.rows_per_s,
        "points": [
            {"rows": one.n_rows, "us": one.seconds * 1e6, "us_per_row": one.us_per_row, "calls": one.n_calls}
            for one in price.points
        ],
    }


def describe_model(model: OnnxModel) -> str:
    """Return what a model reads and gives, in one line."""
    reads = ", ".join(map(describe_field, model.required_fields))
    gives = ", ".join(output.field for output in model.contract.outputs)
    return f"{model.name}@{model.version} reads {reads}; gives {gives}"


def describe_field(field: FieldSpec | ColumnSpec) -> str:
    """Return a field with its type."""
    return f"{field.name} {type_text(field)}"
