"""Kinds of records that break what reads them, with what must come of each; the pipeline that they are sent to."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from onnx import helper
from support.kafka_tools import Outgoing
from support.onnx_factory import build, write_model
from support.streams import KnownStream

#: When the events are, by their own word.
AT_MS = 1_790_000_000_000

_PIPELINE = """\
pipeline: {s.group}
source: {{topic: {s.source}, event_id: id, event_time: at, max_record_bytes: 200000}}
stages:
  - id: check
    extract: checks:check
  - id: score
    infer: {{models: [triple, lookup, carrier]}}
sink: {{topic: {s.sink}, dead_letter: {s.dead}}}
"""

_CHECKS = """\
import numpy as np

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def deeper(n):
    return deeper(n + 1)

def check(batch):
    asked = {event.get("do") for event in batch.events}
    if "raise" in asked:
        raise RuntimeError("not this one")
    if "exit" in asked:
        raise SystemExit(3)
    if "recurse" in asked:
        deeper(0)
    if "out of memory" in asked:
        raise MemoryError
    if "mute" in asked:
        raise Mute
    if "wrong type" in asked:
        return None
    if "wrong rows" in asked:
        return {"more": np.zeros(len(batch) + 1)}
    return {}
"""


def good_event(event_id: str, **changed: object) -> bytes:
    """Return an event that the pipeline predicts; fields may be changed, or left out by ``...``."""
    event = {"id": event_id, "at": AT_MS, "seq": 1, "slot": 1, "carrier": "AA", **changed}
    return orjson.dumps({name: value for name, value in event.items() if value is not ...})


def write_pipeline(stream: KnownStream) -> None:
    """Make the stream's pipeline one that every kind can fail in."""
    folder = stream.folder
    write_model(folder / "models", "lookup", _lookup_model(), "[examples]\nslot = [0, 1, 2]\n")
    write_model(folder / "models", "carrier", _carrier_model(), '[examples]\ncarrier = ["AA", "UA"]\n')
    Path(folder / "checks.py").write_text(_CHECKS, encoding="utf-8")
    stream.file.write_text(_PIPELINE.format(s=stream), encoding="utf-8")


def _lookup_model() -> bytes:
    """Return a model that fails for a whole batch if one row's slot is out of its table."""
    return build(
        [helper.make_node("Gather", ["table", "slot"], ["value"])],
        {"slot": ("int64", [None, 1])},
        {"value": ("float32", [None, 1])},
        {"table": np.arange(10, dtype=np.float32)},
    ).SerializeToString()


def _carrier_model() -> bytes:
    """Return a model that fails for a whole batch if one row's carrier is none that it knows."""
    encoder = helper.make_node(
        "OneHotEncoder", ["carrier"], ["one_hot"], domain="ai.onnx.ml", cats_strings=["AA", "DL", "UA"], zeros=0
    )
    return build(
        [encoder, helper.make_node("Reshape", ["one_hot", "shape"], ["value"])],
        {"carrier": ("string", [None, 1])},
        {"value": ("float32", [None, 3])},
        {"shape": np.array([-1, 3], np.int64)},
    ).SerializeToString()


class Poison(NamedTuple):
    """A kind of broken record.

    Parameters
    ----------
    value : callable
        Makes the value, of a number that tells it from others of its kind.
    stage, reason : str
        What its dead letter must say.
    key : callable, optional
        Makes the key.
    headers : tuple
        What stands in its headers.
    """

    value: Callable[[int], bytes | None]
    stage: str
    reason: str
    key: Callable[[int], bytes | None] = lambda n: b"broken-%d" % n
    headers: tuple[tuple[str, bytes], ...] = ()

    def record(self, number: int, partition: int | None = None) -> Outgoing:
        """Return the record."""
        return Outgoing(self.value(number), self.key(number), partition, headers=self.headers)


def _changed(**fields: object) -> Callable[[int], bytes]:
    return lambda n: good_event(f"broken-{n}", **fields)


def _literal(field: bytes) -> Callable[[int], bytes]:
    """Make events with a field as no JSON library would write it."""
    return lambda n: good_event(f"broken-{n}")[:-1] + b"," + field + b"}"


def _gzip(n: int) -> bytes:
    return gzip.compress(good_event(f"broken-{n}"), mtime=0)


_BOMB = gzip.compress(bytes(50_000_000), mtime=0)
_MANY_HEADERS = tuple((f"header-{i}", b"\xff%d" % i) for i in range(1000))

