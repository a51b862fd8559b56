"""The report of a replay: all that was measured, in one file that any browser shows."""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from support.replay_results import make_result
from support.report_pages import PLOTS, look_at_plots

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.report import Origin, require_libraries, to_html, write_report
from modelstream.streams.replay.report_plots import replay_plots

ORIGIN = Origin(
    "modelstream replay p.yaml '<b>.ndjson' --redis rediss://me:geheim@host:1/0",
    "pipeline: <p>\nredis: redis://:geheim@host\n",
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>',
)


class Outline(HTMLParser):
    """What a test looks at: ids, addresses, and which elements are open at the end."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.scripts, self.open = [], [], 0, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id"]
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.scripts += tag == "script"
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and tag not in ("meta", "link", "img", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_one_file_without_scripts_whose_ids_are_its_own():
    outline = Outline(to_html(make_result(), ORIGIN))
    assert outline.open == []
    assert [name for name, n in Counter(outline.ids).items() if n > 1] == []
    assert [name for name in outline.ids if name.startswith("plot-")] == [f"plot-{name}" for name in PLOTS]
    assert {address.split(",")[0] for address in outline.addresses if address[0] != "#"} == {
        "data:", "data:image/svg+xml;base64",
    }  # fmt: skip
    assert {address[1:] for address in outline.addresses if address[0] == "#"} <= set(outline.ids)
    assert outline.scripts == 0


def test_what_others_wrote_is_text_and_passwords_are_left_out():
    text = to_html(make_result(file="<i>.ndjson", dead_letters=2), ORIGIN)
    assert "<i>" not in text
    assert "&lt;i&gt;.ndjson" in text
    assert "<b>" not in text
    assert "geheim" not in text
    assert "rediss://me:***@host:1/0" in text
    assert "2 dead letters." in text


def test_what_was_sent_and_not_answered_before_a_failure_stands_at_the_top():
    text = to_html(
        make_result(failure="the broker is away", events=3703, sent=12_000, unanswered=8297, missing=None), ORIGIN
    )
    first = text[text.index('id="headline"') :]
    assert re.search(r"Without an answer.*?8,297.*?of 12,000 sent, when it ended", first, re.DOTALL).end() < 300
    assert "12,000 events at 60x" in text
    assert re.search(r"Events sent</th><td>12,000<", text)


def test_what_was_not_measured_is_left_out_or_a_dash():
    text = to_html(
        make_result(
            p50_ms=None, p90_ms=None, p99_ms=None, p999_ms=None, max_ms=None, latency_curve=(), append_latency=None,
            consumer_latency=None, series=(), stages=(), missing=None, filtered=None, mean_batch=None,
            cpu_us_per_event=None, peak_rss_mb=None, workers=None, answers_per_s=None,
        ),
        Origin("c", "p"),
    )  # fmt: skip
    assert "plot-" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert '<dd class="value">–</dd>' in text


def test_an_offline_replay_says_first_that_it_is_none_that_was_measured():
    offline = make_result(latency_clock="virtual", append_latency=None, started_at=datetime.fromtimestamp(0, UTC))
    text = to_html(offline, ORIGIN)
    assert text.index("Computed, not measured.") < text.index('id="headline"')
    assert "20,000 events at 60x, offline, by a virtual clock" in text
    assert "from the intended time of the event to its prediction, both by the virtual clock." in text
    assert '<th scope="col">it was there, by the virtual clock</th>' in text
    for of_a_measurement in ("January 1970", "a consumer had", "Generator", "started for", "How it was measured"):
        assert of_a_measurement not in text


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [({"arrivals": "max", "speed": "max"}, "Steady rate", "1,995/s"), ({}, "Throughput", "1,990/s")],
)
def test_the_first_figure_is_the_steady_rate_at_full_speed_alone(changes, name, value):
    text = to_html(make_result(**changes), ORIGIN)
    assert re.search(r"<dt>(.*?)</dt><dd class=\"value\">(.*?)</dd>", text).groups() == (name, value)
    for rate in ("Steady rate", "Whole rate"):
        assert f'<th scope="row">{rate}</th>' in text


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
def test_a_library_that_is_not_there_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^--report: needs {name}: pip install 'modelstream\[report\]'"):
        require_libraries()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone/r\.html: cannot be written: No such file"):
        write_report(tmp_path / "gone" / "r.html", make_result(), ORIGIN)


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (375, "dark")])
def test_a_browser_shows_every_plot_and_has_nothing_to_complain_of(browser, tmp_path, width, scheme):
    file = tmp_path / "report.html"
    write_report(file, make_result(missing=1), ORIGIN)

    async def look(page):
        await page.open(file, width=width, scheme=scheme)
        shown = await look_at_plots(page)
        rows = await page.evaluate(
            "document.querySelectorAll('details').forEach(one => one.open = true),"
            "document.querySelectorAll('#plot-latency tbody tr').length"
        )
        scroll_width = await page.evaluate("document.documentElement.scrollWidth")
        return shown, rows, scroll_width, page.complaints, page.requests, await page.pdf()

    shown, rows, scroll_width, complaints, requests, pdf = browser.run(look)

    assert complaints == []
    assert {url.partition(":")[0] for url in requests} == {"file", "data"}
    assert scroll_width == width
    assert [plot.id for plot in shown] == [f"plot-{name}" for name in PLOTS]
    for plot in shown:
        assert plot.n_first_line(scheme) > 200, plot.id
        assert len(np.unique(plot.pixels.reshape(-1, 3), axis=0)) > 20, plot.id  # more than a box: text and lines
        assert plot.n_texts > 3, plot.id
        assert plot.pixels.shape[1] > 250, plot.id
    assert rows == len(make_result().series)
    assert pdf.startswith(b"%PDF")


def plots(**changes):
    return {plot.id: plot for plot in replay_plots(make_result(**changes))}


def test_sentences_speak_of_the_part_that_the_headline_speaks_of_and_plots_shade_the_rest():
    first, *others = make_result().series
    series = (first.model_copy(update={"p99_ms": 487.0}), *others)
    found = plots(series=series, warm_up=0.1)
    assert found["latency"].summary.startswith("After the warm-up, p99 of an interval was highest, 8.53")
    for name in ("latency", "throughput", "lag", "cpu", "memory"):
        assert ">warm-up</text>" in found[name].wide, name
        assert ">warm-up</text>" in found[name].narrow, name
    assert ">warm-up</text>" not in found["percentiles"].wide
    assert "The shaded part is the warm-up, 10 % of the events." in to_html(make_result(), ORIGIN)

    whole = plots(series=series, warm_up=0.0)
    assert whole["latency"].summary.startswith("p99 of an interval was highest, 487")
    assert ">warm-up</text>" not in whole["latency"].wide
    assert "The shaded part" not in to_html(make_result(warm_up=0.0), ORIGIN)
    assert plots(series=series[:1])["latency"].summary.startswith("In the warm-up, p99")


def test_the_axis_of_percentiles_says_what_it_shows():
    found = plots()["percentiles"]
    assert ">share of the predictions that were as fast or faster</text>" in found.wide
    assert ">share that was as fast</text>" in found.narrow
    assert found.summary.endswith("The axis is stretched to the right, where the slowest few are.")


def test_the_name_of_the_median_ends_beside_the_curve_that_rises():
    wide = next(plot for plot in replay_plots(make_result(p50_ms=2.5)) if plot.id == "percentiles").wide
    tick = re.search(r' x="([0-9.]+)"[^>]*>50 %</text>', wide)
    label = re.search(r"translate\(([0-9.]+) [0-9.]+\)\">2.5 ms</text>", wide)  # where it begins
    assert tick
    assert label
    assert float(label[1]) + 6 * len("2.5 ms") < float(tick[1])


def test_text_of_plots_has_a_halo():
    assert ".drawing text { paint-order: stroke; stroke: var(--card);" in to_html(make_result(), ORIGIN)
