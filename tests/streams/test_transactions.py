"""The states of a transaction, on Apache Kafka: what is seen of it, and how it goes on after each way to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from faust.types import TP
from support.kafka_tools import committed_offsets, read_all
from support.streams import wait_for
from support.transactions import records_behind_open_transactions

from modelstream.streams.delivery import Output
from modelstream.streams.group_metadata import group_metadata
from modelstream.streams.ledger import Ledger, Ticket
from modelstream.streams.transactions import TransactionalDelivery, TransactionFailed

pytestmark = pytest.mark.kafka

#: Long enough for a loaded machine, so that no transaction is aborted by Kafka; it looks only every 10 s, too.
TIMEOUT_MS = 30_000


class Case:
    """A producer with a source, an output topic and a group, and batches of one row to take up."""

    def __init__(self, bootstrap: str, source: str, sink: str, **config: Any) -> None:
        self.bootstrap, self.source, self.sink = bootstrap, source, sink
        self.group = source.replace("events", "group")
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.config = {
            "bootstrap.servers": bootstrap,
            "transactional.id": self.group,
            "transaction.timeout.ms": TIMEOUT_MS,
            "message.timeout.ms": TIMEOUT_MS,
            **settings,
        }
        self.full: list[int] = []
        self.delivery = TransactionalDelivery(self.config, max_rows=3, on_full=lambda: self.full.append(1))
        #: As a consumer that is in no group, which an empty group accepts.
        self.metadata = group_metadata(self.group, -1, "")
        self._ledger: Ledger[TP] = Ledger()
        self._ledger.assign({TP(source, 0): 0})
        self._end = 0

    def begin(self) -> Ticket:
        ticket = self._ledger.open(TP(self.source, 0), self._end + 1, 1, follows=self._end or None)
        self._end += 1
        self.delivery.begin(ticket)
        return ticket

    def produce(self, *values: bytes, topic: str | None = None) -> None:
        for value in values:
            self.delivery.produce(Output(topic or self.sink, [b"k"], [value], [(self.begin(), 1)]))

    def commit(self, offset: int, metadata: bytes | None = None) -> None:
        self.delivery.commit({TP(self.source, 0): offset}, metadata or self.metadata)
        # The broker has it then, and tells the partitions a moment later.
        wait_for(lambda: not records_behind_open_transactions(self.bootstrap, self.sink), "the end of the transaction")

    def start_again(self) -> None:
        """Go on after a failure, with one output."""
        self.delivery.reset()
        self.delivery.open()
        self.produce(b"again")
        self.delivery.cut()
        self.commit(2)

    def seen(self, isolation: str = "read_committed") -> list[bytes | None]:
        return [record.value for record in read_all(self.bootstrap, self.sink, isolation=isolation)]

    def committed(self) -> dict[int, int]:
        return committed_offsets(self.bootstrap, self.group, self.source)


@pytest.fixture
def make_case(kafka: Any, make_topics: Callable[..., list[str]]) -> Iterator[Callable[..., Case]]:
    """Make a case, its producer ready: ``make_case(linger_ms=5)``."""
    made: list[Case] = []

    def make(**config: Any) -> Case:
        case = Case(kafka.bootstrap, *make_topics(kafka, "events", "out"), **config)
        made.append(case)
        case.delivery.reset()
        return case

    yield make
    for case in made:
        case.delivery.close()


def test_outputs_and_offsets_are_there_together_or_not_at_all(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.produce(b"held until it opens")
    assert case.delivery.n_held == 1
    case.delivery.open()
    case.produce(b"taken at once")
    assert case.delivery.n_held == 0
    rows = case.delivery.cut()
    assert [(ticket.end_offset, n_rows) for ticket, n_rows in rows] == [(1, 1), (2, 1)]
    assert case.seen() == []
    case.commit(2)
    assert case.seen() == [b"held until it opens", b"taken at once"]
    assert case.committed() == {0: 2}


def test_what_comes_while_a_transaction_is_committed_is_in_the_next_one(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    case.produce(b"first")
    case.delivery.cut()
    case.produce(b"second")
    assert case.delivery.n_held == 1
    case.commit(1)
    assert case.seen("read_uncommitted") == [b"first"]
    case.delivery.open()
    assert len(case.delivery.cut()) == 1
    case.commit(2)
    assert case.seen() == [b"first", b"second"]


def test_without_rows_there_is_nothing_to_cut_and_the_transaction_goes_on(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    ticket = case.begin()
    assert case.delivery.cut() == []
    case.delivery.produce(Output(case.sink, [], [], [(ticket, 1)]))  # it was filtered
    assert case.delivery.cut() == [(ticket, 1)]
    case.commit(1)
    assert (case.seen(), case.committed()) == ([], {0: 1})


def test_offsets_without_rows_are_committed_alone_and_what_comes_meanwhile_is_held(
    make_case: Callable[..., Case],
) -> None:
    case = make_case()
    case.delivery.open()
    assert case.delivery.cut(even_empty=True) == []
    case.produce(b"meanwhile")
    case.commit(1)
    assert (case.seen("read_uncommitted"), case.committed()) == ([], {0: 1})
    case.delivery.open()
    assert len(case.delivery.cut()) == 1
    case.commit(2)
    assert (case.seen(), case.committed()) == ([b"meanwhile"], {0: 2})


def test_a_full_transaction_is_told_once(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    case.produce(b"1", b"2")
    assert not case.full
    case.produce(b"3", b"4")
    assert case.full == [1]
    case.delivery.cut()
    case.commit(4)
    case.delivery.open()
    case.produce(b"5", b"6", b"7")
    assert case.full == [1, 1]


def test_a_member_that_the_group_does_not_have_is_refused_and_its_outputs_are_never_seen(
    make_case: Callable[..., Case],
) -> None:
    case = make_case()
    case.delivery.open()
    case.produce(b"of a zombie")
    case.delivery.cut()
    with pytest.raises(TransactionFailed) as caught:
        case.commit(1, group_metadata(case.group, 1, "nobody"))
    assert (caught.value.is_expelled, caught.value.is_permanent) == (True, False)
    case.produce(b"too late")
    case.delivery.reset()
    assert case.delivery.n_held == 0
    case.delivery.open()
    case.produce(b"after it")
    case.delivery.cut()
    case.commit(3)
    assert case.seen() == [b"after it"]
    assert case.seen("read_uncommitted") == [b"of a zombie", b"after it"]
    assert case.committed() == {0: 3}


def test_it_is_known_whether_the_broker_fences(make_case: Callable[..., Case]) -> None:
    case = make_case()
    place = TP(case.source, 0)
    assert case.delivery.is_fencing(group_metadata(case.group, 1, "nobody"), place, 0)
    assert not case.delivery.is_fencing(case.metadata, place, 0)
    assert case.committed() == {}
    case.delivery.open()
    case.produce(b"1")
    case.delivery.cut()
    case.commit(1)
    assert case.seen() == [b"1"]


def test_a_producer_that_took_over_its_name_fences_it_and_it_starts_again(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    case.produce(b"of the first")
    hijacker = Producer({**case.config, "log_level": 0})
    hijacker.init_transactions(30)
    case.delivery.cut()
    with pytest.raises(TransactionFailed) as caught:
        case.commit(1)
    assert (caught.value.is_expelled, caught.value.is_permanent) == (False, False)
    case.start_again()
    assert case.seen() == [b"again"]


def test_a_producer_that_cannot_begin_a_transaction_is_replaced(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    case.delivery._producer.begin_transaction()  # a state that it does not know of
    case.produce(b"of the first")
    with pytest.raises(TransactionFailed):
        case.delivery.cut()
    case.start_again()
    assert case.seen() == [b"again"]


def test_an_output_that_is_refused_for_good_fails_the_transaction_and_is_named(
    make_case: Callable[..., Case], make_topics: Callable[..., list[str]], kafka: Any
) -> None:
    [narrow] = make_topics(kafka, "narrow", max_message_bytes="100")
    case = make_case()
    case.delivery.open()
    case.produce(b"x" * 1000, topic=narrow)
    case.produce(b"beside it")
    rows = case.delivery.cut()
    assert len(rows) == 2
    with pytest.raises(TransactionFailed, match=f"broker {kafka.bootstrap}: cannot produce to {narrow}: ") as caught:
        case.commit(2)
    assert caught.value.is_permanent
    with pytest.raises(TransactionFailed, match=narrow):  # and it stays so
        case.delivery.cut()
    case.delivery.reset()
    assert (case.seen(), case.committed()) == ([], {})
    assert case.delivery.cut() == []


def test_a_close_aborts_what_is_open_at_once(make_case: Callable[..., Case]) -> None:
    case = make_case()
    case.delivery.open()
    case.produce(b"open")
    case.delivery.cut()
    case.delivery._producer.flush(30)
    case.delivery.close()
    # Kafka would hold this one back behind an open transaction.
    other = Producer({"bootstrap.servers": case.bootstrap, "log_level": 0})
    other.produce(case.sink, b"behind it")
    assert other.flush(30) == 0
    assert case.seen() == [b"behind it"]


def test_a_broker_that_is_away_is_a_failure_that_may_pass() -> None:
    case = Case("127.0.0.1:1", "events", "out", transaction_timeout_ms=1_000, message_timeout_ms=1_000)
    for _ in range(2):
        with pytest.raises(TransactionFailed, match="cannot begin transactions") as caught:
            case.delivery.reset()
        assert (caught.value.is_expelled, caught.value.is_permanent) == (False, False)
