"""A pipeline as a Faust app: ``modelstream run PIPELINE``, or ``faust -A modelstream.streams.app worker``.

For Faust's own command line the pipeline file is named by the environment variable ``MODELSTREAM_PIPELINE``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import faust
from faust.transport.drivers import TRANSPORTS
from mode.utils.objects import cached_property

from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.operators.microbatch import BatchStatistics
from modelstream.streams.agents import StageAgent, attach_agents
from modelstream.streams.batch_stream import BatchStream, RecordBatchSchema
from modelstream.streams.build import BuiltPipeline
from modelstream.streams.caching import cache_settings, warn_if_away
from modelstream.streams.client_settings import consumer_config, producer_config, transactional_config
from modelstream.streams.data_thread import DataThread
from modelstream.streams.delivery import Delivery
from modelstream.streams.exactly_once import ExactlyOnce
from modelstream.streams.input_notes import input_notes
from modelstream.streams.ledger import Ticket
from modelstream.streams.pipeline import Pipeline, load_pipeline
from modelstream.streams.required_topics import require_worker_topics
from modelstream.streams.settings import BrokerSettings, EngineLimits
from modelstream.streams.transactions import TransactionalDelivery
from modelstream.streams.transport import Transport
from modelstream.streams.web import add_pages
from modelstream.streams.wording import counted
from modelstream.streams.worker_limits import downstream_s, limits_of, pool_threads

__all__ = ["App", "Counters", "app_from_environment", "worker_app"]

logger = logging.getLogger(__name__)

TRANSPORTS.aliases["modelstream"] = f"{Transport.__module__}:{Transport.__name__}"

P = ParamSpec("P")
T = TypeVar("T")

# Objects made and not yet freed before Python looks for cycles. Events are two of them each and never in a cycle, so
# at the default of 700 every batch in flight is searched for nothing, again and again: 0.6 µs an event (measured,
# 2,048 events of 20 numbers). The window holds some 100,000 objects.
_GC_THRESHOLD = 200_000

# Events that wait before an agent. On a batch topic their rows are bounded where they are fetched.
_WAITING_EVENTS = 64


@dataclass(slots=True)
class Counters:
    """What this worker has done since its start, in events."""

    events: int = 0
    filtered: int = 0
    predictions: int = 0
    dead_letters: int = 0
    #: Records that were deleted before they were read, as `source.on_gap` allows.
    gap_records: int = 0


class App(faust.App):
    """A Faust app whose topics may be read in batches.

    Parameters
    ----------
    id : str
        Name of the app, and of its consumer group.
    settings : BrokerSettings
        Where Kafka is.
    limits : EngineLimits, optional
        How much is held at once.
    built : BuiltPipeline, optional
        The pipeline whose stages `worker_app` makes the agents of; none where they are one's own.
    **options : Any
        Faust's own settings.
    """

    #: Seconds without a fetch after which a worker leaves its group, so that others get on: Kafka's own default. A
    #: batch that takes longer is a model that hangs.
    max_poll_interval_s = 300.0

    def __init__(
        self,
        id: str,
        *,
        settings: BrokerSettings,
        limits: EngineLimits | None = None,
        built: BuiltPipeline | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.limits = limits or EngineLimits()
        self.built = built
        self.counters = Counters()
        self._is_exactly_once = exactly_once = built is not None and built.spec.delivery == "exactly_once"
        self._data_thread = DataThread("modelstream-data")
        n_threads = pool_threads(built) if built is not None else 0
        #: Computes micro-batches where a stage has several in flight; None where none has.
        self.compute_pool = ThreadPoolExecutor(n_threads, "modelstream-model") if n_threads else None
        self.stage_agents: list[StageAgent] = []
        #: What the stages' micro-batchers have done, by step id.
        self.batch_statistics: dict[str, BatchStatistics] = {}
        self._confirming: asyncio.Future[None] | None = None
        #: Whether somebody named the web server's port; else it takes the first free one.
        self.web_port_is_chosen = False
        #: Names of the topics that are read in batches.
        self.batch_topic_names: set[str] = set()
        #: Those of them whose agents take all partitions of a fetch at once.
        self.whole_fetch_topic_names: set[str] = set()
        defaults: dict[str, Any] = {
            "broker": ";".join(f"modelstream://{address}" for address in settings.bootstrap.split(",")),
            "broker_credentials": settings.faust(),
            # Under exactly-once a transaction has its own time; this one must not end it before.
            "broker_commit_interval": max(
                self.limits.commit_interval_s, self.limits.transaction_interval_ms / 1000 if exactly_once else 0
            ),
            "broker_session_timeout": self.limits.session_timeout_s,
            # Faust's default, and longer than a session, as it must be.
            "broker_request_timeout": max(90.0, 1.5 * self.limits.session_timeout_s),
            "broker_max_poll_interval": self.max_poll_interval_s,
            # Kafka advises three heartbeats in a session at least; this is also how soon a rebalance is noticed.
            "broker_heartbeat_interval": self.limits.session_timeout_s / 6,
            "consumer_auto_offset_reset": "earliest",
            "stream_buffer_maxsize": _WAITING_EVENTS,
            "stream_wait_empty": True,
            "topic_disable_leader": True,
            "web": "modelstream://",
            "Stream": BatchStream,
        }
        super().__init__(id, **{**defaults, **options})

    def data_plane_config(self) -> dict[str, Any]:
        """Return the settings of the librdkafka consumer that fetches."""
        return consumer_config(self.settings, self.conf.id, self.limits)

    @cached_property
    def delivery(self) -> Delivery:
        """Make the one producer of predictions and dead letters."""
        if not self._is_exactly_once:
            return Delivery(producer_config(self.settings, self.limits))
        config = transactional_config(self.settings, self.conf.id, self.limits, self.transaction_timeout_s)
        return TransactionalDelivery(config, self.limits.max_transaction_rows, on_full=self._commit_soon)

    @cached_property
    def exactly_once(self) -> ExactlyOnce | None:
        """Make what commits the transactions; None under at-least-once."""
        return ExactlyOnce(self, self.delivery) if isinstance(self.delivery, TransactionalDelivery) else None

    @property
    def transaction_timeout_s(self) -> float:
        """After which time Kafka aborts a transaction: twice that after which it should have been committed."""
        return max(self.limits.transaction_timeout_s, 2 * self.limits.transaction_interval_ms / 1000)

    @property
    def holds_too_much(self) -> bool:
        """Whether as many outputs are held back, by a transaction that is being committed, as may be under way."""
        delivery = self.delivery
        return isinstance(delivery, TransactionalDelivery) and delivery.n_held >= self.limits.max_rows_in_flight

    def _commit_soon(self) -> None:
        # On the data thread, or that of the transactions.
        self.loop.call_soon_threadsafe(lambda: self.consumer.add_future(self.consumer.commit()))

    @property
    def kafka_topics(self) -> set[str]:
        """The topics without which this worker cannot work."""
        sink = self.built.spec.sink if self.built is not None else None
        return self.batch_topic_names | ({sink.topic, sink.dead_letter} if sink is not None else set())

    @property
    def on_gap(self) -> str:
        """Where to go on when records were deleted before they were read, as `source.on_gap` says."""
        return "earliest" if self.built is None else self.built.spec.source.on_gap

    @property
    def downstream_s(self) -> float:
        """What a prediction takes from the producer to its consumer: the linger, and the round trip to the broker."""
        return downstream_s(self.limits)

    @property
    def is_draining(self) -> bool:
        """Whether nothing is read for now, so that nothing should be held back for what may come."""
        return not self.consumer.is_reading

    def wake_stages(self) -> None:
        """Have every stage look at what it holds."""
        for agent in self.stage_agents:
            agent.wake()

    def on_data_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function on the data thread, after what was given to it before, and return the future of its result.

        One thread fetches, decodes, computes and produces: records stay in one core's cache, and neither the consumer
        nor the producer needs a lock. Spread over three threads the same work took 1.6 times the CPU (measured).
        """
        return self._data_thread.call(function, *args, **kwargs)

    def fetch_on_data_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """As `on_data_thread`; the result of the call before may be told together with that of this one.

        Not under exactly-once: it cost a seventh of the throughput there (measured).
        """
        call = self._data_thread.call if self._is_exactly_once else self._data_thread.fetch
        return call(function, *args, **kwargs)

    async def confirm_outputs(self, finish: Callable[[Ticket, int], None]) -> None:
        """Book all rows whose outputs the broker has.

        A data thread that hangs in a model is waited for once; until it comes back, nothing more is confirmed.

        Raises
        ------
        BrokerUnavailable
            If the broker refused an output for good.
        """
        patience_s = 0.0
        if self._confirming is None:
            self._confirming = asyncio.ensure_future(self._confirm(finish))
            patience_s = self.limits.drain_timeout_s
        # Of two that wait for the same one, the first to be told lets go of it.
        confirming = self._confirming
        await asyncio.wait({confirming}, timeout=patience_s)
        if confirming.done():
            if self._confirming is confirming:
                self._confirming = None
            confirming.result()

    async def _confirm(self, finish: Callable[[Ticket, int], None]) -> None:
        # A task of its own: who waits for it may give up, and the rows must be booked all the same.
        for ticket, n_rows in await self.on_data_thread(self.delivery.confirm, self.limits.confirm_timeout_s):
            finish(ticket, n_rows)

    def on_rebalance_end(self) -> None:
        """Begin to read batches, now that tables are recovered and the flow is on."""
        super().on_rebalance_end()
        if not self.should_stop:
            self.consumer.start_reading()

    def _on_rebalance_when_stopped(self) -> None:
        # Faust closes the consumer here, and nothing that is being drained could be committed any more. It ends with
        # the app.
        pass

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        await super()._on_agent_error(agent, exc)
        # Faust would start the agent again with the next batch, and this one would hold its partition's offset for
        # good. Pipelines never come here: their bad events are dead letters.
        if isinstance(getattr(agent.channel, "schema", None), RecordBatchSchema):
            await self.crash(exc)

    def _create_directories(self) -> None:
        # Tables in memory have nothing to keep there.
        if self.conf.store.scheme != "memory":
            super()._create_directories()

    async def on_start(self) -> None:
        """Prepare the process."""
        await super().on_start()
        if self.exactly_once is not None:
            await self.exactly_once.start()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)

    async def on_shutdown(self) -> None:
        """End the data thread, after everything that uses it."""
        await super().on_shutdown()
        self.delivery.stop()
        self._data_thread.stop()
        if self.compute_pool is not None:
            self.compute_pool.shutdown(wait=False, cancel_futures=True)
        if self.built is not None:
            await asyncio.to_thread(self.built.close)


