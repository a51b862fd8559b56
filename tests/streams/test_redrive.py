"""Letters sent back: each once, in their order, to where they came from; and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from support.kafka_tools import Incoming, Outgoing, create_topic, delete_topics, produce_all
from support.letters import FIRST_MS, letter
from support.transactions import read_committed

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.dead_letter_reading import Letter, LetterFilter, Place, fetch_letters, is_marker, read_letters
from modelstream.streams.redrive import _CHUNK_BYTES, _CHUNK_LETTERS, Redriver, RedriveStopped, _stretches
from modelstream.streams.redrive_plan import plan_redrive
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka


class Topics:
    """A source topic and its dead letters."""

    def __init__(self, bootstrap: str, source: str, dead: str, partitions: int) -> None:
        self.settings = BrokerSettings(bootstrap)
        self.source, self.dead, self.partitions = source, dead, partitions

    def write(self, *letters: Outgoing) -> None:
        produce_all(self.settings.bootstrap, self.dead, letters)

    def letters(self, **options: Any) -> list[Letter]:
        return read_letters(self.settings, self.dead, **options)

    def redriver(self, **options: Any) -> Redriver:
        return Redriver(self.settings, self.dead, self.source, self.partitions, **options)

    def redrive(self, **options: Any) -> Redriver:
        with self.redriver(**options) as redriver:
            redriver.send(plan_redrive(self.letters(), self.source, max_attempts=5).send)
        return redriver

    def sent(self) -> list[Incoming]:
        return read_committed(self.settings.bootstrap, self.source)


@pytest.fixture
def make(kafka: Any, make_topics: Callable[..., list[str]]) -> Callable[..., Topics]:
    def make_pair(partitions: int = 2, **config: str) -> Topics:
        [source] = make_topics(kafka, "events", partitions=partitions, **config)
        [dead] = make_topics(kafka, "dead", partitions=partitions)
        return Topics(kafka.bootstrap, source, dead, partitions)

    return make_pair


def offsets(records: Iterable[Incoming], partition: int = 0) -> list[int]:
    return [int((record.value or b"")[5:-1]) for record in records if record.partition == partition]


@pytest.mark.parametrize("transactions", [True, False])
def test_a_redriven_record_is_the_original_with_where_it_was(make: Callable[..., Topics], transactions: bool) -> None:
    topics = make()
    headers = (("trace", b"\xff"), ("trace", b""))
    topics.write(letter(topics.source, 7, 1, key=b"\x80", value=b"\xff", headers=headers, attempts="2"))
    redriver = topics.redrive(transactions=transactions)
    assert (redriver.n_sent, redriver.left) == (1, {})
    [record] = topics.sent()
    assert (record.partition, record.key, record.value) == (1, b"\x80", b"\xff")
    [place] = [one.place for one in topics.letters(redriven=True)]
    assert record.headers == (
        *headers,
        ("modelstream.attempts", b"2"),
        ("modelstream.origin", f"{topics.source}/1/7".encode()),
        ("modelstream.redriven_from", f"{topics.dead}/{place}".encode()),
        ("modelstream.timestamp_ms", str(FIRST_MS + 7).encode()),
    )
    assert topics.letters() == []


@pytest.mark.parametrize(("key", "value"), [(None, b"{}"), (b"k", b""), (b"", b"x")])
def test_what_is_null_stays_null_and_what_is_empty_empty(
    make: Callable[..., Topics], key: bytes | None, value: bytes
) -> None:
    topics = make()
    topics.write(letter(topics.source, 1, key=key, value=value, headers=()))
    topics.redrive()
    assert [(record.key, record.value) for record in topics.sent()] == [(key, value)]


def test_a_tombstone_is_no_marker(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(letter(topics.source, 1, headers=())._replace(value=None))
    assert [one.reason for one in topics.letters()] == ["missing_field"]
    topics.redrive()
    assert [(record.key, record.value) for record in topics.sent()] == [(b"k", None)]


def test_letters_go_back_in_the_order_of_their_origin(make: Callable[..., Topics]) -> None:
    topics = make(partitions=3)
    # Written in reverse, all over the dead-letter topic; offset 4 failed again, as record 90.
    topics.write(*(letter(topics.source, n, n % 2, to_partition=n % 3) for n in range(60, 4, -1)))
    topics.write(letter(topics.source, 90, 0, value=b'{"n":4}', origin=f"{topics.source}/0/4"))
    topics.redrive()
    sent = topics.sent()
    assert offsets(sent, 0) == [4, *range(6, 61, 2)]
    assert offsets(sent, 1) == list(range(5, 61, 2))
    assert dict(sent[0].headers)["modelstream.origin"] == f"{topics.source}/0/4".encode()


def test_a_partition_that_is_no_more_is_left_to_the_key(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(*(letter(topics.source, n, 5, key=b"same") for n in range(10)))
    topics.redrive()
    [partition] = {record.partition for record in topics.sent()}
    assert offsets(topics.sent(), partition) == list(range(10))


@pytest.mark.parametrize("transactions", [True, False])
def test_each_letter_is_sent_once(make: Callable[..., Topics], transactions: bool) -> None:
    topics = make()
    topics.write(*(letter(topics.source, n) for n in range(1200)))  # several transactions
    with topics.redriver(transactions=transactions) as redriver:
        progress: list[int] = []
        redriver.send(topics.letters(wanted=LetterFilter(key=b"k"))[:700], progress.append)
    assert progress == [500, 700]
    assert [one.source.offset for one in topics.letters() if one.source] == list(range(700, 1200))
    topics.redrive(transactions=transactions)
    topics.redrive(transactions=transactions)
    assert offsets(topics.sent()) == list(range(1200))


def test_the_second_letter_of_a_record_is_settled_with_the_first(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(letter(topics.source, 1, to_partition=0))
    topics.redrive()
    topics.write(letter(topics.source, 1, to_partition=1))  # by a worker that had not heard that it was expelled
    assert topics.letters() == []
    topics.write(letter(topics.source, 1, timestamp_ms="5"))  # of a topic made anew, whose offsets began again
    assert len(topics.letters()) == 1


def test_an_event_that_failed_again_is_a_letter_of_its_own(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(letter(topics.source, 1))
    topics.redrive()
    topics.write(letter(topics.source, 8, attempts="2", origin=f"{topics.source}/0/1"))
    [found] = topics.letters()
    assert (found.attempts, found.origin) == (2, (topics.source, 0, 1))


def test_markers_are_no_letters(make: Callable[..., Topics]) -> None:
    topics = make(partitions=1)
    topics.write(letter(topics.source, 1))
    topics.redrive()
    records = read_committed(topics.settings.bootstrap, topics.dead)
    places = [Place(record.partition, record.offset) for record in records]
    found = fetch_letters(topics.settings, topics.dead, places)
    assert [is_marker(found[place]) for place in places] == [False, True]
    assert (records[1].key, records[1].value) == (None, None)


def test_places_without_a_record_are_left_out(make: Callable[..., Topics]) -> None:
    topics = make(partitions=1)
    topics.write(*(letter(topics.source, n) for n in range(5)))
    found = fetch_letters(topics.settings, topics.dead, [Place(0, 3), Place(0, 1), Place(0, 77)])
    assert sorted(found) == [Place(0, 1), Place(0, 3)]
    assert fetch_letters(topics.settings, topics.dead, []) == {}


@pytest.mark.parametrize("transactions", [True, False])
def test_what_the_broker_refuses_is_left_and_holds_nothing_up(make: Callable[..., Topics], transactions: bool) -> None:
    topics = make(max_message_bytes="5000")
    large = letter(topics.source, 3, value=b"x" * 6000)
    topics.write(letter(topics.source, 1), letter(topics.source, 2), large, letter(topics.source, 4))
    redriver = topics.redrive(transactions=transactions)
    assert redriver.n_sent == 3
    assert redriver.left == {"refused (Broker: Message size too large)": 1}
    assert offsets(topics.sent()) == [1, 2, 4]
    assert [one.source.offset for one in topics.letters() if one.source] == [3]


def test_a_second_redrive_shuts_the_first_one_out(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(*(letter(topics.source, n) for n in range(900)))
    with topics.redriver() as first:
        letters = topics.letters()
        first.send(letters[:500])
        topics.redrive()
        with pytest.raises(RedriveStopped, match=f"another redrive of {topics.dead} was started"):
            first.send(letters[500:])
    assert first.n_sent == 500
    assert offsets(topics.sent()) == list(range(900))


def test_an_interrupted_transaction_is_undone(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(*(letter(topics.source, n) for n in range(900)))

    def interrupt(n_sent: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), topics.redriver() as redriver:
        redriver.send(topics.letters(), interrupt)
    assert redriver.n_sent == 500
    topics.redrive()
    assert offsets(topics.sent()) == list(range(900))


def test_letters_that_are_gone_are_counted(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(letter(topics.source, 1))
    letters = topics.letters()
    delete_topics(topics.settings.bootstrap, [topics.dead])
    create_topic(topics.settings.bootstrap, topics.dead, 2)
    with topics.redriver() as redriver:
        redriver.send(letters)
    assert (redriver.n_sent, redriver.left) == (0, {"gone from the dead-letter topic": 1})


def test_a_source_topic_that_is_gone_is_one_clear_error(make: Callable[..., Topics]) -> None:
    topics = make()
    topics.write(letter(topics.source, 1))
    delete_topics(topics.settings.bootstrap, [topics.source])
    with pytest.raises(BrokerUnavailable, match="stopped after 0 letters"):
        topics.redrive()
    assert len(topics.letters()) == 1


@pytest.mark.embedded
def test_the_embedded_broker_will_do(embedded_broker: Any, make_topics: Callable[..., list[str]]) -> None:
    source, dead = make_topics(embedded_broker, "events", "dead", partitions=2)
    topics = Topics(embedded_broker.bootstrap, source, dead, 2)
    topics.write(*(letter(source, n, n % 2, to_partition=n % 2) for n in range(20)))
    topics.redrive()
    topics.redrive()
    assert offsets(topics.sent(), 0) == list(range(0, 20, 2))
    assert offsets(topics.sent(), 1) == list(range(1, 20, 2))


# Without a broker


@pytest.mark.parametrize(
    ("sizes", "stretches"),
    [
        ([3_000_000] * 3, [[0], [1], [2]]),
        ([2 * 1024 * 1024] * 5, [[0, 1], [2, 3], [4]]),
        ([9_000_000, 10, 10, 9_000_000], [[0], [1, 2], [3]]),
        ([10] * 501, [list(range(500)), [500]]),
        ([], []),
    ],
)
def test_a_transaction_has_so_many_letters_and_bytes_at_most(sizes: list[int], stretches: list[list[int]]) -> None:
    letters = [
        Letter(Place(0, i), 0, n_bytes, None, None, None, None, 1, None, ("events", 0, i))
        for i, n_bytes in enumerate(sizes)
    ]
    found = list(_stretches(letters, _CHUNK_LETTERS, _CHUNK_BYTES))
    assert [[one.place.offset for one in stretch] for stretch in found] == stretches


class Coordinator:
    """Stands in for a producer whose commits are not confirmed: no broker can be made to do that on purpose."""

    def __init__(self, *errors: KafkaError) -> None:
        self.errors = list(errors)
        self.n_commits = 0

    def commit_transaction(self, timeout_s: float) -> None:
        self.n_commits += 1
        if self.errors:
            raise KafkaException(self.errors.pop(0))


@pytest.mark.parametrize(
    ("retriable", "n_errors", "n_commits", "commits"),
    [(True, 1, 2, True), (True, 2, 3, True), (True, 3, 3, False), (False, 1, 1, False)],
)
def test_a_commit_that_was_not_confirmed_is_tried_again(
    retriable: bool, n_errors: int, n_commits: int, commits: bool
) -> None:
    redriver = Redriver(BrokerSettings("localhost:1"), "dead", "events", 1)
    error = KafkaError(KafkaError._TIMED_OUT, "not confirmed", retriable=retriable)
    redriver._producer = coordinator = Coordinator(*[error] * n_errors)
    redriver._in_transaction = True
    if commits:
        redriver._commit()
    else:
        with pytest.raises(KafkaException, match="not confirmed"):
            redriver._commit()
    assert coordinator.n_commits == n_commits
    assert redriver._in_transaction is not commits, "what is not committed is to be undone"
