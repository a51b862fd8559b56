"""What a worker commits in a transaction and when it commits nothing, on Apache Kafka: outputs and offsets in one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from support.kafka_tools import committed_offsets, read_all

from modelstream.streams.delivery import Output
from modelstream.streams.exactly_once import ExactlyOnce
from modelstream.streams.ledger import Ledger
from modelstream.streams.settings import BrokerSettings, EngineLimits
from modelstream.streams.transactions import TransactionalDelivery

pytestmark = pytest.mark.kafka

#: Long enough for a loaded machine, so that no transaction is aborted by Kafka; it looks only every 10 s, too.
TIMEOUT_S = 30


class BusyDelivery(TransactionalDelivery):
    """The way out, with outputs that come just when a transaction is committed, as from the data thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meanwhile: list[Output] = []

    def commit(self, *args: Any) -> None:
        while self.meanwhile:
            self.produce(self.meanwhile.pop(0))
        super().commit(*args)


class Worker:
    """A worker's transactions and its ledger; stands for the app and the consumer in what they are asked and told."""

    def __init__(self, bootstrap: str, source: str, sink: str) -> None:
        self.bootstrap, self.source, self.sink = bootstrap, source, sink
        self.group = source.replace("events", "group")
        self.ledger: Ledger[TP] = Ledger()
        #: After how long what was given up is to be read again.
        self.delays_s: list[float] = []
        config = {"bootstrap.servers": bootstrap, "group.id": self.group}
        app: Any = SimpleNamespace(
            settings=BrokerSettings(bootstrap),
            conf=SimpleNamespace(id=self.group),
            limits=EngineLimits(),
            transaction_timeout_s=TIMEOUT_S,
            should_stop=False,
            data_plane_config=lambda: config,
            consumer=self,
        )
        self.delivery = BusyDelivery(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": self.group,
                "transaction.timeout.ms": TIMEOUT_S * 1000,
                "message.timeout.ms": TIMEOUT_S * 1000,
            },
            max_rows=100,
        )
        self.exactly_once = ExactlyOnce(app, self.delivery)
        self._ends: dict[TP, int] = {}

    # -- what the consumer is told

    def give_up(self) -> int:
        self.ledger.assign({})
        return 1

    def read_again(self, epoch: int, delay_s: float) -> None:
        assert epoch == 1
        self.delays_s.append(delay_s)

    # -- what the worker does

    def assigned(self, generation: int = -1, member_id: str = "") -> None:
        """By default as a consumer that is in no group, which an empty group accepts."""
        self.exactly_once.assigned(generation, member_id, None)

    async def read(self, *partitions: int) -> None:
        """Begin to read, as at the end of a rebalance."""
        found = await self.exactly_once.begin_reading({TP(self.source, p) for p in partitions})
        self.ledger.assign(found)
        self._ends = {}
        await self.exactly_once.open()

    def output(self, value: bytes, partition: int = 0, end: int = 1) -> Output:
        """Take up a batch of one event that ends at an offset, and return its output."""
        tp = TP(self.source, partition)
        ticket = self.ledger.open(tp, end, 1, follows=self._ends.get(tp))
        self._ends[tp] = end
        self.delivery.begin(ticket)
        return Output(self.sink, [b"k"], [value], [(ticket, 1)])

    def produce(self, value: bytes, partition: int = 0, end: int = 1) -> None:
        self.delivery.produce(self.output(value, partition, end))

    async def commit(self) -> bool:
        return await self.exactly_once.commit()

    # -- what others see

    def seen(self) -> list[bytes | None]:
        return [record.value for record in read_all(self.bootstrap, self.sink, isolation="read_committed")]

    def committed(self) -> dict[int, int]:
        return committed_offsets(self.bootstrap, self.group, self.source)


@pytest.fixture
async def worker(kafka: Any, make_topics: Callable[..., list[str]]) -> AsyncIterator[Worker]:
    """Return a worker whose source has two partitions."""
    [source] = make_topics(kafka, "events", partitions=2)
    [sink] = make_topics(kafka, "out")
    worker = Worker(kafka.bootstrap, source, sink)
    worker.assigned()
    yield worker
    await worker.exactly_once.close()


async def test_outputs_are_committed_with_the_offsets_of_their_own_events(worker: Worker) -> None:
    await worker.read(0, 1)
    assert not await worker.commit()
    worker.produce(b"first", end=3)
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([b"first"], {0: 3})
    assert not await worker.commit()
    worker.produce(b"second", end=5)
    worker.produce(b"third", partition=1, end=2)
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([b"first", b"second", b"third"], {0: 5, 1: 2})
    assert worker.exactly_once.stats() == {"committed": 2, "aborted": 0, "open_rows": 0}


async def test_a_gap_is_committed_by_itself_and_an_output_that_comes_meanwhile_with_its_own_offset(
    worker: Worker,
) -> None:
    await worker.read(0)
    worker.ledger.pass_over(TP(worker.source, 0), 5, follows=None)
    worker.delivery.meanwhile.append(worker.output(b"meanwhile", end=6))
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([], {0: 5})
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([b"meanwhile"], {0: 6})


async def test_what_was_given_up_before_the_commit_is_never_seen(worker: Worker) -> None:
    await worker.read(0, 1)
    worker.produce(b"still ours")
    worker.produce(b"given up", partition=1)
    worker.ledger.drop([TP(worker.source, 1)])
    assert not await worker.commit()
    assert (worker.seen(), worker.committed()) == ([], {})
    assert worker.exactly_once.stats() == {"committed": 0, "aborted": 1, "open_rows": 0}
    await worker.read(0)
    worker.produce(b"read again")
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([b"read again"], {0: 1})
    assert worker.delays_s == []


async def test_what_was_read_by_a_member_that_is_gone_is_not_committed_in_the_name_of_the_next(worker: Worker) -> None:
    worker.assigned(1, "expelled")
    await worker.read(0)
    worker.produce(b"of the expelled")
    worker.assigned()
    assert not await worker.commit()
    assert (worker.seen(), worker.committed()) == ([], {})
    assert worker.delays_s == [EngineLimits().session_timeout_s]
    await worker.read(0)
    worker.produce(b"of the next")
    assert await worker.commit()
    assert (worker.seen(), worker.committed()) == ([b"of the next"], {0: 1})
    assert worker.exactly_once.stats() == {"committed": 1, "aborted": 1, "open_rows": 0}
