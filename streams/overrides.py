"""``--set key=value``: single values of the pipeline file from the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.streams.stage_spec import KINDS
from modelstream.streams.yaml_file import describe, parse_yaml

__all__ = ["apply_overrides"]

_STEP = re.compile(r"(?:^|\.)([^.\[\]=\s]+)|\[(\d+)\]")


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a pipeline's data with single values set; the given data stays as it is.

    Parameters
    ----------
    raw : dict
        What the pipeline file holds.
    overrides : iterable of str
        ``PATH=VALUE``, the path as errors write it, the value in YAML. Mappings on the way are made where missing;
        entries of a list must be there. Later ones win.

    Raises
    ------
    ConfigError
        An override is malformed or leads nowhere. Whether its key is known is for the pipeline's own checks.

    Examples
    --------
    >>> apply_overrides({"stages": [{"id": "a"}]}, ["stages[0].infer.batch.max_size=64", "sink.topic=out"])
    {'stages': [{'id': 'a', 'infer': {'batch': {'max_size': 64}}}], 'sink': {'topic': 'out'}}
    """
    result = copy.deepcopy(raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}", "must be KEY=VALUE, such as sink.topic=predictions")
        _put(result, path, _steps(path), parse_yaml(text, f"--set {path}"))
    return result


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    end = 0
    while match := _STEP.match(path, end):
        steps.append(match.group(1) or int(match.group(2)))
        end = match.end()
    if end < len(path) or not steps or not isinstance(steps[0], str):
        raise ConfigError(f"--set {path}", "is no path; write it like stages[0].infer.batch.max_size")
    return steps


def _put(target: Any, path: str, steps: list[str | int], value: Any) -> None:
    so_far = ""
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if found := _misfit(target, step, so_far):
            raise ConfigError(f"--set {path}", found)
        so_far += f"[{step}]" if isinstance(step, int) else f".{step}" if so_far else step
        if following is None:
            target[step] = value
        elif isinstance(step, str) and target.get(step) is None:
            if not isinstance(following, str):
                raise ConfigError(f"--set {path}", f"there is no list {so_far!r}{did_you_mean(step, target)}")
            if other := _other_kind(target, step):
                raise ConfigError(f"--set {path}", f"there is no {so_far!r}: stage {target.get('id')!r} is of {other}")
            target[step] = {}
        target = target[step]


def _misfit(target: Any, step: str | int, so_far: str) -> str | None:
    """Return why there is no such step from here, or None."""
    if isinstance(step, str):
        if isinstance(target, list):
            return f"{so_far} is a list; name one of its entries, such as {so_far}[{step if step.isdecimal() else 0}]"
        return None if isinstance(target, dict) else f"{so_far} is not a mapping, but {describe(target)}"
    if not isinstance(target, list):
        return f"{so_far} is not a list, but {describe(target)}"
    if step >= len(target):
        return f"{so_far} has no [{step}]; its entries are counted from 0, and there are {len(target)}"
    return None


def _other_kind(stage: dict[str, Any], kind: str) -> str | None:
    """Return what a stage does, where that is something else than this; None where this is no kind of stage."""
    return next((other for other in KINDS if kind in KINDS and stage.get(other) is not None), None)
