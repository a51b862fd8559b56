"""Broken records among good ones: each a dead letter with its bytes, key and headers, and no neighbour hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import orjson
import pytest
from confluent_kafka import Producer
from support.kafka_tools import Incoming, Outgoing, produce_all, read_all
from support.onnx_factory import affine, write_model
from support.poison import ACCEPTED, F32_KINDS, KINDS, MSGPACK_KINDS, good_event, write_pipeline
from support.streams import KnownStream, wait_for

from modelstream.streams.headers import split_own

pytestmark = pytest.mark.kafka


def good(numbers: Iterable[int], partition: int | None = None) -> list[Outgoing]:
    return [
        Outgoing(good_event(f"e{n}", seq=n, slot=n % 10), b"key-%d" % (n % 50), partition, headers=[("n", b"%d" % n)])
        for n in numbers
    ]


class Sent:
    """Broken records that were sent, to be found again among the dead letters."""

    def __init__(self) -> None:
        self._kinds: list[str] = []

    def record(self, kind: str, partition: int | None = None) -> Outgoing:
        number = len(self._kinds)
        self._kinds.append(kind)
        record = KINDS[kind].record(number, partition)
        return record._replace(headers=[*record.headers, ("number", b"%d" % number)])

    def __len__(self) -> int:
        return len(self._kinds)

    def assert_are(self, letters: list[Incoming], source: str) -> None:
        """Assert that these letters are those of the records: one each, and each the whole record."""
        numbers = []
        for letter in letters:
            said, headers = split_own(letter.headers)
            numbers.append(int(dict(headers)["number"] or b""))
            kind = KINDS[self._kinds[numbers[-1]]]
            due = kind.record(numbers[-1])
            due_headers = [*split_own(due.headers)[1], ("number", b"%d" % numbers[-1])]
            assert (letter.key, letter.value, headers) == (due.key, due.value, due_headers), kind
            assert (said["stage"], said["reason"]) == (kind.stage.encode(), kind.reason.encode()), (kind, said)
            assert (said["topic"], said["attempts"]) == (source.encode(), b"1")
            assert said["detail"]
        assert sorted(numbers) == list(range(len(self._kinds)))


def assert_all_predicted(stream: KnownStream, n_good: int) -> list[Incoming]:
    """Assert that each good event has its prediction; return the dead letters."""
    outcome = stream.outcome(range(n_good))
    assert (len(outcome.predictions), len(outcome.lost), outcome.duplicates) == (n_good, 0, 0)
    assert not outcome.wrong
    assert outcome.out_of_order == 0
    return outcome.dead_letters


def test_each_kind_alone_among_63_good_events(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    write_pipeline(stream)
    sent = Sent()
    with stream.worker() as worker:
        worker.wait_until_ready()
        for i, kind in enumerate(KINDS):
            neighbours = good(range(63 * i, 63 * (i + 1)))
            produce_all(stream.bootstrap, stream.source, [*neighbours[:40], sent.record(kind), *neighbours[40:]])
            done = 63 * (i + 1), i + 1

            def counted(done: tuple[int, int] = done) -> bool:
                stats = worker.stats()
                return (stats.get("predictions"), stats.get("dead_letters")) == done

            wait_for(counted, f"63 predictions and a dead letter ({kind})", worker)
        worker.stop()
    sent.assert_are(assert_all_predicted(stream, 63 * len(KINDS)), stream.source)


def test_one_percent_of_broken_records_and_a_thousand_in_a_run(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    write_pipeline(stream)
    sent, names = Sent(), list(KINDS)
    mixed: list[Outgoing] = []
    for i in range(400):
        mixed += [*good(range(99 * i, 99 * (i + 1))), sent.record(names[i % len(names)])]
    run = [sent.record(names[i % len(names)], partition=1) for i in range(1_000)]
    n_good = 99 * 400 + 1_000
    produce_all(stream.bootstrap, stream.source, [*mixed, *run, *good(range(99 * 400, n_good))])
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        stats = worker.stats()
        worker.stop()
    assert (stats["predictions"], stats["dead_letters"]) == (n_good, len(sent)) == (40_600, 1_400)
    sent.assert_are(assert_all_predicted(stream, n_good), stream.source)


def test_what_looks_broken_and_is_not_is_predicted(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    write_pipeline(stream)
    odd = [
        Outgoing(good_event("null key"), None),
        Outgoing(good_event("empty key"), b""),
        Outgoing(good_event("64 kB key"), b"k" * 64_000),
        Outgoing(good_event("key no UTF-8"), b"\xff\0"),
        Outgoing(good_event("1000 headers"), b"k", headers=[(f"h{i}", b"\xff") for i in range(1000)]),
    ]
    events = [Outgoing(make(kind), b"k") for kind, (make, _) in ACCEPTED.items()]
    produce_all(stream.bootstrap, stream.source, [*events, *odd])
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert read_all(stream.bootstrap, stream.dead) == []
    records = [(record.key, orjson.loads(record.value or b"")) for record in read_all(stream.bootstrap, stream.sink)]
    found = {said["event_id"]: (key, said["predictions"]["triple"]["value"]) for key, said in records}
    due = {kind: (b"k", answer) for kind, (_, answer) in ACCEPTED.items()}
    due |= {orjson.loads(record.value or b"")["id"]: (record.key, 4) for record in odd}
    assert found == {kind: (key, pytest.approx(answer, rel=1e-6)) for kind, (key, answer) in due.items()}
    assert len(records) == len(due)


def test_records_that_are_small_only_while_compressed(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    write_pipeline(stream)
    stream.file.write_text(stream.file.read_text("utf-8").replace("200000", "3000000"), "utf-8")
    array = good_event("broken", seq=list(range(10)) * 100_000)  # 2 MB
    bomb = bytes(90_000_000)
    produce_all(stream.bootstrap, stream.source, good(range(50)))
    compressing = Producer({"bootstrap.servers": stream.bootstrap, "compression.type": "gzip",
                            "message.max.bytes": 100_000_000, "log_level": 0})  # fmt: skip
    for value in (array, bomb):
        compressing.produce(stream.source, value, b"k")
        assert compressing.flush(60) == 0
    produce_all(stream.bootstrap, stream.source, good(range(50, 100)))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    letters = {letter.headers[0]: letter for letter in assert_all_predicted(stream, 100)}
    for value, reason in ((array, b"wrong_type"), (bomb, b"too_large")):
        letter = letters.pop(("modelstream.reason", reason))
        assert split_own(letter.headers)[0]["truncated_from_bytes"] == b"%d" % len(value)
        assert value.startswith(letter.value or b"-")
    assert not letters


_FORMAT = """\
pipeline: {s.group}
source: {{topic: {s.source}, format: {form}}}
stages:
  - id: score
    infer: {{models: [{model}]}}
