"""From what was measured to files: CSV, Markdown, plots, and the table of the README."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import SYSTEMS
from benchmarks.pieces import environments
from benchmarks.plots import plot_rates, plot_throughput

__all__ = ["MARKS", "headline", "put_between_marks", "write_results"]

#: Between these lines of the README stands what `headline` returns.
MARKS = ("<!-- benchmark: begin -->", "<!-- benchmark: end -->")

_SECTIONS = ("throughput", "latency", "half_load", "scaling")


def write_results(folder: Path, found: Mapping[str, Any]) -> None:
    """Write ``results.md``, CSV files and plots of all sections that there are.

    Parameters
    ----------
    folder : Path
        Where to.
    found : mapping
        As `suite.py` keeps it in ``results.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text("\n".join(_markdown(found)) + "\n", encoding="utf-8")
    for section in _SECTIONS:
        parts = found.get(section, {}).values()
        if runs := [run for part in parts for run in part["runs"]]:
            _write_csv(folder / f"{section}.csv", runs)
    throughput = {name: one["systems"] for name, one in found.get("throughput", {}).items() if one["systems"]}
    if throughput:
        plot_throughput(folder / "throughput.svg", throughput)
    for workload, one in found.get("latency", {}).items():
        file = folder / f"latency-{workload}.svg"
        plot_rates(file, one["rows"], {"p50_ms": "-", "p99_ms": "--"}, "from due to appended, ms", is_log=True)
        plot_rates(
            folder / f"cpu-{workload}.svg", one["rows"], {"cpu_us_per_event": "-"}, "CPU of the worker, µs per event"
        )


def headline(found: Mapping[str, Any]) -> str:
    """Return the table of the README: events per second by system and workload, with the ratio to the loop."""
    workloads = list(found["throughput"])
    # The ceiling is no system that anybody could choose.
    systems = [
        name
        for name in SYSTEMS
        if name != "bare-ort" and any(name in found["throughput"][one]["systems"] for one in workloads)
    ]
    rows = ([f"`{name}`", *(_cell(found["throughput"][one], name) for one in workloads)] for name in systems)
    return _table(["events/s (ratio to the loop)", *workloads], rows)


def put_between_marks(text: str, table: str) -> str:
    """Return a text with a table between `MARKS`, in the place of what stands there.

    Raises
    ------
    ValueError
        The marks are not there.
    """
    begin, end = (text.index(mark) for mark in MARKS)
    return f"{text[: begin + len(MARKS[0])]}\n{table}\n{text[end:]}"


def _markdown(found: Mapping[str, Any]) -> Iterator[str]:
    machines = environments(found)
    yield "# Benchmark results"
    yield ""
    yield "Made by `make bench`, or with more runs by `make bench-full`; [the method](../README.md)."
    yield "Medians of interleaved runs."
    for i, machine in enumerate(machines, 1):
        yield from _machine(machine, f"Environment {i}: " if len(machines) > 1 else "")
    if found.get("throughput"):
        yield "\n## Throughput\n\n![events per second](throughput.svg)"
        for workload, one in found["throughput"].items():
            yield from _throughput(workload, one, machines)
    for workload, one in found.get("latency", {}).items():
        yield f"\n## Latency at a rate: {workload}\n"
        yield from _pieces(one, machines)
        yield f"\n![latency](latency-{workload}.svg)\n\n![CPU](cpu-{workload}.svg)\n"
        yield _rates(one["rows"])
    for workload, one in found.get("half_load", {}).items():
        yield f"\n## Latency at half of each system's own throughput: {workload}\n"
        yield from _pieces(one, machines)
        yield ""
        yield _rates(one["rows"])
        yield from _named(one)
    if found.get("scaling"):
        yield "\n## From one worker to two\n"
        for workload, one in found["scaling"].items():
            yield from _pieces(one, machines, f"{workload}: ")
        yield ""
        rows = [row for one in found["scaling"].values() for row in one["rows"]]
        heads = ["workload", "system", "1 worker, events/s", "sent", "2 workers, events/s", "sent"]
        yield _table([*heads, "ratio", "CPU µs/event, 1", "2"], (_scaling(row) for row in rows))
        if any(row["keeps_up_1"] or row["keeps_up_2"] for row in rows):
            yield "\n`≥`: the outputs kept up with what was sent, so the generator may be the limit, of the ratio too."


