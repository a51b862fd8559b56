"""A thousand broken records among twenty thousand good ones: each a dead letter, no neighbour hurt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from onnx import helper
from support.kafka_tools import Outgoing, produce_all
from support.onnx_factory import build, write_model
from support.streams import KnownStream

pytestmark = pytest.mark.kafka

N_GOOD, N_BROKEN = 20_000, 1_000

_PIPELINE = """\
pipeline: {s.group}
source: {{topic: {s.source}, event_id: id, max_record_bytes: 2000}}
stages:
  - id: check
    extract: checks:check
  - id: score
    infer: {{models: [triple, lookup]}}
sink: {{topic: {s.sink}, dead_letter: {s.dead}}}
"""

_CHECKS = """\
def check(batch):
    seqs = [event.get("seq") for event in batch.events]
    if -1 in seqs:
        raise RuntimeError("no negative numbers here")
    if -2 in seqs:
        raise SystemExit(3)
    return {}
"""


def _event(n: int, **changed: object) -> bytes:
    return orjson.dumps({"id": f"broken-{n}", "seq": 1, "slot": 1, **changed})


#: What each kind of broken record is, and the stage and reason of its dead letter.
KINDS: dict[str, tuple[Callable[[int], bytes | None], str, str]] = {
    "null value": (lambda n: None, "source", "undecodable"),
    "empty value": (lambda n: b"", "source", "undecodable"),
    "invalid UTF-8": (lambda n: b'{"id": "\xff\xfe%d"}' % n, "source", "undecodable"),
    "truncated": (lambda n: _event(n)[:-9], "source", "undecodable"),
    "scalar": (lambda n: b"%d" % n, "source", "undecodable"),
    "array": (lambda n: b"[%d]" % n, "source", "undecodable"),
    "NaN": (lambda n: b'{"id": "broken-%d", "seq": NaN}' % n, "source", "undecodable"),
    "too large": (lambda n: _event(n, padding="x" * 3000), "source", "too_large"),
    "too deep": (lambda n: b"[" * 1500 + b"]" * 300, "source", "too_deep"),
    "no id": (lambda n: orjson.dumps({"seq": n, "slot": 1}), "source", "missing_field"),
    "wrong type": (lambda n: _event(n, seq="one"), "score", "wrong_type"),
    "missing field": (lambda n: orjson.dumps({"id": f"broken-{n}", "slot": 1}), "score", "missing_field"),
    "float32 overflow": (lambda n: _event(n, seq=1e200), "score", "non_finite"),
    "function raises": (lambda n: _event(n, seq=-1), "check", "operator_failed"),
    "function exits": (lambda n: _event(n, seq=-2), "check", "operator_failed"),
    "model fails": (lambda n: _event(n, slot=99), "score", "model_failed"),
}


def _lookup_model() -> bytes:
    """Return a model that fails for a whole batch if one row's slot is out of its table."""
    return build(
        [helper.make_node("Gather", ["table", "slot"], ["value"])],
        {"slot": ("int64", [None, 1])},
        {"value": ("float32", [None, 1])},
        {"table": np.arange(10, dtype=np.float32)},
    ).SerializeToString()


def test_broken_records_become_dead_letters_and_hurt_no_neighbour(make_stream: Callable[..., KnownStream]) -> None:
    stream = make_stream()
    write_model(stream.folder / "models", "lookup", _lookup_model(), "[examples]\nslot = [0, 1, 2]\n")
    (stream.folder / "checks.py").write_text(_CHECKS, encoding="utf-8")
    stream.file.write_text(_PIPELINE.format(s=stream), encoding="utf-8")
    kinds = [list(KINDS)[i % len(KINDS)] for i in range(N_BROKEN)]
    broken = [
        Outgoing(KINDS[kind][0](i), b"broken-key-%d" % i, headers=[("kind", kind.encode()), ("number", b"%d" % i)])
        for i, kind in enumerate(kinds)
    ]
    good = [Outgoing(_event(n, id=f"e{n}", seq=n, slot=n % 10), b"key-%d" % (n % 50)) for n in range(N_GOOD)]
    every = N_GOOD // N_BROKEN
    mixed = [record for i in range(N_BROKEN) for record in (*good[i * every : (i + 1) * every], broken[i])]
    produce_all(stream.bootstrap, stream.source, mixed)
    with stream.worker() as worker:
        stream.wait_until_committed(worker)
        stats = worker.stats()
        worker.stop()
    outcome = stream.outcome(range(N_GOOD))
    assert (len(outcome.predictions), len(outcome.lost), outcome.duplicates) == (N_GOOD, 0, 0)
    assert not outcome.wrong
    assert outcome.out_of_order == 0
    assert (stats["predictions"], stats["dead_letters"]) == (N_GOOD, N_BROKEN)

    found = Counter()
    for letter in outcome.dead_letters:
        headers = dict(letter.headers)
        kind, number = (headers[name] or b"" for name in ("kind", "number"))
        _, stage, reason = KINDS[kind.decode()]
        sent = broken[int(number)]
        assert (letter.key, letter.value) == (sent.key, sent.value)  # the original bytes
        assert (headers["modelstream.stage"], headers["modelstream.reason"]) == (stage.encode(), reason.encode()), kind
        assert headers["modelstream.topic"] == stream.source.encode()
        assert headers["modelstream.detail"]
        found[kind.decode()] += 1
    assert found == Counter(kinds)


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
