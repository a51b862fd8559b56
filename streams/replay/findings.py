"""What a reader of a replay's figures must know before believing them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from modelstream.streams.replay.report_text import milliseconds
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.wording import counted, rough_time

__all__ = ["Finding", "clamped_by", "findings"]

#: A generator that is late by less does not matter to anybody, in milliseconds: a busy machine wakes no process sooner.
_LATE_MS = 5.0
#: Nor by less than this share of the latency at the same percentile, which its delay is part of: that is what two
#: replays of the same differ by.
_LATE_SHARE = 0.25
#: So many answers must lie beyond a percentile for it to say much.
_BEYOND = 10
#: Seconds of work that lie open when the last event is sent: beyond it the pipeline did not keep up.
_BACKLOG_S = 1.0
#: Seconds of predictions after the warm-up from which on they tell a rate. In less librdkafka's queues are not full:
#: of one pipeline on two processors 59,000 a second were found in 0.3 s, 54,000 in 1.4 s, and 41,000 in 5.5 s.
_RATE_S = 5.0
#: Share of the replay's length: arrivals that are moved by less are about those of the events' times.
_MOVED_SHARE = 0.01
#: Share of the machine's processors from which on whoever wants one waits for it.
_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know.

    Parameters
    ----------
    level : {"error", "warning", "note"}
        The replay is no good; the figures do not say what they seem to; good to know.
    title, text : str
        In a few words, and in a sentence or two.
    """

    level: Literal["error", "warning", "note"]
    title: str
    text: str


def findings(result: ReplayResult) -> list[Finding]:
    """Return what is to be said of a result, the worst first.

    Examples
    --------
    >>> [finding.title for finding in findings(result)]  # doctest: +SKIP
    ['12 events are missing', 'The generator fell behind']
    """
    return [*_errors(result), *_offline(result), *_warnings(result), *_notes(result)]


def clamped_by(result: ReplayResult) -> str:
    """Return by how much events out of order were due after their times, at the most.

    Examples
    --------
    >>> clamped_by(result)  # doctest: +SKIP
    'at the most 2.5 ms after its own time (1.5 s of event time)'
    """
    text = f"at the most {milliseconds(result.max_clamped_ms)} after its own time"
    if result.speed.endswith("x"):  # at a rate the factor is known to nobody but the schedule
        event_ms = result.max_clamped_ms * float(result.speed[:-1])
        text += f" ({milliseconds(event_ms) if event_ms < 120_000 else rough_time(event_ms / 1000)} of event time)"
    return text


def _distortion(result: ReplayResult) -> str:
    if result.max_clamped_ms <= 1000 * _MOVED_SHARE * result.seconds:
        return "That is within 1 % of the replay's length, and hardly changes the pace."
    return (
        "Events that belong into this span come together, in bursts that the times do not have, and where most of them "
        "do the replay is shorter than its times. Sort the file by time to be rid of that."
    )


def _errors(result: ReplayResult) -> Iterator[Finding]:
    if result.ended_early:
        yield Finding(
            "error",
            "Ended early",
            " ".join(_early_end(result)),
        )
    elif result.only_dead_letters:
        yield Finding(
            "error",
            "No predictions",
            f"There are dead letters alone, so the pipeline does not fit the events: {result.first_dead_letter}",
        )
    if result.missing:
        yield Finding(
            "error",
            f"{counted(result.missing, 'event')} missing",
            "They were sent, and neither a prediction nor a dead letter came, nor did a stage filter them, until "
            "nothing had moved for the seconds of --drain; a batch that takes longer than these looks the same.",
        )
    if result.duplicates:
        yield Finding(
            "error",
            f"{counted(result.duplicates, 'duplicate')}",
            "Events were answered more than once; under at_least_once a crashed worker does that.",
        )


def _offline(result: ReplayResult) -> Iterator[Finding]:
    if result.latency_clock == "virtual":
        yield Finding(
            "warning",
            "Computed, not measured",
            "Times are virtual: they come from what work costs, as measured in this process or read by --costs; "
            "Kafka's part is assumed. Compare offline replays with each other only.",
        )


def _early_end(result: ReplayResult) -> Iterator[str]:
    if result.sent is not None and result.unanswered is not None:
        among = ", filtered ones included" if result.filtered is None else ""
        yield f"Of {counted(result.sent, 'event')} sent, {result.unanswered:,} had no answer when it ended{among}."
        if result.events < result.sent:
            yield f"The figures are of the {counted(result.events, 'event')} up to the last one that was answered."
    yield result.failure or "Ctrl-C ended it; what was still to come is in none of the figures."


