"""Whether a pipeline sustains a rate: what one replay says, how several decide, and what all of them found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict

from modelstream.streams.replay.result import Environment, ReplayResult, Sample
from modelstream.streams.wording import counted

__all__ = ["Capacity", "Probe", "judge", "lag_growth", "no_start", "settle", "unanswered"]

#: How much of the events may be left behind, by the pipeline or by the generator: less is what the last batches under
#: way are, or noise.
_LEFT_BEHIND = 0.02
#: So few events more that wait at the end of a probe tell nothing.
_FEW = 2


class Probe(BaseModel):
    """One replay of the search.

    Parameters
    ----------
    rate_per_s : float
        What was offered.
    problems : tuple of str
        What speaks against the rate; empty where nothing does.
    events : int
        Events sent.
    p50_ms, p99_ms : float or None
        Latency from the due time, without the warm-up.
    max_lag : int
        The most events that waited for their answer.
    mean_batch, cpu_us_per_event, peak_rss_mb : float or None
        As in `ReplayResult`.
    generator_late : bool
        Whether the generator itself did not keep pace.
    only_timing : bool
        Whether only the latency, or the generator's own, speaks against the rate: one stall of a shared machine, or of
        the broker, does that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_per_s: float
    problems: tuple[str, ...]
    events: int
    p50_ms: float | None
    p99_ms: float | None
    max_lag: int
    mean_batch: float | None
    cpu_us_per_event: float | None
    peak_rss_mb: float | None
    generator_late: bool = False
    only_timing: bool = False

    @property
    def kept_up(self) -> bool:
        """Whether the pipeline kept up, this time."""
        return not self.problems


class Capacity(BaseModel):
    """What `modelstream capacity` found.

    Parameters
    ----------
    rate_per_s : float or None
        The highest rate that was sustained; None where none was.
    bound_p99_ms : float
        The latency that was allowed.
    full_speed_per_s : float or None
        Events per second where all are there at once, as `ReplayResult.full_speed_per_s` says.
    cpu_s_per_million : float or None
        CPU seconds of the workers for a million events, at the sustained rate.
    cost_per_million : float or None
        What that costs, in the unit of the price; None without a price.
    workers, partitions : int
        How many.
    probes : tuple of Probe
        Every replay, those at one rate together; one that kept up may be of a rate that two others failed.
    environment : Environment
        Machine and versions.
    interrupted : bool
        Whether Ctrl-C has ended the search; the rate is then the highest that was sustained until then.
    failure : str
        What failed, and so ended the search likewise: a worker, the generator, or the broker, or events had no answer;
        empty where nothing did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_per_s: float | None
    bound_p99_ms: float
    full_speed_per_s: float | None
    cpu_s_per_million: float | None
    cost_per_million: float | None
    workers: int
    partitions: int
    probes: tuple[Probe, ...]
    environment: Environment
    interrupted: bool = False
    failure: str = ""

    @property
    def ended_early(self) -> bool:
        """Whether there was more to try."""
        return self.interrupted or bool(self.failure)

    def to_json(self) -> bytes:
        """Return all of it as one JSON object, indented."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def judge(result: ReplayResult, rate_per_s: float, bound_p99_ms: float) -> Probe:
    """Return what one replay at a rate says about it.

    The pipeline kept up if every event was answered once, lag did not grow while events came, the 99th percentile of
    latency is within the bound, and the generator kept pace: what was not offered was not sustained.

    Parameters
    ----------
    result : ReplayResult
        The replay.
    rate_per_s : float
        The rate that it was to have.
    bound_p99_ms : float
        The latency allowed.
    """
    problems, timing = [], []
    if result.missing:
        problems.append(f"{result.missing:,} events are missing")
    if result.duplicates:  # as for a replay: an error, though each event has its answer
        problems.append(f"{result.duplicates:,} predictions are duplicates")
    growth_per_s = lag_growth(result.series, result.warm_up)
    # Lag is of what gets an answer: where most events are filtered it never grows by much of the rate.
    n_answered = result.n_predicted + result.dead_letters
    if growth_per_s > max(_LEFT_BEHIND * n_answered, _FEW) * rate_per_s / max(result.events, 1):
        problems.append(f"lag grows by {growth_per_s:,.0f} events/s")
    if result.refusal:
        problems.append(result.refusal)
    elif result.p99_ms is None:
        problems.append("no predictions to measure")
    elif result.p99_ms > bound_p99_ms:
        timing.append(f"p99 is {result.p99_ms:,.0f} ms")
    # Behind its schedule by a share of the time that it had, the generator sent at a rate lower by about that share.
    is_late = result.p99_send_delay_ms > min(bound_p99_ms / 2, 1000 * _LEFT_BEHIND * result.events / rate_per_s)
    if is_late:
        timing.append(f"the generator was {result.p99_send_delay_ms:,.0f} ms late itself")
    return Probe(
        rate_per_s=rate_per_s,
        problems=(*problems, *timing),
        events=result.events,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        max_lag=result.max_lag,
        mean_batch=result.mean_batch,
        cpu_us_per_event=result.cpu_us_per_event,
        peak_rss_mb=result.peak_rss_mb,
        generator_late=is_late,
        only_timing=bool(timing) and not problems,
    )


def no_start(result: ReplayResult, drain_s: float) -> str:
    """Return why a replay at full speed gives no rate to begin with; empty where it does.

    Parameters
    ----------
    result : ReplayResult
        The replay.
    drain_s : float
        After how many seconds in which nothing moved it was given up.
    """
    if problem := unanswered(result, drain_s, "--limit"):
        return problem
    if not (result.predictions or result.dead_letters):
        return f"no predictions: all of {counted(result.events, 'event')} were filtered, so there are no latencies"
    return result.refusal


def unanswered(result: ReplayResult, drain_s: float, lowering: str) -> str:
    """Return that events of a replay are missing, and what to do; empty where none are.

    Parameters
    ----------
    result, drain_s : ReplayResult, float
        As of `no_start`.
    lowering : str
        The option that says how many events there are.
    """
    if not result.missing:
        return ""
    return (
        f"{result.missing:,} of {counted(result.events, 'event')} had no answer when nothing had come for "
        f"{drain_s:g} s; give fewer with a lower {lowering}, or look with `modelstream replay` where they are"
    )


def settle(try_once: Callable[[], Probe]) -> Probe | None:
    """Return a replay that says that a rate is sustained; None where it is not.

    Where only timing speaks against the rate two more replays must both speak for it.

    Parameters
    ----------
    try_once : callable
        Replays at the rate.
    """
    probe = try_once()
    if probe.only_timing:
        probe = try_once()
        if probe.kept_up:
            probe = try_once()
    return probe if probe.kept_up else None


def lag_growth(series: Sequence[Sample], warm_up: float = 0.0) -> float:
    """Return by how many events a second the lag grows while events are sent, by a straight line through it.

    Parameters
    ----------
    series : sequence of Sample
        The course of a replay.
    warm_up : float
        Share of the events, the first ones, that is left out.

    Examples
    --------
    >>> def at(t):
    ...     return Sample(time_s=t, sent=10 * t, answered=7 * t, lag=3 * t, sent_per_s=10, answered_per_s=7)
    >>> round(lag_growth([at(t) for t in range(1, 9)]), 6)
    3.0
    """
    total = series[-1].sent if series else 0
    sending = [sample for sample in series if warm_up * total <= sample.sent < total]
    if len(sending) < 3:
        return 0.0
    slope, _ = np.polyfit([sample.time_s for sample in sending], [sample.lag for sample in sending], 1)
    return float(slope)
