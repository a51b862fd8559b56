"""The plots of a replay's report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from modelstream.streams.replay.plots import Line, Plot, area, count_axis, lines, make_plot
from modelstream.streams.replay.report_text import clock, compact, figure, milliseconds, percent
from modelstream.streams.replay.result import ReplayResult, Sample, StageFigures
from modelstream.streams.replay.svg_figure import COLOURS
from modelstream.streams.wording import counted

__all__ = ["replay_plots"]

#: From this ratio of the slowest to the median on, a linear axis would show nothing but the slowest.
_LOG_RATIO = 30.0

_CLOCK_NAMES = {
    "log_append_time": "the moment when Kafka stamped the prediction",
    "consumer": "the moment when a consumer had the prediction",
    "virtual": "its prediction, both by the virtual clock",
}


def replay_plots(result: ReplayResult) -> Iterator[Plot]:
    """Yield the plots of a replay, those without data left out."""
    series, warm_up_s = result.series, _warm_up_s(result)
    if result.latency_curve:
        yield _percentiles(result)
    if any(sample.p99_ms is not None for sample in series):
        yield _latency(series, warm_up_s)
    if series:
        yield _throughput(series, warm_up_s)
        yield _lag(series, result.max_lag, warm_up_s)
    if any(sample.cpu_percent is not None for sample in series):
        yield _cpu(series, warm_up_s)
    if any(sample.rss_mb is not None for sample in series):
        yield _memory(series, result.peak_rss_mb, warm_up_s)
    for i, stage in enumerate(result.stages):
        if stage.batches:
            yield _sizes(stage, i)
            yield _reasons(stage, i)


def _warm_up_s(result: ReplayResult) -> float:
    """Return the end of the interval in which the warm-up's share of the events had its answers; 0 without one."""
    if not result.warm_up:
        return 0.0
    # Answers come about in the order of their events.
    n_warm = result.warm_up * (result.predictions + result.dead_letters)
    for sample in result.series:
        if sample.answered >= n_warm:
            return sample.time_s
    return result.series[-1].time_s if result.series else 0.0


def _percentiles(result: ReplayResult) -> Plot:
    curve = [(percentile, ms) for percentile, ms in result.latency_curve if percentile < 100]
    latency = result.append_latency if result.latency_clock == "log_append_time" else result.consumer_latency
    n = latency.n if latency else 0
    # The slowest of n is where 1 of n lies above.
    end = max(_decades(curve[-1][0]) if curve else 0.0, math.log10(max(n, 2)))
    points = [(_decades(percentile), ms) for percentile, ms in curve]
    if result.max_ms is not None:
        points.append((end, result.max_ms))
    marks = [
        (_decades(percentile), ms, name)
        for percentile, ms, name in (
            (50, result.p50_ms, "p50"),
            (90, result.p90_ms, "p90"),
            (99, result.p99_ms, "p99"),
            (99.9, result.p999_ms, "p99.9"),
        )
        if ms is not None and _decades(percentile) < end - 0.2
    ]
    if result.max_ms is not None:
        marks.append((end, result.max_ms, "max"))
    is_log = bool(result.p50_ms and result.max_ms and result.max_ms / result.p50_ms > _LOG_RATIO)

    def draw(axes: Any, narrow: bool) -> None:
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=COLOURS["first"], drawstyle="default")
        _mark(axes, marks, narrow)
        shown = (0, 90, 99, 99.9, 99.99, 99.999, 99.9999) if narrow else (0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999)
        ticks = [tick for tick in shown if _decades(tick) < end]
        axes.set_xticks([_decades(tick) for tick in ticks], [f"{tick:g} %" for tick in ticks])
        axes.set_xlim(-0.05, end + 0.05)
        axes.set_xlabel("share that was as fast" if narrow else "share of the predictions that were as fast or faster")
        if is_log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter("")
        axes.yaxis.set_major_formatter(compact)
        low, high = axes.get_ylim()
        axes.set_ylim(low if is_log else 0, high**1.1 / low**0.1 if is_log else high * 1.12)
        axes.set_ylabel("ms, logarithmic" if is_log else "ms")

    clock_name = _CLOCK_NAMES[result.latency_clock]
    summary = (
        f"Half of {counted(n, 'prediction')} came within {milliseconds(result.p50_ms)}, 99 % within "
        f"{milliseconds(result.p99_ms)}, the slowest after {milliseconds(result.max_ms)}; from the "
        f"intended time of the event to {clock_name}. The axis is stretched to the right, where the slowest few are."
    )
    rows = [[f"{percentile:.7g}", figure(ms)] for percentile, ms in result.latency_curve]
    return make_plot(
        "percentiles", "Latency by percentile", summary, draw, ["Percentile", "Latency, ms"], rows, is_full=True
    )


