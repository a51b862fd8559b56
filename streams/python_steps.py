"""The parts of a pipeline built in Python: its source, and what its stages do, as the pipeline file would have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

__all__ = ["Source", "Step", "extract", "filter_events", "infer", "rules"]

#: What a stage does: the stage as in the pipeline file, less its id.
Step = Mapping[str, Any]


class Source(TypedDict, total=False):
    """``source`` of a pipeline built in Python: a plain dict, with its keys known to editors and type checkers."""

    topic: Required[str]
    format: str | Mapping[str, Any]
    key: str | None
    event_id: str | None
    event_time: str | None
    max_record_bytes: int
    max_depth: int
    on_gap: Literal["earliest", "latest", "fail"]
    priority: Mapping[str, str]


def extract(function: str | Callable[..., Any] | None = None, *, columns: Mapping[str, Any] | None = None) -> Step:
    """Return a step that makes columns of events.

    Parameters
    ----------
    function : str or callable
        Takes an `EventBatch`, returns a mapping of names to columns; as a name, ``module:function``.
    columns : mapping
        Instead of a function: columns by name, each a dtype or a mapping with ``from``, ``dtype``, ``width``,
        ``separator`` and ``default``, as in the pipeline file.

    Examples
    --------
    >>> extract("features:departure")
    {'extract': 'features:departure'}
    >>> extract(columns={"distance": "float32"})
    {'extract': {'columns': {'distance': 'float32'}}}
    """
    return {"extract": _either(function, columns, "extract", "columns")}


def filter_events(function: str | Callable[..., Any] | None = None, *, present: Sequence[str] | None = None) -> Step:
    """Return a step that takes events out by a business rule.

    Parameters
    ----------
    function : str or callable
        Takes an `EventBatch`, returns a boolean array, true for the rows to keep; as a name, ``module:function``.
    present : sequence of str
        Instead of a function: keep the events in which each of these fields is there and not null.

    Examples
    --------
    >>> filter_events(present=["dep_delay"])
    {'filter': {'present': ['dep_delay']}}
    """
    return {"filter": _either(function, present, "filter_events", "present")}


def rules(function: str | Callable[..., Any] | None = None, **keys: Any) -> Step:
    """Return a step of business logic.

    Parameters
    ----------
    function : str or callable
        Takes an `EventBatch` and changes it in place; as a name, ``module:function``.
    **keys : object
        Instead of a function: ``fields``, ``columns``, ``keep``, ``reject``, ``outputs``, as in the pipeline file.

    Examples
    --------
    >>> rules(keep="distance > 0")
    {'rules': {'keep': 'distance > 0'}}
    """
    if (function is None) == (not keys):
        raise TypeError("rules() takes either a function or keys such as keep=")
    return {"rules": keys if function is None else function}


def infer(
    models: Sequence[str | Mapping[str, Any]],
    *,
    max_size: int | None = None,
    target_p99_ms: float | None = None,
    cache_ttl_s: int | None = None,
    **keys: Any,
) -> Step:
    """Return a step that asks models.

    Parameters
    ----------
    models : sequence of str or mapping
        ``NAME``, or ``NAME@VERSION``, or a mapping as in the pipeline file.
    max_size : int, optional
        Rows that a model is called with at most; short for ``batch={"max_size": …}``.
    target_p99_ms : float, optional
        Milliseconds that an event may take, at the 99th percentile; short for ``batch={"target_p99_ms": …}``.
    cache_ttl_s : int, optional
        Seconds that answers are kept; short for ``cache={"ttl_s": …}``. Without a cache, none are.
    **keys : object
        ``batch``, ``cache``, ``ensembles``, ``cascades`` and the others, as in the pipeline file.

    Examples
    --------
    >>> infer(["arrival_delay"], max_size=256)
    {'infer': {'models': ['arrival_delay'], 'batch': {'max_size': 256}}}
    """
    short = {"max_size": max_size, "target_p99_ms": target_p99_ms}
    batch = {**keys.pop("batch", {}), **{key: value for key, value in short.items() if value is not None}}
    cache = {} if cache_ttl_s is None else {"cache": {**keys.pop("cache", {}), "ttl_s": cache_ttl_s}}
    return {"infer": {"models": models, **({"batch": batch} if batch else {}), **cache, **keys}}


def _either(function: object, declared: object, name: str, key: str) -> object:
    if (function is None) == (declared is None):
        raise TypeError(f"{name}() takes either a function or {key}=")
    return {key: declared} if function is None else function