#: What no decoder makes an event of.
_UNDECODABLE: dict[str, Callable[[int], bytes | None]] = {
    "null value": lambda n: None,
    "empty value": lambda n: b"",
    "white space": lambda n: b" \r\n\t",
    "invalid UTF-8": lambda n: b'{"id": "\xff\xfe%d"}' % n,
    "UTF-16": lambda n: f'{{"id": "broken-{n}"}}'.encode("utf-16"),
    "byte order mark": lambda n: b"\xef\xbb\xbf" + good_event(f"broken-{n}"),
    "truncated": lambda n: good_event(f"broken-{n}")[:-9],
    "two in one": lambda n: good_event(f"broken-{n}") + good_event(f"broken-{n}"),
    "scalar": lambda n: b"%d" % n,
    "array": lambda n: b"[%d]" % n,
    "HTML": lambda n: b"<html>%d</html>" % n,
    "NaN": _literal(b'"y": NaN'),
    "Infinity as time": _literal(b'"at": Infinity'),
    "raw NUL": lambda n: b'{"id": "broken\x00%d"}' % n,
    "lone surrogate": lambda n: b'{"id": "\\ud800%d"}' % n,
    "schema registry's magic byte": lambda n: b"\0\0\0\0\x01" + good_event(f"broken-{n}"),
    "MessagePack": lambda n: b"\x82\xa2id\xa1x\xa3seq\xcd" + n.to_bytes(2, "big"),
    "gzip": _gzip,
    "gzip, corrupt": lambda n: _gzip(n)[:-9] + b"%d" % n,
    "gzip bomb": lambda n: _BOMB,
}