def _decades(percentile: float) -> float:
    """Return where a percentile stands: 0 %, 90 %, 99 % and 99.9 % are equally far apart."""
    return -math.log10(1 - percentile / 100)


def _mark(axes: Any, marks: Sequence[tuple[float, float, str]], narrow: bool) -> None:
    # On a phone the names of two neighbours would stand upon each other.
    for x, ms, name in [one for one in marks if not narrow or one[2] != "p90"]:
        axes.plot([x], [ms], "o", color=COLOURS["first"], markersize=5)
        # The curve rises: to the left above a point there is room; little of it for the first ones, near the axis.
        is_first = x <= _decades(90)
        axes.annotate(
            f"{name}\n{milliseconds(ms)}" if narrow or is_first else f"{name}  {milliseconds(ms)}",
            (x, ms),
            (-4, 6),
            textcoords="offset points",
            ha="center" if narrow and x < _decades(90) else "right",
            va="bottom",
            fontsize=10 if narrow else 11,
            color=COLOURS["ink"],
        )


def _latency(series: Sequence[Sample], warm_up_s: float) -> Plot:
    p50s, p99s = [sample.p50_ms for sample in series], [sample.p99_ms for sample in series]
    known = [(ms, sample.time_s) for sample in series if (ms := sample.p99_ms) is not None]
    after = [one for one in known if one[1] > warm_up_s]
    part = "" if not warm_up_s else "After the warm-up, " if after else "In the warm-up, "
    worst, at_s = max(after or known)
    return make_plot(
        "latency",
        "Latency over time",
        f"{part}p99 of an interval was highest, {milliseconds(worst)}, about {clock(at_s)} after the start.",
        lines(series, [Line("p50", p50s, "first"), Line("p99", p99s, "second")], "ms", warm_up_s),
        ["Time, s", "p50, ms", "p99, ms"],
        [[f"{s.time_s:g}", figure(s.p50_ms), figure(s.p99_ms)] for s in series],
        is_full=True,
    )


def _throughput(series: Sequence[Sample], warm_up_s: float) -> Plot:
    sent, answered = [sample.sent_per_s for sample in series], [sample.answered_per_s for sample in series]
    shown = [Line("sent", sent, "quiet", is_broad=True), Line("answered", answered, "first")]
    return make_plot(
        "throughput",
        "Events sent and answered",
        f"At most {figure(max(sent))} events a second were sent, and {figure(max(answered))} answered.",
        lines(series, shown, "events/s", warm_up_s),
        ["Time, s", "Sent, events/s", "Answered, events/s", "Sent so far", "Answered so far"],
        [
            [f"{s.time_s:g}", figure(s.sent_per_s), figure(s.answered_per_s), f"{s.sent:,}", f"{s.answered:,}"]
            for s in series
        ],
    )


def _lag(series: Sequence[Sample], highest: int, warm_up_s: float) -> Plot:
    return make_plot(
        "lag",
        "Lag over time",
        f"At most {counted(highest, 'event')} that had been sent waited for an answer.",
        area(series, [sample.lag for sample in series], "events", warm_up_s),
        ["Time, s", "Events without an answer"],
        [[f"{s.time_s:g}", f"{s.lag:,}"] for s in series],
    )


