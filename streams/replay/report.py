"""A replay, or a comparison of two versions, as one HTML file with nothing outside of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.difference import Difference
from modelstream.streams.replay.difference_plots import difference_plots
from modelstream.streams.replay.findings import findings
from modelstream.streams.replay.report_plots import replay_plots
from modelstream.streams.replay.report_text import figure, milliseconds, percent
from modelstream.streams.replay.result import Latency, ReplayResult
from modelstream.streams.replay.svg_figure import require_libraries

__all__ = ["Origin", "difference_to_html", "require_libraries", "to_html", "write_difference", "write_report"]

#: A password in a URL, as that of Redis.
_PASSWORD = re.compile(r"(://[^:/@\s'\"]*):[^@/\s'\"]+@")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a report tells of how its figures came about; passwords in URLs are left out.

    Parameters
    ----------
    command : str
        The command line.
    pipeline : str
        The pipeline file, as YAML.
    drawing : str or None
        The pipeline as an SVG document.
    """

    command: str
    pipeline: str
    drawing: str | None = None

    def without_passwords(self) -> Origin:
        """Return it as anybody may read it."""
        return Origin(_PASSWORD.sub(r"\1:***@", self.command), _PASSWORD.sub(r"\1:***@", self.pipeline), self.drawing)


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    value: str
    note: str = ""


def write_report(path: Path, result: ReplayResult, origin: Origin) -> None:
    """Write the report of a replay.

    Raises
    ------
    ConfigError
        The file cannot be written, or a library is missing; see `require_libraries`.
    """
    _write(path, to_html(result, origin))


def write_difference(path: Path, difference: Difference, origin: Origin) -> None:
    """Write the report of a comparison, as `write_report` does."""
    _write(path, difference_to_html(difference, origin))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from None


def to_html(result: ReplayResult, origin: Origin) -> str:
    """Return the report of a replay as the text of an HTML document."""
    return _render(
        "report.html.jinja",
        kind="Replay",
        result=result,
        title=f"{Path(result.file).name} through {Path(result.pipeline).name}",
        started=_started(result),
        origin=origin.without_passwords(),
        urgent=[finding for finding in findings(result) if finding.level != "note"],
        notes=[finding for finding in findings(result) if finding.level == "note"],
        headline=list(_headline(result)),
        accounts=list(_accounts(result)),
        latencies=list(_latencies(result)),
        circumstances=list(_circumstances(result)),
        plots=list(replay_plots(result)),
    )


def difference_to_html(difference: Difference, origin: Origin) -> str:
    """Return the report of a comparison as the text of an HTML document."""
    return _render(
        "difference.html.jinja",
        kind="Comparison",
        difference=difference,
        title=" and ".join(_short(difference.a, difference.b)),
        origin=origin.without_passwords(),
        headline=list(_difference_headline(difference)),
        plots=list(difference_plots(difference)),
    )


def _started(result: ReplayResult) -> str:
    if result.latency_clock == "virtual":  # which stands at 1970, a date that means nothing
        return "offline, by a virtual clock"
    return f"{result.started_at:%-d %B %Y, %H:%M:%S} UTC"


def _short(a: str, b: str) -> tuple[str, str]:
    """Return names of two files, with their folders where they would be the same."""
    paths = Path(a), Path(b)
    if paths[0].name != paths[1].name:
        return paths[0].name, paths[1].name
    return "/".join(paths[0].parts[-2:]), "/".join(paths[1].parts[-2:])


def _render(template: str, **values: Any) -> str:
    require_libraries()
    import jinja2

    folder = resources.files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "percent": percent, "data_url": _data_url}
    return environment.get_template(template).render(**values)


