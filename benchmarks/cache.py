"""What the prediction cache gives and costs: 500 boosted trees with a cache and without. See README.md."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from operator import truediv
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from redis import Redis

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: Python has put this folder on the path, not the one above
    sys.path[0] = str(ROOT)

from benchmarks.batching_jobs import make_job  # noqa: E402
from benchmarks.ending import stopping_on_sigterm  # noqa: E402
from benchmarks.report import describe_environment  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from modelstream.models.loading import load_model  # noqa: E402
from modelstream.operators.batch import EventBatch  # noqa: E402
from modelstream.operators.cache import CachedInfer  # noqa: E402
from modelstream.operators.infer import Infer, ScoringModel  # noqa: E402
from modelstream.operators.operator import run_isolated  # noqa: E402
from modelstream.operators.redis_store import open_store  # noqa: E402
from modelstream.streams.embedded import EmbeddedCache  # noqa: E402

__all__ = ["main", "missed", "zipf_keys"]

_STREAMS = ("zipf", "unique")
_SEED = 20_130_101
_N_FEATURES = 20
_BATCH_ROWS = 1024
#: Different rows of the Zipf stream: more than memory holds.
_N_KEYS = 1_000_000
_EXPONENT = 1.1
_TTL_S = 300
#: Batches that one way gets before the other gets them: short, so that a slow second of the machine hits both.
_TURN = 8
#: Turns that belong to the start.
_START = 4
#: What each stream's ratio must reach.
_LEAST_RATIOS = {"zipf": 2.0, "unique": 0.97}
#: Sums over trees are added in another order when there are more rows.
_RELATIVE_TOLERANCE = 1e-5


class WrongOutputError(RuntimeError):
    """A row whose answer with a cache is not the model's."""


@dataclass
class Way:
    """One of the two operators, what it took, and what it said."""

    operator: Infer | CachedInfer
    turns_s: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    answers: list[NDArray[np.float32]] = field(default_factory=list)

    def run(self, batches: Sequence[EventBatch]) -> None:
        """Let it answer some batches."""
        start, cpu_start = perf_counter(), process_time()
        settled = [run_isolated(self.operator, batch).kept for batch in batches]
        self.turns_s.append(perf_counter() - start)
        self.cpu_seconds += process_time() - cpu_start
        self.answers += [np.asarray(kept.outputs["gbdt"].fields["value"]) for kept in settled]


@dataclass
class Run:
    """One stream through a model, and through a cache that knows nothing at first, in turn."""

    stream: str
    rows: int
    plain_s: float
    cached_s: float
    plain_cpu_s: float
    cached_cpu_s: float
    #: The median turn's ratio, once the cache has seen enough to decide whether it pays.
    steady_ratio: float
    counters: dict[str, Any]

    @property
    def ratio(self) -> float:
        """How many times faster it is with the cache."""
        return self.plain_s / self.cached_s

    @property
    def cpu_ratio(self) -> float:
        """How many times less CPU this process takes with the cache, threads that write included."""
        return self.plain_cpu_s / self.cached_cpu_s


