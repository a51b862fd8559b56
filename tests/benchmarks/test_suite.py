"""The suite without a broker: what it skips, and what it keeps of earlier measurements."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from benchmarks import suite
from click.testing import CliRunner


@pytest.mark.parametrize("section", ["latency", "scaling"])
def test_a_section_without_its_systems_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, section: str
) -> None:
    monkeypatch.setattr(suite, "open_cluster", lambda *_: nullcontext())
    options = ["--systems", "bare-ort", "--sections", section, "--out", str(tmp_path)]
    done = CliRunner().invoke(suite.main, options)
    assert done.exit_code == 0, done.output
    assert f"{section} is skipped: it is of loop and modelstream" in done.output
