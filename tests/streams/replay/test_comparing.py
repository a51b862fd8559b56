"""Two versions over the same events: what differs is counted and named, and nothing else."""

from __future__ import annotations

import orjson
import pytest

from modelstream.streams.pipeline import load_pipeline
from modelstream.streams.replay.comparing import _Tally, compare
from modelstream.streams.replay.difference import Fate, Worst
from modelstream.streams.replay.report import Origin, difference_to_html, write_difference

EVENTS = [
    *({"id": f"e{i}", "tail": "N1", "at": i, "dep_delay": i, "distance": 2 * i, "hour": i % 24} for i in range(3000)),
    {"id": "late", "dep_delay": 1, "distance": 1, "hour": 23},
    {"id": "no delay"},
    {"id": "broken", "dep_delay": "x"},
]


def records(events=EVENTS):
    return [(None, event if isinstance(event, bytes) else orjson.dumps(event), -1) for event in events]


def built(file):
    return load_pipeline(file).build()


def by_name(difference):
    return {f"{one.model}.{one.field}": one for one in difference.fields}


def test_a_version_does_not_differ_from_itself(make_project):
    found = compare(built(make_project("a")), built(make_project("b")), records())
    assert found.is_equal
    fields = by_name(found)
    assert set(fields) == {"arrival_delay.value", "total.value"}
    assert {(one.compared, one.equal, one.differing, one.max_abs) for one in fields.values()} == {
        (found.compared, found.compared, 0, 0.0)
    }
    assert found.versions == {"arrival_delay": (["1"], ["1"]), "total": (["1"], ["1"])}
    assert found.events == len(EVENTS)
    assert sum(fate.count for fate in found.fates) == len(EVENTS)


def test_numbers_that_differ_are_counted_and_the_worst_are_named(make_project):
    a, b = built(make_project("a")), built(make_project("b", scale=2))
    found = compare(a, b, records(), names=("old", "new"), n_worst=2)
    one = by_name(found)["arrival_delay.value"]
    # 2 * scale * delay + 1: apart by twice the delay, equal only where there is none.
    predicted = [event["dep_delay"] for event in EVENTS[:3000] if event["hour"] < 22]
    assert (one.compared, one.differing, one.equal) == (len(predicted), len(predicted) - 1, 1)
    assert one.max_abs == 2 * max(predicted)
    assert one.mean_abs == pytest.approx(sum(2 * delay for delay in predicted) / len(predicted))
    assert [(worst.event_id, worst.difference) for worst in one.worst] == [
        (f"e{delay}", 2.0 * delay) for delay in sorted(predicted)[:-3:-1]
    ]
    assert sum(n for _, n in one.histogram) == one.differing
    assert by_name(found)["total.value"].differing == 0
    assert not found.is_equal
    assert by_name(compare(a, b, records(EVENTS[:5]), tolerance=4.0))["arrival_delay.value"].differing == 2


def test_versions_and_fates_that_differ_are_told(make_project):
    reject = 'daytime"}\n  - {id: x, rules: {reject: {"no": "dep_delay > 2989"}, fields: {dep_delay: float64}}'
    b = make_project("b")
    b.write_text(b.read_text().replace("total@1", "total@2").replace('daytime"', reject))
    a, b = built(make_project("a")), built(b)
    found = compare(a, b, records())
    assert found.versions["total"] == (["1"], ["2"])
    assert {(fate.a, fate.b) for fate in found.fates} >= {("predicted", "predicted"), ("predicted", "dead letter")}
    n_rejected = sum(event["dep_delay"] > 2989 and event["hour"] < 22 for event in EVENTS[:3000])
    assert Fate("predicted", "dead letter", n_rejected) in found.fates
    assert found.compared == sum(fate.count for fate in found.fates if (fate.a, fate.b) == ("predicted", "predicted"))
    assert not found.is_equal


def test_what_only_one_version_answers_is_not_kept(make_project, monkeypatch):
    held = []
    compared = _Tally.compare

    def watched(tally, *sides):
        compared(tally, *sides)
        held.append(max(len(side.predictions) + len(side.reasons) for side in sides))

    monkeypatch.setattr(_Tally, "compare", watched)
    # One version filters all that the other one predicts or rejects.
    b = make_project("b")
    b.write_text(b.read_text().replace("present: [dep_delay]", "present: [no_such_field]"))
    found = compare(built(make_project("a")), built(b), records())
    assert len(held) > 2
    assert max(held) == 0
    n_predicted = sum(event["hour"] < 22 for event in EVENTS[:3000])
    assert Fate("predicted", "filtered", n_predicted) in found.fates


def test_labels_are_a_table_of_what_became_what(make_project):
    rule = "rules: {fields: {dep_delay: float64}, outputs: {alert: {level: \"'%s' if dep_delay > %d else 'low'\"}}}"

    def with_rule(name, *parts):
        file = make_project(name)
        file.write_text(file.read_text().replace("sink:", f"  - {{id: alert, {rule % parts}}}\nsink:"))
        return built(file)

    found = compare(with_rule("a", "high", 1000), with_rule("b", "high", 1500), records(), n_worst=1)
    one = by_name(found)["alert.level"]
    flips = {(flip.a, flip.b): flip.count for flip in one.flips}
    assert flips.keys() == {("low", "low"), ("high", "high"), ("high", "low")}
    assert (
        flips["high", "low"]
        == one.differing
        == sum(1000 < e["dep_delay"] <= 1500 and e["hour"] < 22 for e in EVENTS[:3000])
    )
    assert (one.max_abs, one.histogram) == (None, [])
    assert one.worst == [Worst(1001, "e1001", "high", "low", None)]
    told = orjson.loads(found.to_json())
    assert {field["field"]: field["differing"] for field in told["fields"]}["level"] == one.differing


def test_the_report_shows_it_in_a_browser(make_project, browser, tmp_path):
    found = compare(built(make_project("a")), built(make_project("b", scale=2)), records(), names=("<a>", "b"))
    file = tmp_path / "difference.html"
    write_difference(file, found, Origin("modelstream replay", ""))
    assert "<a>" not in difference_to_html(found, Origin("c", "p"))

    async def look(page):
        await page.open(file, width=375)
        plots = await page.evaluate("document.querySelectorAll('figure').length")
        cells = await page.evaluate("document.querySelectorAll('#fields tbody tr').length")
        return plots, cells, await page.evaluate("document.documentElement.scrollWidth"), page.complaints

    assert browser.run(look) == (1, 2, 375, [])
