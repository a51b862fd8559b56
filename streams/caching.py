"""Which Redis a worker's caches use: there must be one where a stage has a cache, but it need not answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from modelstream.models.errors import CacheUnavailable, ConfigError
from modelstream.streams.settings import RedisSettings
from modelstream.streams.spec import PipelineSpec

__all__ = ["cache_settings", "warn_if_away", "what_is_wrong"]

logger = logging.getLogger(__name__)

#: Seconds that Redis may take at the start of a worker; more than later on, since nothing waits yet.
_START_TIMEOUT_S = 1.0


def cache_settings(spec: PipelineSpec, option: str | None, environ: Mapping[str, str]) -> RedisSettings | None:
    """Return where the pipeline's answers are kept, or None where no stage has a cache.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.
    option : str or None
        What ``--redis`` says.
    environ : mapping of str to str
        ``MODELSTREAM_REDIS``.

    Raises
    ------
    ConfigError
        If a stage has a cache and no Redis is named, or its URL is wrong.
    """
    settings = RedisSettings.resolve(option=option, in_file=spec.redis, environ=environ)
    cached = [f"stages[{i}].infer.cache" for i, stage in enumerate(spec.stages) if stage.infer and stage.infer.cache]
    if cached and settings is None:
        raise ConfigError(cached[0], "needs a Redis; name one with --redis, MODELSTREAM_REDIS, or redis in the file")
    return settings if cached else None


def warn_if_away(settings: RedisSettings) -> None:
    """Log a warning if Redis does not answer: the worker does without, and asks again now and then."""
    if (problem := what_is_wrong(settings)) is not None:
        logger.warning("Redis does not answer: %s; what memory does not know is computed until it does", problem)


def what_is_wrong(settings: RedisSettings) -> str | None:
    """Return why Redis does not answer; None where it does."""
    from modelstream.operators.redis_store import open_store

    store = open_store(settings.url, _START_TIMEOUT_S)
    try:
        store.ping()
    except CacheUnavailable as error:
        return str(error)
    finally:
        store.close()
    return None