def _machine(machine: Mapping[str, Any], name: str) -> Iterator[str]:
    yield ""
    yield (
        f"{name}{machine['cpu']}, {machine['cpus']} CPUs that generator, broker and worker share,"
        f" {machine['memory_gb']} GB; {machine['system']}, Python {machine['python']}, broker: {machine['broker']}."
    )
    yield "Packages: " + ", ".join(f"{name} {version}" for name, version in machine["packages"].items()) + "."
    yield "ONNX Runtime: " + ", ".join(f"{name} {version}" for name, version in machine["onnxruntime"].items()) + "."


def _pieces(one: Mapping[str, Any], machines: Sequence[Mapping[str, Any]], name: str = "") -> Iterator[str]:
    """Yield when, where and how a part was measured, by system where they differ."""
    for piece in one["pieces"]:
        who = ": " + ", ".join(f"`{system}`" for system in piece["systems"]) if len(one["pieces"]) > 1 else ""
        where = f" in environment {machines.index(piece['environment']) + 1}" if len(machines) > 1 else ""
        setting = f"{piece['setting']}. " if "setting" in piece else ""
        yield f"* {name}{setting}Measured {piece['measured']}{where}{who}."


def _throughput(workload: str, one: Mapping[str, Any], machines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"\n### {workload}\n"
    yield from _pieces(one, machines)
    yield ""
    heads = ["system", "runs", "events/s", "ratio to the loop", "CPU µs/event", "peak RSS MB"]
    counts = {name: sum(run["system"] == name for run in one["runs"]) for name in one["systems"]}
    yield _table(
        heads,
        (
            [
                f"`{name}`",
                str(counts[name]),
                f"{row['events_per_s']:,.0f}",
                _number(row["ratio_to_loop"], 3),
                _number(row["cpu_us_per_event"], 2),
                _number(row["peak_rss_mb"], 0),
            ]
            for name, row in one["systems"].items()
        ),
    )
    yield from _named(one)


def _named(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield why systems are missing."""
    if one["unavailable"]:
        yield ""
    for system, reason in one["unavailable"].items():
        yield f"* `{system}` was not measured: {reason}"


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        "events/s",
        "system",
        "runs",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs/event",
        "RSS MB",
        "p50, p99 to the loop",
    ]
    return _table(
        heads,
        (
            [
                f"{row['rate_per_s']:,.0f}",
                f"`{row['system']}`",
                str(row["runs"]),
                *(_number(row[name], 2) for name in ("p50_ms", "p99_ms", "p999_ms", "cpu_us_per_event")),
                _number(row["peak_rss_mb"], 0),
                f"{_number(row['p50_ms_to_loop'], 2)}, {_number(row['p99_ms_to_loop'], 2)}",
            ]
            for row in rows
        ),
    )


def _scaling(row: Mapping[str, Any]) -> list[str]:
    rates = []
    for n in (1, 2):
        mark = "≥ " if row[f"keeps_up_{n}"] else ""
        rates += [f"{mark}{row[f'events_per_s_{n}']:,.0f}", f"{row[f'sent_per_s_{n}']:,.0f}"]
    return [
        row["workload"],
        f"`{row['system']}`",
        *rates,
        _number(row["ratio"], 2),
        *(_number(row[f"cpu_us_per_event_{n}"], 2) for n in (1, 2)),
    ]


def _cell(one: Mapping[str, Any], system: str) -> str:
    row = one["systems"].get(system)
    if row is None:
        return "–" if system in one["unavailable"] else ""
    return f"{row['events_per_s']:,.0f} ({_number(row['ratio_to_loop'], 2)})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_csv(file: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.DictWriter(out, list(runs[0]))
        rows.writeheader()
        rows.writerows(runs)
