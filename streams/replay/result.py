"""What a replay measured, as values that go to JSON and back; `docs/replay.md` says how each figure comes about."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.operators.cache_counters import CacheCounters

__all__ = ["Environment", "Latency", "ReplayResult", "Sample", "StageFigures", "ending", "full_speed"]


class _Ending(TypedDict):
    interrupted: bool
    failure: str


def ending(ended_by: BaseException | None) -> _Ending:
    """Return the fields that say how something ended: by Ctrl-C, by a failure, or by itself.

    Examples
    --------
    >>> ending(KeyboardInterrupt()), ending(None)
    ({'interrupted': True, 'failure': ''}, {'interrupted': False, 'failure': ''})
    """
    return {
        "interrupted": isinstance(ended_by, KeyboardInterrupt),
        "failure": str(ended_by) if isinstance(ended_by, ModelStreamError) else "",
    }


def full_speed(steady_per_s: float | None, n_timed: int, n_events: int, whole_per_s: float) -> float:
    """Return events per second where all are there at once.

    By the steady rate where at least half of the events are in it, unless that of the whole is higher: a wait at the
    end weighs less in it.

    Parameters
    ----------
    steady_per_s : float or None
        What `answers_per_s` says of the events that have a time.
    n_timed, n_events : int
        How many have one, and how many there are.
    whole_per_s : float
        Events per second from the start to the end.

    Examples
    --------
    >>> full_speed(95.0, 500, 1000, 90.0), full_speed(95.0, 499, 1000, 90.0), full_speed(None, 1000, 1000, 90.0)
    (190.0, 90.0, 90.0)
    """
    if steady_per_s is None or 2 * n_timed < n_events:
        return whole_per_s
    return max(round(steady_per_s * n_events / n_timed, 1), whole_per_s)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Latency(_Value):
    """How long answers took after the intended times of their events, by one clock, without the warm-up.

    Exact percentiles of all ``n`` latencies, interpolated between neighbours as numpy does; no buckets.
    """

    n: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Sample(_Value):
    """One interval of a replay: it ends at ``time_s`` after the start.

    ``sent`` and ``answered`` count events since the start, up to its end; ``lag`` is the most events in it that were
    sent, are due an answer and had none, so that the highest one is `ReplayResult.max_lag`. ``answered`` counts
    predictions and dead letters. Percentiles are those of the predictions that came in the interval, by the clock of
    the flat figures, without those of the warm-up from the first interval on that has others; None where none came.
    ``cpu_percent`` (100 is one core) and ``rss_mb`` are those of all workers together; None where nobody can know them.
    """

    time_s: float
    sent: int
    answered: int
    lag: int
    sent_per_s: float
    answered_per_s: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_percent: float | None = None
    rss_mb: float | None = None


class StageFigures(_Value):
    """The micro-batches of one stage that infers, over all workers, from the first event of the replay to the last.

    Parameters
    ----------
    step_id : str
        The stage.
    batches, rows : int
        Micro-batches, and rows in them.
    mean_rows : float or None
        Rows of a micro-batch; None where there was none.
    sizes : dict of int to int
        Micro-batches by the power of two that their rows come up to: 1024 counts those of 513 to 1,024.
    close_reasons : dict of str to int
        Micro-batches by the reason for which they were closed.
    mean_queued_ms, mean_service_ms : float or None
        The longest wait of a micro-batch's rows, and what the models took for it.
    cache : CacheCounters or None
        What the stage's cache did; ``level`` and the two pauses as they were at the end. None without a cache.
    """

    step_id: str
    batches: int
    rows: int
    mean_rows: float | None
    sizes: dict[int, int]
    close_reasons: dict[str, int]
    mean_queued_ms: float | None = None
    mean_service_ms: float | None = None
    cache: CacheCounters | None = None


class Environment(_Value):
    """Where a replay ran."""

    cpu: str
    cpus: int
    memory_gb: float
    system: str
    python: str
    #: By name of the package: of modelstream itself and of what does the work.
    versions: dict[str, str]
    #: ``embedded``, or the bootstrap address.
    broker: str


class ReplayResult(_Value):
    """All that one replay measured.

    The percentiles at the top (``p50_ms`` to ``max_ms``) are by `latency_clock`: LogAppendTime where the broker stamps
    the predictions, else the consumer. ``append_latency`` and ``consumer_latency`` have both.

    Parameters
    ----------
    events : int
        Events that the figures are of: those sent, or after a failure those up to the last one that was answered.
    predictions, dead_letters : int
        Records of these events on the output topics, repeated ones included.
    dead_letter_reasons : dict of str to int
        How many of them for each reason and stage, repeated ones included.
    first_dead_letter : str
        Which event the first of them is of, and what it says; empty where there is none. The event is told by its
        number in the order of sending, or on the pipeline's own topics by its place.
    filtered : int or None
        Events that a stage took out, as the workers say; None where they cannot be asked.
    missing : int or None
        Events with neither a prediction nor a dead letter that were not filtered. None where it cannot be told from
        filtered ones.
    duplicates : int
        Predictions beyond the first of an event.
    events_per_s : float
        Events that are not missing, from the first sent to the last answered or filtered, warm-up included.
    answers_per_s : float or None
        Predictions after the warm-up over the time in which they came; None where too few came to tell, or in
        a few bursts.
    seconds : float
        From the first event sent to the last answer; where events were filtered half a second after it or later, to the
        look that found it, up to 0.2 s late; where Ctrl-C came, to that.
    interrupted : bool
        Whether Ctrl-C ended it; nobody knows then what was still to come, and ``missing`` is None.
    failure : str
        What failed, and so ended it: a worker, the generator, or the broker; empty where nothing did.
    sent : int or None
        Events handed to the generator's producer; of files of earlier versions None.
    unanswered : int or None
        Where it ended early, how many of those sent had neither a prediction nor a dead letter by then; filtered ones
        are among them where no worker could say how many there are. None where it did not end early.
    p50_ms, p90_ms, p99_ms, p999_ms, max_ms : float or None
        From the intended time of an event to its prediction, without the warm-up; None without predictions.
    max_lag : int
        The most events that were sent, are due an answer and had none, at any moment.
    mean_batch : float or None
        Rows of a micro-batch over all stages that infer; None where no worker could be asked.
    cache_hit_rate : float or None
        The share of rows that no model had to answer; None without a cache.
    cpu_us_per_event : float or None
        User and system time of all workers from the first event to the last answer, by event, in microseconds.
    machine_cpu_us_per_event : float or None
        Time of all processors of this machine that was not idle, by event: of the workers, generator and broker, of
        whatever else runs here, and what other virtual machines took. None where this process has a share of them only.
    peak_rss_mb : float or None
        The most resident memory of all workers together that a look found, in 10^6 bytes.
    pipeline, file : str
        What was replayed through what.
    stage_specs : tuple of dict, optional
        What the pipeline's file said of its stages, overrides included; None of a replay without a broker.
    work_options : dict of str to object, optional
        What else it said that changes what an event takes, defaults included; None of a replay without a broker.
    speed : str
        The pace: ``60x``, ``max``, or a rate such as ``5000/s``.
    arrivals : str
        ``recorded``, ``poisson`` or ``even``; ``max`` for none.
    seed : int or None
        Of Poisson arrivals.
    workers : int or None
        Workers that were started; None where those of the pipeline's own topics were used.
    partitions : int
        Of the topic that was read.
    warm_up : float
        Share of the events, the first ones, that percentiles leave out.
    started_at : datetime
        When the first event was due.
    latency_clock : {"log_append_time", "consumer", "virtual"}
        Whose clock the flat percentiles, ``latency_curve`` and ``series`` go by. Offline it is the virtual clock, which
        `consumer_latency` has then.
    max_send_delay_ms, p99_send_delay_ms : float
        How long after its intended time the generator handed an event to its producer. Where these are not small
        against the latencies, the generator could not keep pace; its delay is part of the latencies.
    clamped_events : int
        Events whose time lies before that of an earlier one, sent as if it did not.
    repeated_ids : int
        Events that have the id of an earlier one; predictions of an id belong to its events in their order.
    max_clamped_ms : float
        By how much the most such event was due after its time, at the pace of the replay.
    append_latency, consumer_latency : Latency or None
        By LogAppendTime, to the millisecond, and by the wall clock of the consumer when it had the record.
    latency_curve : tuple of (float, float)
        Percentile and milliseconds, from 0 to 100, close where percentiles are high, for a plot as HdrHistogram makes.
    series : tuple of Sample
        The course of it.
    stages : tuple of StageFigures
        The stages that infer, in their order; empty where no worker could be asked.
    environment : Environment
        Machine and versions.
    """

    events: int
    events_per_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    max_lag: int
    mean_batch: float | None
    cache_hit_rate: float | None
    cpu_us_per_event: float | None
    peak_rss_mb: float | None

    machine_cpu_us_per_event: float | None = None
    predictions: int
    dead_letters: int
    dead_letter_reasons: dict[str, int] = Field(default_factory=dict)
    first_dead_letter: str = ""
    filtered: int | None
    missing: int | None
    duplicates: int
    answers_per_s: float | None
    seconds: float
    interrupted: bool = False
    failure: str = ""
    sent: int | None = None
    unanswered: int | None = None

    pipeline: str
    file: str
    stage_specs: tuple[dict[str, Any], ...] | None = None
    work_options: dict[str, Any] | None = None
    speed: str
    arrivals: Literal["recorded", "poisson", "even", "max"]
    seed: int | None = None
    workers: int | None
    partitions: int
    warm_up: float
    started_at: datetime
    latency_clock: Literal["log_append_time", "consumer", "virtual"]
    max_send_delay_ms: float
    p99_send_delay_ms: float
    clamped_events: int = 0
    repeated_ids: int = 0
    max_clamped_ms: float = 0.0

    append_latency: Latency | None
    consumer_latency: Latency | None
    latency_curve: tuple[tuple[float, float], ...]
    series: tuple[Sample, ...]
    stages: tuple[StageFigures, ...]
    environment: Environment

    def to_json(self) -> bytes:
        """Return the result as one JSON object, indented, with the figures first."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, text: bytes, path: str = "") -> ReplayResult:
        """Return the result that `to_json` has written.

        Parameters
        ----------
        text : bytes
            What it has written.
        path : str
            The file that it comes from, for errors.

        Raises
        ------
        ConfigError
            It is none.
        """
        try:
            # By orjson, not by pydantic's own parser: an integer of a JSON file stays one.
            return cls.model_validate(orjson.loads(text))
        except orjson.JSONDecodeError:
            raise ConfigError(path, "is no JSON; name a file that `modelstream replay --json` wrote") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(path, f"is no result of a replay: {place}: {first['msg'].lower()}") from None

    @classmethod
    def read(cls, path: Path) -> ReplayResult:
        """Return the result that a file holds.

        Raises
        ------
        ConfigError
            There is no such file, or it holds something else.
        """
        try:
            return cls.from_json(path.read_bytes(), str(path))
        except OSError as error:
            raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None

    @property
    def machine_busy(self) -> float | None:
        """The share of the machine's processors that was in use, by all that ran there; None where nobody looked."""
        if self.machine_cpu_us_per_event is None or not self.seconds:
            return None
        share = self.machine_cpu_us_per_event * self.events / 1e6 / (self.seconds * self.environment.cpus)
        # The looks at the processes do not end with the last answer.
        return min(share, 1.0)

    @property
    def n_predicted(self) -> int:
        """Predictions without those that came again."""
        return self.predictions - self.duplicates

    @property
    def full_speed_per_s(self) -> float:
        """Events per second where all are there at once, as `full_speed` says."""
        return full_speed(self.answers_per_s, self.n_predicted, self.events, self.events_per_s)

    @property
    def only_dead_letters(self) -> bool:
        """Whether there are dead letters, and nothing was predicted or filtered."""
        return bool(self.dead_letters) and not self.predictions and not self.filtered

    @property
    def refusal(self) -> str:
        """Why there are no predictions, where there are `only_dead_letters`; else empty."""
        if not self.only_dead_letters:
            return ""
        return f"no predictions, but dead letters, the first: {self.first_dead_letter}"

    @property
    def ended_early(self) -> bool:
        """Whether there was more to come when it ended."""
        return self.interrupted or bool(self.failure)
