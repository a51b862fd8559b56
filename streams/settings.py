"""What is not the pipeline's business: where Kafka and Redis are, the secrets for them, and the engine's limits.

Each value is looked for in this order: the command-line option, the environment, the pipeline file. Secrets come from
the environment or from files only, and no ``repr`` shows them.

Usage::

    broker = BrokerSettings.resolve(option="kafka-1:9092,kafka-2:9092", in_file=spec.broker, environ=os.environ)
    redis = RedisSettings.resolve(option=None, in_file=spec.redis, environ=os.environ)
    limits = EngineLimits(linger_ms=5)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from modelstream.models.errors import ConfigError
from modelstream.streams.broker_settings import BrokerSettings, bootstrap_problem
from modelstream.streams.redis_settings import RedisSettings, redis_problem

__all__ = ["BrokerSettings", "EngineLimits", "RedisSettings", "bootstrap_problem", "redis_problem"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much the engine holds at once, and how long it waits.

    All are upper bounds or periods; each must be positive.

    Examples
    --------
    >>> EngineLimits(linger_ms=5).linger_ms
    5
    """

    #: Records of one fetch, over all partitions. A fetch takes what is there, so it is so large only under lag; then
    #: every batch pays for its hops between threads. With two partitions, of the throughput at 8,192: 0.9 at 4,096,
    #: 0.75 at 2,048 (measured).
    fetch_max_records: int = 8192
    #: Bytes of one fetch, as nearly as the size of the records before tells; one record comes whatever its size. Only
    #: records above 1 kB meet it. With 8.6 kB each, 70 MB a fetch otherwise, a worker takes 220 MB of memory, not 410,
    #: and as much CPU; bounds of 2 and 4 MB cost more (measured).
    fetch_max_bytes: int = 8 * 1024 * 1024
    #: Milliseconds a broker waits for data before it answers an empty fetch.
    fetch_wait_max_ms: int = 100
    #: Milliseconds from a fetch that took all there was to the next: what comes meanwhile becomes one batch. A batch
    #: costs as much as some 100 events, so at a low rate this is what the CPU depends on. An event alone is not kept.
    #: A stage's target for the latency shortens this, and `linger_ms`.
    gather_ms: float = 4
    #: Events between the fetch and the producer, over all partitions: two of the largest fetches, so that the data
    #: thread never idles.
    max_rows_in_flight: int = 16_384
    #: Bytes of raw records between the fetch and the producer; decoded events take about 10 times as much memory.
    max_bytes_in_flight: int = 32 * 1024 * 1024
    #: Records that the producer holds until the broker has them: about a second's worth, some 100 MB at the most.
    max_unsent_records: int = 200_000
    #: Bytes of one prediction record; a larger one becomes a dead letter. Kafka's default limit is 1 MiB.
    max_output_bytes: int = 1_000_000
    #: Seconds between commits. A killed worker repeats at most this much work plus what was in flight.
    commit_interval_s: float = 1.0
    #: Seconds to finish what is in flight at SIGTERM or revocation. With the last flush and commit it must stay below
    #: the 10 s after which Kubernetes and Compose kill.
    drain_timeout_s: float = 5.0
    #: Seconds a commit waits for the broker to confirm the outputs before it is left to the next commit.
    confirm_timeout_s: float = 2.0
    #: Seconds that an output may wait for the broker's confirmation before the worker gives up on it; Kafka's own
    #: default. The longest outage that a worker lives through.
    delivery_timeout_s: float = 120.0
    #: Seconds without progress on a partition that has something to read, after which it is read anew; after as long
    #: again the worker ends. More than a model may take for a batch.
    stall_timeout_s: float = 60.0
    #: Milliseconds until a transaction is committed, under exactly-once: what its consumers wait at the most. A commit
    #: takes some 10 ms, in which outputs are held.
    transaction_interval_ms: float = 100
    #: Rows at which a transaction is committed before that.
    max_transaction_rows: int = 100_000
    #: Seconds after which Kafka aborts the transaction of a worker that has died: how long its outputs hold up those
    #: who read only what is committed. Kafka Streams has the same.
    transaction_timeout_s: float = 10.0
    #: Milliseconds the producer gathers records, those of several batches too. Never 0: a produce request per few
    #: records starves the broker (p50 of 1.3 s at 20,000 events per second).
    linger_ms: float = 5
    #: Seconds without a heartbeat after which Kafka gives a worker's partitions away; Kafka's own minimum is 6.
    session_timeout_s: float = 6.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ConfigError(item.name, f"must be above 0, not {value}")