def _cpu(series: Sequence[Sample], warm_up_s: float) -> Plot:
    known = [sample.cpu_percent for sample in series if sample.cpu_percent is not None]
    return make_plot(
        "cpu",
        "CPU of the workers",
        f"All together took {sum(known) / len(known):.0f} % of one core in the mean, {max(known):.0f} % at most.",
        area(series, [sample.cpu_percent for sample in series], "% of one core", warm_up_s),
        ["Time, s", "CPU, % of one core"],
        [[f"{s.time_s:g}", figure(s.cpu_percent)] for s in series],
    )


def _memory(series: Sequence[Sample], peak_mb: float | None, warm_up_s: float) -> Plot:
    return make_plot(
        "memory",
        "Memory of the workers",
        f"All together had at most {figure(peak_mb, 'MB')} resident.",
        area(series, [sample.rss_mb for sample in series], "MB", warm_up_s),
        ["Time, s", "Resident, MB"],
        [[f"{s.time_s:g}", figure(s.rss_mb)] for s in series],
    )


def _sizes(stage: StageFigures, i: int) -> Plot:
    biggest = max(stage.sizes, default=1)
    sizes = [1 << k for k in range(biggest.bit_length()) if (1 << k) >= min(stage.sizes, default=1)]
    counts = [stage.sizes.get(size, 0) for size in sizes]

    def draw(axes: Any, narrow: bool) -> None:
        axes.bar(range(len(sizes)), counts, color=COLOURS["first"], width=0.82)
        step = max(1, math.ceil(len(sizes) / (5 if narrow else 8)))
        axes.set_xticks(range(0, len(sizes), step), [f"{size:,}" for size in sizes[::step]])
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("rows, up to")
        count_axis(axes, "micro-batches")

    rows = [
        [f"{size // 2 + 1:,}–{size:,}" if size > 2 else f"{size}", f"{n:,}"]
        for size, n in zip(sizes, counts, strict=True)
    ]
    summary = f"{counted(stage.batches, 'micro-batch')}".replace("batchs", "batches")
    return make_plot(
        f"sizes-{i}",
        f"Batch sizes of {stage.step_id}",
        f"{summary} with {figure(stage.mean_rows)} rows in the mean; models took {milliseconds(stage.mean_service_ms)} "
        f"for one, and its oldest row waited {milliseconds(stage.mean_queued_ms)}.",
        draw,
        ["Rows", "Micro-batches"],
        rows,
    )


def _reasons(stage: StageFigures, i: int) -> Plot:
    reasons = sorted(stage.close_reasons.items(), key=lambda item: item[1])
    total = max(sum(stage.close_reasons.values()), 1)

    def draw(axes: Any, narrow: bool) -> None:
        names, counts = [name for name, _ in reasons], [n for _, n in reasons]
        bars = axes.barh(names, counts, color=COLOURS["first"], height=0.62)
        labels = [f"{n:,}  ({percent(n / total)})" for n in counts]
        axes.bar_label(bars, labels, padding=5, fontsize=10 if narrow else 11, color=COLOURS["ink"])
        axes.set_xlim(0, max(counts) * (1.5 if narrow else 1.3))
        # So that one bar alone is not a wall.
        axes.set_ylim(-max(0.6, (5 - len(names)) / 2), len(names) - 1 + max(0.6, (5 - len(names)) / 2))
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0, labelbottom=False)

    most, n_most = reasons[-1] if reasons else ("none", 0)
    return make_plot(
        f"reasons-{i}",
        f"Why batches of {stage.step_id} closed",
        f"Most often, {percent(n_most / total)} of the time: {most}.",
        draw,
        ["Reason", "Micro-batches"],
        [[name, f"{n:,}"] for name, n in reversed(reasons)],
    )