def worker_app(
    pipeline: Pipeline,
    file: Path,
    *,
    redis: str | None = None,
    broker: str | None = None,
    limits: EngineLimits | None = None,
    group_instance_id: str | None = None,
    always_asks: bool,
) -> App:
    """Return the app of a worker, after everything that is checked and told before one starts.

    Parameters
    ----------
    pipeline : Pipeline
        What it is to run.
    file : Path
        The pipeline's file.
    redis, broker : str, optional
        What ``--redis`` and ``--broker`` say; the environment and the file say it otherwise.
    limits : EngineLimits, optional
        How much is held at once.
    group_instance_id : str, optional
        Name by which the group knows this worker again after a restart; none where it is empty.
    always_asks : bool
        Whether a broker without logins is asked for the topics too. One with logins always is: aiokafka would try a
        wrong password again and again.

    Raises
    ------
    ModelStreamError
        If the worker would not work: something is wrong with the pipeline, a model, a topic, or the broker.
    """
    cache = cache_settings(pipeline.spec, redis, os.environ)
    built = pipeline.build(redis_url=cache.url if cache else None)
    spec = built.spec
    settings = BrokerSettings.resolve(option=broker, in_file=spec.broker, environ=os.environ)
    if always_asks or settings.has_login:
        counts = require_worker_topics(settings, spec, file)
        logger.info(
            "%s: %s[%s] -> %s on %s%s", spec.pipeline, spec.source.topic,
            counted(counts[spec.source.topic], "partition"), spec.sink.topic, settings.bootstrap,
            f" as {settings.principal}" if settings.has_login else "",
        )  # fmt: skip
    for model in built.models:
        for note in model.notes:
            logger.warning("model %s@%s: %s", model.name, model.version, note)
    for note in input_notes(spec):
        logger.warning("%s", note)
    if cache is not None:
        warn_if_away(cache)
    app = App(
        spec.pipeline, settings=settings, limits=limits_of(spec, limits), built=built,
        consumer_group_instance_id=group_instance_id or None,
    )  # fmt: skip
    add_pages(app)
    attach_agents(app, built)
    return app


def app_from_environment() -> App:
    """Return the app of the pipeline that ``MODELSTREAM_PIPELINE`` names.

    Raises
    ------
    ConfigError
        If the variable is not set, or the pipeline is wrong.
    """
    path = os.environ.get("MODELSTREAM_PIPELINE")
    if not path:
        raise ConfigError("MODELSTREAM_PIPELINE", "set it to the path of a pipeline file")
    # Faust's commands that only list something need no broker.
    return worker_app(
        load_pipeline(Path(path)), Path(path), group_instance_id=os.environ.get("MODELSTREAM_GROUP_INSTANCE_ID"),
        always_asks=False,
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    # Faust's command line looks for an attribute of this name; making the app needs the environment.
    if name == "app":
        try:
            globals()["app"] = found = app_from_environment()
        except ModelStreamError as error:
            # That command line is click's, which shows errors of its own without a traceback.
            raise click.UsageError(str(error)) from error
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
