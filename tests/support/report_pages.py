"""A report as a browser shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support.browser import Browser

__all__ = ["see_report"]

#: The colour of the plots' first line.
_LINE = np.array([0x25, 0x63, 0xB8], np.int16)


def see_report(browser: Browser, report: Path, stages: int = 1) -> str:
    """Return what is written in a replay's report, after its plots were looked for in the picture of the page.

    Parameters
    ----------
    browser : Browser
        Where to open it.
    report : Path
        The file.
    stages : int
        How many infer, each of which has two plots.
    """

    async def look(page: Any) -> Any:
        await page.open(report)
        boxes = await page.evaluate(
            "[...document.querySelectorAll('figure')].map(one => {"
            "const box = one.querySelector('.wide svg').getBoundingClientRect();"
            "return [one.id, box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY]})"
        )
        text = await page.evaluate("document.body.innerText")
        return boxes, text, await page.screenshot(), page.complaints

    boxes, text, picture, complaints = browser.run(look)
    assert complaints == []
    names = ["percentiles", "latency", "throughput", "lag", "cpu", "memory"]
    names += [f"{name}-{stage}" for stage in range(stages) for name in ("sizes", "reasons")]
    assert [box[0] for box in boxes] == [f"plot-{name}" for name in names]
    pixels = np.asarray(picture, np.int16)
    for name, left, top, right, bottom in boxes:
        part = pixels[int(top) : int(bottom), int(left) : int(right)]
        assert (np.abs(part - _LINE).max(axis=2) < 24).sum() > 100, name
    return str(text)
