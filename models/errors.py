"""The one tree of errors; every message is made here, so that it reads the same wherever it is raised.

::

    ModelStreamError
    ├── ConfigError                 wrong pipeline, option or registry entry; exit code 2
    ├── DecodeError                 a record that is not an event                   (permanent)
    ├── SchemaError                 an event that lacks a field, or has a wrong one (permanent)
    ├── OperatorError               a stage failed on these rows                    (permanent)
    ├── ModelError
    │   ├── ModelLoadError          a model that cannot serve; exit code 2
    │   └── InferenceError          a model that failed on these rows               (permanent)
    │       ├── InferenceTimeout    it took too long
    │       └── ModelUnavailable    it is left alone for now, since it failed on whole batches
    └── DependencyError             something outside is away                       (transient)
        ├── CacheUnavailable
        └── BrokerUnavailable       exit code 1
            └── BrokerRefused       waiting does not help: a login, a certificate or a right is missing

*Permanent* failures would fail again: the row goes to the dead-letter topic. *Transient* ones are retried, and
end the worker when the retries are used up; nothing is committed past them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BrokerRefused",
    "BrokerUnavailable",
    "CacheUnavailable",
    "ConfigError",
    "DecodeError",
    "DependencyError",
    "InferenceError",
    "InferenceTimeout",
    "ModelError",
    "ModelLoadError",
    "ModelStreamError",
    "ModelUnavailable",
    "OperatorError",
    "SchemaError",
    "did_you_mean",
]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the closest of the known words, or the empty string.

    Parameters
    ----------
    word : str
        What was written.
    known : iterable of str
        What could have been meant.

    Examples
    --------
    >>> did_you_mean("arrival_dely", ["arrival_delay", "air_time"])
    "; did you mean 'arrival_delay'?"
    >>> did_you_mean("x", ["arrival_delay"])
    ''
    """
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class ModelStreamError(Exception):
    """Base of everything this package raises on purpose."""

    #: A permanent failure ends in a dead letter, a transient one in a retry.
    permanent: bool = True


class ConfigError(ModelStreamError):
    """A pipeline, an option or an environment variable is wrong; raised before anything starts.

    Parameters
    ----------
    path : str
        Where the wrong value stands, as ``stages[1].infer.models[0]``; empty for the whole file.
    problem : str
        What is wrong and what to do about it.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}" if path else problem)


class DecodeError(ModelStreamError):
    """A record's bytes are not an event."""


class SchemaError(ModelStreamError):
    """An event lacks a field, or a field does not fit its declaration."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"field {field!r}: {problem}")


class OperatorError(ModelStreamError):
    """A stage cannot work on the rows that it was given.

    Parameters
    ----------
    step_id : str
        The stage, as named in the pipeline.
    problem : str
        What went wrong.
    """

    def __init__(self, step_id: str, problem: str) -> None:
        self.step_id = step_id
        self.problem = problem
        super().__init__(f"stage {step_id!r}: {problem}")


class ModelError(ModelStreamError):
    """Base of what can go wrong with one model version."""

    def __init__(self, name: str, version: str, problem: str) -> None:
        self.name = name
        self.version = version
        self.problem = problem
        super().__init__(f"model {name}@{version}: {problem}")


class ModelLoadError(ModelError):
    """A model version is broken, or does not keep its contract; it never served."""


class InferenceError(ModelError):
    """ONNX Runtime failed on these rows, or the result is not what the contract says."""


class InferenceTimeout(InferenceError):
    """A call of ONNX Runtime took longer than it may."""


class ModelUnavailable(InferenceError):
    """The model was not asked, since it has failed on whole batches; its rows are not looked at one by one."""


class DependencyError(ModelStreamError):
    """Something outside this process is away or too slow."""

    permanent = False


class CacheUnavailable(DependencyError):
    """Redis did not answer in time; the caller goes on without the cache."""


class BrokerUnavailable(DependencyError):
    """Kafka did not answer in time, or refused."""

    def __init__(self, bootstrap: str, problem: str) -> None:
        self.bootstrap = bootstrap
        self.problem = problem
        super().__init__(f"broker {bootstrap}: {problem}")


class BrokerRefused(BrokerUnavailable):
    """Kafka does not let us in, or not do what we ask; someone has to mend a setting or grant a right."""
