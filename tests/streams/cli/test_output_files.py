"""Files that commands write in the end: what stands in their way is told before the work."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.main import modelstream_group


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "p.yaml", "e.ndjson", "--json"],
        ["replay", "p.yaml", "--capture"],
        ["replay", "p.yaml", "e.ndjson", "--offline", "--save-costs"],
        ["replay", "p.yaml", "e.ndjson", "--report"],
        ["capacity", "p.yaml", "e.ndjson", "--json"],
        ["what-if", "p.yaml", "e.ndjson", "threads=1", "--rate", "1", "--json"],
        ["demo", "--json"],
        ["batch", "p.yaml", "e.ndjson", "o.ndjson", "--dead-letters"],
        ["graph", "p.yaml", "--output"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
def test_a_folder_that_is_not_there(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(modelstream_group, [*arguments, str(tmp_path / "nodir" / "out")])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"{arguments[-1]}: no folder {tmp_path / 'nodir'}"
