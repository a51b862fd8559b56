"""How long a partition may stand still: longer than anything takes that a pipeline has been told to wait for."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.onnx_factory import affine, write_model

from modelstream import Pipeline, infer
from modelstream.streams.app import create_app
from modelstream.streams.settings import BrokerSettings, EngineLimits


@pytest.mark.parametrize(
    ("options", "timeout_ms", "limit_s"),
    [
        ({}, None, 5),
        ({}, 10_000, 30),
        ({"delivery": "exactly_once", "transaction_interval_ms": 100}, None, 5),
        # Rows are finished at the commit: an open transaction looks like no progress.
        ({"delivery": "exactly_once", "transaction_interval_ms": 30_000}, None, 90),
    ],
)
def test_the_limit_is_three_times_the_longest_wait(tmp_path: Path, options, timeout_ms, limit_s):
    write_model(tmp_path / "models", "m", affine([1.0]), '[inputs.x]\nfields = ["x"]\n')
    step = infer(["m"]) if timeout_ms is None else infer(["m"], timeout_ms=timeout_ms)
    built = Pipeline("p", {"topic": "in"}, folder=tmp_path, **options).then("score", step).to("out").build()
    app = create_app(built, BrokerSettings("127.0.0.1:1"), EngineLimits(stall_timeout_s=5))
    assert app.stall_limit_s == limit_s