def _warnings(result: ReplayResult) -> Iterator[Finding]:
    if not result.predictions:
        return  # no pace tells anything then
    if result.p99_ms is None and not result.ended_early and result.n_predicted:
        yield Finding(
            "warning",
            "No latencies",
            f"All predictions are of the first {result.warm_up:.0%} of the events, which --warm-up leaves out. Give it "
            "more events, or a lower share.",
        )
    if (too_short := _too_short(result)) is not None:
        yield too_short
    # At full speed there is no schedule to fall behind.
    if result.arrivals != "max" and result.p99_send_delay_ms > max(_LATE_MS, _LATE_SHARE * (result.p99_ms or 0.0)):
        yield Finding(
            "warning",
            "The generator fell behind",
            f"One event in a hundred was sent {result.p99_send_delay_ms:,.1f} ms or more after its intended time, the "
            f"latest {result.max_send_delay_ms:,.1f} ms. This is part of the latencies: the machine was too slow or "
            f"too busy for a pace of {result.speed}.",
        )
    if result.arrivals != "max" and (busy := result.machine_busy or 0.0) > _FULL:
        yield Finding(
            "warning",
            "The machine was full",
            f"{busy:.0%} of its processors were in use, by workers, generator, consumer and all else there. "
            "Latencies tell of that; a lower pace, or a broker elsewhere, tells of the pipeline.",
        )
    if (backlog := _backlog(result)) is not None:
        yield Finding(
            "warning",
            "The pipeline did not keep up",
            f"When the last event was sent, {backlog:,} had no answer yet. Latencies beyond that point grow with the "
            "length of the replay and say nothing of a steady state; look for the rate that lasts at a lower pace.",
        )


def _too_short(result: ReplayResult) -> Finding | None:
    """Return that the rate of a replay at full speed is of too short a time; elsewhere the pace decides on it."""
    if result.arrivals != "max" or result.latency_clock == "virtual" or result.ended_early:
        return None
    n_steady = (1 - result.warm_up) * result.n_predicted
    steady_s = n_steady / result.answers_per_s if result.answers_per_s else 0.0
    if steady_s >= _RATE_S:
        return None
    if n_steady < 2:
        came = f"{counted(result.predictions, 'prediction')} came."
    elif result.answers_per_s is None:
        came = "Predictions came in a few bursts, with a long wait before one of them."
    else:
        came = (
            f"After the warm-up predictions came for {steady_s:,.1f} s; a rate takes {_RATE_S:g} s or more. Queues are "
            "still filling until then, and the rate may be half as high again as a longer replay's."
        )
    return Finding("warning", "Too short to tell a rate", f"{came} Give it more events.")


def _backlog(result: ReplayResult) -> int | None:
    """Return the events without an answer when the last one was sent, where that was more than a moment's work."""
    if result.arrivals == "max":
        return None
    # The most in the interval after the one of the last event is what it began with: nothing more was sent in it.
    after = [sample for sample in result.series if sample.sent >= result.events]
    # Both: many may come together at the end, and be answered at once; or few, and wait for more.
    if len(after) < 2 or after[-1].time_s - after[0].time_s <= _BACKLOG_S:
        return None
    return after[1].lag if after[1].lag > _BACKLOG_S * (result.answers_per_s or result.events_per_s) else None


def _notes(result: ReplayResult) -> Iterator[Finding]:
    if result.arrivals == "max":
        read = (
            "Read the rate of the whole here"
            if result.answers_per_s is None
            else "Read the steady rate here, which leaves the warm-up out: compare it with capacity and what-if"
        )
        yield Finding(
            "note",
            "As fast as possible",
            f"The events wait for the pipeline, so their latencies say how long the queue was. {read}. "
            "Replay at a rate for latencies.",
        )
    latency = result.append_latency if result.latency_clock == "log_append_time" else result.consumer_latency
    if latency is not None and latency.n < _BEYOND * 1000:
        yield Finding(
            "note",
            f"p99.9 of {counted(latency.n, 'prediction')}",
            f"Fewer than {_BEYOND} lie beyond it; it says little more than the maximum. A longer replay tells more.",
        )
    if result.missing is None and not result.ended_early:
        yield Finding(
            "note",
            "Nobody could say how many events were filtered",
            "Events without an answer may have been filtered, or be missing: no worker could be asked.",
        )
    if result.dead_letters:
        yield Finding(
            "note",
            f"{counted(result.dead_letters, 'dead letter')}",
            "These events could not be processed. They count as answered, and their latencies are in no percentile.",
        )
    if result.clamped_events:
        yield Finding(
            "note",
            f"{counted(result.clamped_events, 'event')} out of order",
            "Their times lie before those of earlier ones in the file; each was sent together with the one before it, "
            f"{clamped_by(result)}. {_distortion(result)}",
        )
    if result.repeated_ids:
        yield Finding(
            "note",
            f"{counted(result.repeated_ids, 'event')} with the id of an earlier one",
            "As after a redrive, say. Predictions of an id were taken for the answers to its events in their order.",
        )
