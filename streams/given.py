"""Values that are given in several places: which of them counts, and secrets out of files."""

from __future__ import annotations

from pathlib import Path

from modelstream.models.errors import ConfigError

__all__ = ["first_given", "read_secret"]


def first_given(*candidates: tuple[str, str | None]) -> tuple[str, str] | None:
    """Return the first candidate with a value, as (where it stands, value).

    Examples
    --------
    >>> first_given(("--redis", None), ("MODELSTREAM_REDIS", "redis://b"), ("redis", "redis://c"))
    ('MODELSTREAM_REDIS', 'redis://b')
    """
    return next(((path, value) for path, value in candidates if value), None)


def read_secret(variable: str, value: str | None, file: str | None) -> str | None:
    """Return a secret that an environment variable holds, or the file that ``VARIABLE_FILE`` names.

    Parameters
    ----------
    variable : str
        Name of the variable.
    value, file : str or None
        What the two variables hold.

    Raises
    ------
    ConfigError
        Both are set, or the file cannot be read or is empty.
    """
    if file is None:
        return value
    path = f"{variable}_FILE"
    if value is not None:
        raise ConfigError(path, f"is set, and {variable} too; set one of them")
    try:
        secret = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not secret:
        raise ConfigError(path, f"{file} is empty")
    return secret