def zipf_keys(n_rows: int, n_keys: int, exponent: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return keys of which the k-th is drawn with a probability of 1 / k ** exponent, but for a factor.

    Parameters
    ----------
    n_rows : int
        How many are drawn.
    n_keys : int
        How many there are.
    exponent : float
        How much more frequent the first ones are.
    rng : numpy.random.Generator
        Draws them.

    Examples
    --------
    >>> keys = zipf_keys(1000, 50, 1.1, np.random.default_rng(1))
    >>> bool(keys.max() < 50), int(np.bincount(keys).argmax())
    (True, 0)
    """
    shares = np.cumsum(1 / np.arange(1, n_keys + 1) ** exponent)
    return np.searchsorted(shares, rng.random(n_rows) * shares[-1])


def _rows_of(stream: str, n_rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if stream == "unique":
        return rng.standard_normal((n_rows, _N_FEATURES), np.float32)
    pool = np.random.default_rng(_SEED).standard_normal((_N_KEYS, _N_FEATURES), np.float32)
    return pool[zipf_keys(n_rows, _N_KEYS, _EXPONENT, rng)]


def _batches(rows: NDArray[np.float32]) -> list[EventBatch]:
    template = EventBatch.of_events([{}] * _BATCH_ROWS)
    batches = []
    for start in range(0, len(rows), _BATCH_ROWS):
        part = rows[start : start + _BATCH_ROWS]
        batch = template.select(slice(0, len(part)))
        batch.columns["features"] = part
        batches.append(batch)
    return batches


def _compare(model: ScoringModel, url: str, stream: str, rows: NDArray[np.float32]) -> Run:
    with Redis.from_url(url) as client:
        client.flushall()
    cached = CachedInfer(Infer("score", [model]), open_store(url), _TTL_S)
    plain, with_cache = Way(Infer("score", [model])), Way(cached)
    try:
        for start in range(0, len(rows), _TURN * _BATCH_ROWS):
            part = rows[start : start + _TURN * _BATCH_ROWS]
            for way in (plain, with_cache) if start // len(part) % 2 else (with_cache, plain):
                way.run(_batches(part))
    finally:
        cached.close()
    # So put that NaN is wrong, too.
    off = ~(np.abs(np.concatenate(with_cache.answers) / np.concatenate(plain.answers) - 1) <= _RELATIVE_TOLERANCE)
    counters = asdict(cached.counters)
    n_counted = _n_counted(counters)
    if off.any() or n_counted != len(rows):
        raise WrongOutputError(f"{stream}: of {len(rows)} answers {off.sum()} are wrong, {n_counted} are counted")
    return Run(
        stream,
        len(rows),
        sum(plain.turns_s),
        sum(with_cache.turns_s),
        plain.cpu_seconds,
        with_cache.cpu_seconds,
        statistics.median(map(truediv, plain.turns_s[_START:], with_cache.turns_s[_START:])),
        counters,
    )


def _n_counted(counters: dict[str, Any]) -> int:
    return sum(counters[name] for name in ("hits", "misses", "duplicates", "coalesced", "bypassed"))


def _hit_us(model: ScoringModel, url: str | None, n_batches: int) -> float:
    """Return the microseconds of a row whose answer memory knows, or Redis where a URL is given."""
    store = None if url is None else open_store(url, 1.0)
    cached = CachedInfer(Infer("score", [model]), store, _TTL_S, l1_rows=0 if store else 65_536, bypass=False)
    rows = np.random.default_rng(_SEED).standard_normal((_BATCH_ROWS, _N_FEATURES), np.float32)
    try:
        Way(cached).run(_batches(rows))
        cached.flush(10)
        way = Way(cached)
        way.run(_batches(np.tile(rows, (n_batches, 1))))
    finally:
        cached.close()
    if cached.counters.hits != n_batches * _BATCH_ROWS:
        raise WrongOutputError("rows that had been kept were not found")
    return 1e6 * sum(way.turns_s) / (n_batches * _BATCH_ROWS)


@contextmanager
def _redis(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with stopping_on_sigterm(), EmbeddedCache() as server:
        yield server.url


def missed(summary: Mapping[str, Any]) -> str | None:
    """Return what the cache did not reach, in one line; None where it gives enough and costs little enough.

    Parameters
    ----------
    summary : mapping
        By stream, a mapping with its ``ratio``.
    """
    ratios = {stream: summary[stream]["ratio"] for stream in _STREAMS}
    # So put that NaN misses, too.
    below = [stream for stream in _STREAMS if not ratios[stream] >= _LEAST_RATIOS[stream]]
    told = (f"{stream}: ratio {ratios[stream]:.4f} is below {_LEAST_RATIOS[stream]:g}" for stream in below)
    return "; ".join(told) or None


def _print(runs: Sequence[Run], summary: dict[str, Any]) -> None:
    table = Table(title=f"500 boosted trees of depth 6, batches of {_BATCH_ROWS}; medians of {len(runs) // 2} rounds")
    for title in ("stream", "µs a row", "cached", "ratio", "from … to", "CPU", "steady", "known", "level"):
        table.add_column(title, justify="right")
    for stream in _STREAMS:
        own = [run for run in runs if run.stream == stream]
        ratios = sorted(run.ratio for run in own)
        counters = own[-1].counters
        table.add_row(
            stream,
            f"{1e6 * statistics.median(run.plain_s / run.rows for run in own):.2f}",
            f"{1e6 * statistics.median(run.cached_s / run.rows for run in own):.2f}",
            f"{summary[stream]['ratio']:.3f}",
            f"{ratios[0]:.3f} … {ratios[-1]:.3f}",
            f"{summary[stream]['cpu_ratio']:.3f}",
            f"{summary[stream]['steady_ratio']:.3f}",
            f"{(counters['hits'] + counters['duplicates']) / _n_counted(counters):.0%}",
            counters["level"],
        )
    console = Console()
    console.print(table)
    console.print(f"a hit in memory {summary['memory_hit_us']:.2f} µs, in Redis {summary['redis_hit_us']:.2f} µs a row")


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds; medians are reported.  [default: 5; quick: 3]")
@click.option("--rows", type=click.IntRange(min=1), help="Rows of a stream.  [default: 1,000,000; quick: 500,000]")
@click.option("--redis", "url", metavar="URL", help="A Redis to flush and use.  [default: start one]")
@click.option("--quick", is_flag=True, help="About a minute.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@click.option("--check", is_flag=True, help="Exit with 1 where zipf's ratio is below 2 or that of unique below 0.97.")
def main(
    rounds: int | None, rows: int | None, url: str | None, quick: bool, json_file: Path | None, check: bool
) -> None:
    """Measure the throughput of a costly model with a cache and without, in turn, on two streams of rows.

    zipf: a few rows are frequent, most are rare, as keys are. unique: no row comes twice, so that a cache can only
    cost. The cache is empty at the start of each run, and every answer is compared with that of the model alone.
    """
    rounds = rounds or (3 if quick else 5)
    rows = rows or (500_000 if quick else 1_000_000)
    rng = np.random.default_rng(_SEED)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="modelstream-bench-") as folder, _redis(url) as address:
        make_job("gbdt", Path(folder))
        model = load_model(Path(folder), "gbdt")
        Way(Infer("score", [model])).run(_batches(_rows_of("unique", 50 * _BATCH_ROWS, rng)))  # warm up
        try:
            for round_ in range(rounds):
                for stream in _STREAMS:
                    run = _compare(model, address, stream, _rows_of(stream, rows, rng))
                    runs.append(run)
                    told = f"ratio {run.ratio:.3f}, by CPU {run.cpu_ratio:.3f}, steady {run.steady_ratio:.3f}"
                    click.echo(f"round {round_ + 1}/{rounds}  {stream:<6}  {told}", err=True)
            hits = {"memory_hit_us": _hit_us(model, None, 400), "redis_hit_us": _hit_us(model, address, 200)}
        except WrongOutputError as error:
            raise click.ClickException(str(error)) from None
    summary: dict[str, Any] = dict(hits)
    for stream in _STREAMS:
        own = [run for run in runs if run.stream == stream]
        summary[stream] = {
            name: round(statistics.median(getattr(run, name) for run in own), 4)
            for name in ("ratio", "cpu_ratio", "steady_ratio")
        }
    _print(runs, summary)
    if json_file:
        each = [{**asdict(run), "ratio": run.ratio, "cpu_ratio": run.cpu_ratio} for run in runs]
        result = {"summary": summary, "runs": each, "environment": describe_environment("none")}
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if check and (what := missed(summary)):
        raise click.ClickException(what)


if __name__ == "__main__":
    main()