def _data_url(svg: str) -> str:
    # An image of its own, so that its styles stay in it.
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _headline(result: ReplayResult) -> Iterator[_Figure]:
    if result.unanswered is not None:
        yield _Figure("Without an answer", figure(result.unanswered), f"of {figure(result.sent)} sent, when it ended")
    if result.arrivals == "max" and result.answers_per_s is not None:
        yield _Figure("Steady rate", figure(result.answers_per_s, "/s"), "predictions after the warm-up")
    else:
        yield _Figure("Throughput", figure(result.events_per_s, "/s"), "events, warm-up included")
    yield _Figure("p50", milliseconds(result.p50_ms), "half were faster")
    yield _Figure("p99", milliseconds(result.p99_ms), "99 % were faster")
    yield _Figure("p99.9", milliseconds(result.p999_ms), f"max {milliseconds(result.max_ms)}")
    yield _Figure("Highest lag", figure(result.max_lag), "events without an answer")
    yield _Figure("CPU per event", figure(result.cpu_us_per_event, "µs"), "all workers")
    yield _Figure("Peak memory", figure(result.peak_rss_mb, "MB"), "all workers, resident")
    if result.cache_hit_rate is not None:
        yield _Figure("Cache hits", f"{100 * result.cache_hit_rate:.1f} %", "rows that no model computed")
    else:
        yield _Figure("Mean batch", figure(result.mean_batch), "rows of a micro-batch")


def _accounts(result: ReplayResult) -> Iterator[_Figure]:
    yield _Figure("Events sent", figure(result.events if result.sent is None else result.sent))
    if result.unanswered is not None:
        yield _Figure("Without an answer when it ended", figure(result.unanswered))
    yield _Figure("Predictions", figure(result.predictions))
    yield _Figure("Dead letters", figure(result.dead_letters))
    yield _Figure("Filtered", figure(result.filtered))
    yield _Figure("Missing", figure(result.missing))
    yield _Figure("Duplicates", figure(result.duplicates))


def _latencies(result: ReplayResult) -> Iterator[tuple[str, Latency]]:
    if result.append_latency is not None:
        yield "Kafka had it", result.append_latency
    if result.consumer_latency is not None:
        is_virtual = result.latency_clock == "virtual"
        yield "it was there, by the virtual clock" if is_virtual else "a consumer had it", result.consumer_latency


def _circumstances(result: ReplayResult) -> Iterator[_Figure]:
    environment = result.environment
    arrivals = {
        "recorded": "as recorded",
        "poisson": f"Poisson, seed {result.seed}",
        "even": "evenly spaced",
        "max": "as fast as they could be sent",
    }
    is_virtual = result.latency_clock == "virtual"
    how = "simulated in one process" if is_virtual else "started for the replay"
    workers = "those that ran already" if result.workers is None else f"{result.workers}, {how}"
    yield _Figure("Pace", result.speed, arrivals[result.arrivals])
    left_out = f"percentiles leave out the first {percent(result.warm_up)} of the events"
    yield _Figure("Virtual time" if is_virtual else "Time", f"{result.seconds:,.1f} s", left_out)
    yield _Figure("Steady rate", figure(result.answers_per_s, "/s"), "predictions after the warm-up")
    yield _Figure("Whole rate", figure(result.events_per_s, "/s"), "events, from the first one sent to the last answer")
    if not is_virtual:
        late = f"p99 of its delay; max {milliseconds(result.max_send_delay_ms)}"
        yield _Figure("Generator", milliseconds(result.p99_send_delay_ms), late)
    yield _Figure("Workers", workers)
    yield _Figure("Partitions", figure(result.partitions))
    yield _Figure("Broker", environment.broker)
    yield _Figure(
        "Machine", environment.cpu, f"{environment.cpus} CPUs, {environment.memory_gb:g} GB, {environment.system}"
    )
    yield _Figure(
        "Python", environment.python, ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    )


def _difference_headline(difference: Difference) -> Iterator[_Figure]:
    differing = sum(one.differing + one.only_a + one.only_b for one in difference.fields)
    values = sum(one.compared + one.only_a + one.only_b for one in difference.fields)
    flips = sum(one.differing for one in difference.fields if one.flips)
    fates = sum(fate.count for fate in difference.fates if fate.a != fate.b)
    yield _Figure("Events compared", figure(difference.compared), "both predicted them")
    yield _Figure("Values that differ", percent(differing / values if values else 0), f"{differing:,} of {values:,}")
    yield _Figure("Labels that differ", figure(flips), "and texts")
    yield _Figure("Another fate", figure(fates), "predicted, filtered, rejected")