sink: {{topic: {s.sink}, dead_letter: {s.dead}}}
"""


@pytest.mark.parametrize(
    ("form", "model", "kinds", "good_value"),
    [
        ("msgpack, event_id: id", "triple", MSGPACK_KINDS, b"\x82\xa2id\xa1x\xa3seq\x01"),
        ("{f32: 3, field: features}", "total", F32_KINDS, np.array([1, 2, 3], "<f4").tobytes()),
    ],
    ids=["msgpack", "f32"],
)
def test_broken_records_of_other_formats(
    make_stream: Callable[..., KnownStream],
    form: str,
    model: str,
    kinds: dict[str, tuple[bytes | None, str, str]],
    good_value: bytes,
) -> None:
    stream = make_stream(partitions=1)
    write_model(stream.folder / "models", "total", affine([1.0, 1.0, 1.0]), '[inputs.x]\nfield = "features"\n')
    stream.file.write_text(_FORMAT.format(s=stream, form=form, model=model), "utf-8")
    records = []
    for kind, (value, _, _) in kinds.items():
        records += [*[Outgoing(good_value, b"k")] * 20, Outgoing(value, b"k", headers=[("kind", kind.encode())])]
    produce_all(stream.bootstrap, stream.source, records)
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    assert len(read_all(stream.bootstrap, stream.sink)) == 20 * len(kinds)
    found = {}
    for letter in read_all(stream.bootstrap, stream.dead):
        said, [(_, kind)] = split_own(letter.headers)
        found[(kind or b"").decode()] = (letter.value, said["stage"].decode(), said["reason"].decode())
    assert found == kinds


def test_a_record_that_fills_its_topic_fits_into_a_dead_letter(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    headers = [(f"header-{i}", b"x" * 500) for i in range(1000)]
    # The broker takes 1,048,588 bytes, this client 1,000,000.
    large = [
        Outgoing(b"x" * 990_000, b"k"),
        Outgoing(b"x" * 400_000, b"k" * 50_000, headers=headers),
        Outgoing(b"{", b"k" * 990_000),
        Outgoing(b"{", b"k" * 400_000, headers=headers),
    ]
    produce_all(stream.bootstrap, stream.source, large)
    stream.send(range(10))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    letters = assert_all_predicted(stream, 10)
    assert [split_own(letter.headers)[0]["reason"] for letter in letters] == [b"undecodable"] * 4


def test_a_dead_letter_says_where_its_record_stood(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream(partitions=1)
    stream.send(range(5))
    produce_all(stream.bootstrap, stream.source, [Outgoing(b"{", b"k", timestamp_ms=1_700_000_000_123)])
    stream.send(range(5, 9))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    [letter] = stream.outcome(range(9)).dead_letters
    headers = {name: (value or b"").decode() for name, value in letter.headers}
    assert headers["modelstream.partition"] == "0"
    assert headers["modelstream.offset"] == "5"
    assert headers["modelstream.timestamp_ms"] == "1700000000123"
    assert headers["modelstream.attempts"] == "1"


def test_a_prediction_too_large_for_kafka_is_a_dead_letter(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    stream.send(range(10))
    # The record fits, but its prediction holds the key twice: in the record's key and in its value.
    record, key = orjson.dumps({"id": "é" * 470_000, "seq": 3}), b"k" * 50_000
    produce_all(stream.bootstrap, stream.source, [Outgoing(record, key)])
    stream.send(range(10, 20))
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        worker.stop()
    outcome = stream.outcome(range(20))
    assert not outcome.lost
    assert outcome.predictions.total() == 20
    [letter] = outcome.dead_letters
    headers = dict(letter.headers)
    assert (headers["modelstream.stage"], headers["modelstream.reason"]) == (b"sink", b"too_large")
    assert headers["modelstream.truncated_from_bytes"] == b"%d" % len(record)
    assert record.startswith(letter.value or b"-")
