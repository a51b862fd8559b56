"""A scaling run without a broker: how its workers end."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import scaling
from benchmarks.checks import Outputs
from benchmarks.measurement import Sample
from benchmarks.scaling import measure_scaling
from benchmarks.sending import Sent


def test_all_workers_are_told_to_end_before_one_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[str] = []
    names = iter(("first", "second"))

    def start(*_: object) -> Any:
        name = next(names)
        return SimpleNamespace(
            watch=None,
            sample=lambda _: Sample(0.0, 0, 1.0, 0),
            terminate=lambda: done.append(f"{name} told"),
            stop=lambda: done.append(f"{name} waited for"),
        )

    generator = SimpleNamespace(wait=lambda *_: Sent(start_s=0.0, late_ms=0.0, sent_per_s=1000.0))
    for name, stand_in in {
        "Worker": start,
        "generating": lambda *_, **__: nullcontext(generator),
        "wait_for_outputs": lambda *_: None,
        "check_outputs": lambda *_: Outputs(np.arange(100), np.arange(100)),
    }.items():
        monkeypatch.setattr(scaling, name, stand_in)
    bench: Any = SimpleNamespace(
        expected=np.zeros((100, 1), np.float32), prefix="p", command=lambda *_, **__: ([], tmp_path),
        cluster=SimpleNamespace(create_topic=lambda _: None, members=lambda _: 2, address=""),
        workload=SimpleNamespace(name="mlp-20"),
    )  # fmt: skip
    assert measure_scaling(bench, "loop", 1, 2, 100).events_per_s == 1000.0
    assert done == ["first told", "second told", "first waited for", "second waited for"]