_AT_SOURCE: dict[str, Poison] = {
    **{kind: Poison(value, "source", "undecodable") for kind, value in _UNDECODABLE.items()},
    "too large": Poison(_changed(padding="x" * 200_000), "source", "too_large"),
    "10,000 lists deep": Poison(lambda n: b"[" * 10_000 + b"]" * 10_000, "source", "too_deep"),
    "10,000 objects deep": Poison(_literal(b'"a":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "source", "too_deep"),
    "beyond float64": Poison(_literal(b'"y": 1e999'), "source", "non_finite"),
    "no fields": Poison(lambda n: b"{}", "source", "missing_field"),
    "no id": Poison(_changed(id=...), "source", "missing_field"),
    "id null": Poison(_changed(id=None), "source", "missing_field"),
    "id beyond 64 bits": Poison(_literal(b'"id": 1180591620717411303424'), "source", "wrong_type"),
    "id an object": Poison(_changed(id={"a": 1}), "source", "wrong_type"),
    "no time": Poison(_changed(at=...), "source", "missing_field"),
    "time before the year 1": Poison(_changed(at=-(10**15)), "source", "wrong_type"),
    "time after the year 9999": Poison(_changed(at=1e300), "source", "wrong_type"),
    "time in words": Poison(_changed(at="yesterday"), "source", "wrong_type"),
    "null key": Poison(lambda n: b"{%d" % n, "source", "undecodable", key=lambda n: None),
    "64 kB key": Poison(lambda n: b"{%d" % n, "source", "undecodable", key=lambda n: b"%d" % n * 32_000),
    "key no UTF-8": Poison(lambda n: b"{%d" % n, "source", "undecodable", key=lambda n: b"\xff\0%d" % n),
    "1000 headers, no UTF-8": Poison(lambda n: b"{%d" % n, "source", "undecodable", headers=_MANY_HEADERS),
    "the engine's own headers": Poison(
        lambda n: b"{%d" % n, "source", "undecodable", headers=(("modelstream.attempts", b"many"),)
    ),
}

_AT_STAGES: dict[str, Poison] = {
    "wrong type": Poison(_changed(seq="one"), "score", "wrong_type"),
    "10,000 numbers for one": Poison(_changed(seq=list(range(10_000))), "score", "wrong_type"),
    "integer beyond int64": Poison(_literal(b'"slot": 9223372036854775808'), "score", "wrong_type"),
    "fraction for an integer": Poison(_changed(slot=1.5), "score", "wrong_type"),
    "missing field": Poison(_changed(seq=...), "score", "missing_field"),
    "beyond float32": Poison(_changed(seq=1e200), "score", "non_finite"),
    "function raises": Poison(_changed(do="raise"), "check", "operator_failed"),
    "function exits": Poison(_changed(do="exit"), "check", "operator_failed"),
    "function recurses without end": Poison(_changed(do="recurse"), "check", "operator_failed"),
    "function has no memory": Poison(_changed(do="out of memory"), "check", "operator_failed"),
    "function's exception raises": Poison(_changed(do="mute"), "check", "operator_failed"),
    "function returns nothing": Poison(_changed(do="wrong type"), "check", "operator_failed"),
    "function returns another number of rows": Poison(_changed(do="wrong rows"), "check", "operator_failed"),
    "model fails": Poison(_changed(slot=99), "score", "model_failed"),
    "category that the model has not seen": Poison(_changed(carrier="ZZ"), "score", "model_failed"),
}

#: What becomes a dead letter.
KINDS: dict[str, Poison] = {**_AT_SOURCE, **_AT_STAGES}

#: What looks broken and has a prediction: how the event is, and what its answer is, as ``3·seq + 1``. Why each is
#: right stands in `docs/dead-letters.md`.
ACCEPTED: dict[str, tuple[Callable[[str], bytes], float]] = {
    "duplicate keys": (lambda i: good_event(i)[:-1] + b',"seq":2}', 7),
    "unknown field": (lambda i: good_event(i, more={"a": [1]}), 4),
    "unknown field, 1,000 deep": (lambda i: good_event(i)[:-1] + b',"a":' + b"[" * 1000 + b"]" * 1000 + b"}", 4),
    "integer beyond 64 bits for a float": (lambda i: good_event(i)[:-1] + b',"seq":36893488147419103232}', 3 * 2.0**65),
    "NUL in a text": (lambda i: good_event(i, note="a\0b"), 4),
    "truth value for a number": (lambda i: good_event(i, seq=True), 4),
    "time before 1970": (lambda i: good_event(i, at=-1), 4),
    "time at the end of the year 9999": (lambda i: good_event(i, at="9999-12-31T23:59:59.999Z"), 4),
}


#: Broken MessagePack, with the stage and reason of its dead letter; a good event is ``{"id": …, "seq": …}``.
MSGPACK_KINDS: dict[str, tuple[bytes | None, str, str]] = {
    "null value": (None, "source", "undecodable"),
    "empty value": (b"", "source", "undecodable"),
    "the byte that is never used": (b"\xc1", "source", "undecodable"),
    "truncated": (b"\x82\xa2id\xa1x\xa3seq", "source", "undecodable"),
    "two in one": (b"\x80\x80", "source", "undecodable"),
    "JSON": (b'{"id": "x", "seq": 1}', "source", "undecodable"),
    "scalar": (b"\x05", "source", "undecodable"),
    "array": (b"\x91\x01", "source", "undecodable"),
    "key a number": (b"\x81\x01\x02", "source", "undecodable"),
    "key binary": (b"\x81\xc4\x02id\xa1x", "source", "undecodable"),
    "key a list": (b"\x81\x91\x01\x02", "source", "undecodable"),
    "invalid UTF-8": (b"\x82\xa2id\xa1\xff\xa3seq\x01", "source", "undecodable"),
    "surrogate": (b"\x82\xa2id\xa3\xed\xa0\x80\xa3seq\x01", "source", "undecodable"),
    "extension": (b"\x82\xa2id\xa1x\xa3seq\xd4\x05\x00", "source", "undecodable"),
    "array of 4 G": (b"\xdd\xff\xff\xff\xff", "source", "undecodable"),
    "map of 4 G": (b"\xdf\xff\xff\xff\xff", "source", "undecodable"),
    "text of 4 GB": (b"\x81\xa2id\xdb\xff\xff\xff\xff", "source", "undecodable"),
    "5,000 deep": (b"\x82\xa2id\xa1x\xa3seq" + b"\x91" * 5_000 + b"\x01", "source", "too_deep"),
    "binary id": (b"\x82\xa2id\xc4\x01x\xa3seq\x01", "source", "wrong_type"),
    "NaN": (b"\x82\xa2id\xa1x\xa3seq\xca\x7f\xc0\x00\x00", "score", "non_finite"),
    "infinity": (b"\x82\xa2id\xa1x\xa3seq\xca\x7f\x80\x00\x00", "score", "non_finite"),
    "binary number": (b"\x82\xa2id\xa1x\xa3seq\xc4\x011", "score", "wrong_type"),
}

#: Broken vectors of three numbers.
F32_KINDS: dict[str, tuple[bytes | None, str, str]] = {
    "null value": (None, "source", "undecodable"),
    "empty value": (b"", "source", "undecodable"),
    "a byte short": (bytes(11), "source", "undecodable"),
    "a number more": (bytes(16), "source", "undecodable"),
    "JSON": (b"[1, 2, 3]", "source", "undecodable"),
    "NaN": (np.array([1, np.nan, 3], "<f4").tobytes(), "source", "non_finite"),
    "infinity": (np.array([1, 2, -np.inf], "<f4").tobytes(), "source", "non_finite"),
}
