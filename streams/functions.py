"""A user's functions by name: ``module:function``, the modules next to the pipeline file before installed ones."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["FunctionResolver", "function_name"]


class FunctionResolver:
    """Finds functions for one build of one pipeline.

    A module next to the pipeline file is imported under a name of its own, so that two pipelines in one process may
    each have their ``features.py``. What such a module imports from the same folder is its own too; it must do so at
    its top, because the folder is on `sys.path` only during the import.

    Parameters
    ----------
    folder : Path
        Folder of the pipeline file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._prefix = f"_modelstream_{hashlib.sha256(str(self._folder).encode()).hexdigest()[:12]}_"
        self._loaded: set[str] = set()

    def resolve(self, function: str | Callable[..., Any], path: str) -> Callable[..., Any]:
        """Return a function by its name, or itself.

        Parameters
        ----------
        function : str or callable
            ``module:function``.
        path : str
            Where it stands in the pipeline, for errors.

        Raises
        ------
        ConfigError
            There is no such module or function, its import fails, or it cannot take one batch.
        """
        if isinstance(function, str):
            name, (module, _, attribute) = function, function.partition(":")
            found = self._attribute(self._module(module, path), module, attribute, path)
        else:
            name, found = getattr(function, "__qualname__", repr(function)), function
        if not callable(found):
            raise ConfigError(path, f"{name} is no function, but of type {type(found).__name__}")
        if inspect.iscoroutinefunction(found):
            raise ConfigError(path, f"{name} is asynchronous; it must be an ordinary function")
        _check_takes_one(found, name, path)
        resolved: Callable[..., Any] = found
        return resolved

    def _attribute(self, module: ModuleType, module_name: str, attribute: str, path: str) -> Any:
        try:
            return reduce(getattr, attribute.split("."), module)
        except AttributeError:
            known = [name for name in vars(module) if not name.startswith("_")]
            hint = did_you_mean(attribute, known)
            raise ConfigError(path, f"module {module_name!r} has no function {attribute!r}{hint}") from None

    def _module(self, name: str, path: str) -> ModuleType:
        try:
            with _import_path(self._folder):
                if not _is_local(self._folder, name):
                    return importlib.import_module(name)
                self._load_top(name.partition(".")[0])
                return importlib.import_module(self._prefix + name)
        # A user's module may raise anything at import, and may even try to end the process.
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{name}.".startswith(f"{missing}."):
                hint = did_you_mean(name, [file.stem for file in self._folder.glob("*.py")])
                problem = f"no module {name!r}, neither next to the pipeline file nor installed{hint}"
                raise ConfigError(path, problem) from None
            problem = f"importing {name!r} failed: {type(error).__name__}: {error}".rstrip(": ")
            raise ConfigError(path, problem.replace(self._prefix, "")) from error

    def _load_top(self, top: str) -> None:
        """Execute a module or package of the folder under its own name, once a build: files may have changed since."""
        if top in self._loaded:
            return
        own_name = self._prefix + top
        for stale in [key for key in sys.modules if f"{key}.".startswith(f"{own_name}.")]:
            del sys.modules[stale]
        spec = _spec_of(own_name, self._folder, top)
        module = importlib.util.module_from_spec(spec)
        sys.modules[own_name] = module
        try:
            if spec.loader is not None:
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[own_name]
            raise
        self._loaded.add(top)


def _is_local(folder: Path, name: str) -> bool:
    file = folder.joinpath(*name.split("."))
    return file.with_name(f"{file.name}.py").is_file() or (file / "__init__.py").is_file()


def _spec_of(name: str, folder: Path, top: str) -> ModuleSpec:
    location = next((file for file in (folder / top / "__init__.py", folder / f"{top}.py") if file.is_file()), None)
    found = location and importlib.util.spec_from_file_location(name, location)
    if found:
        return found
    spec = ModuleSpec(name, None, is_package=True)  # a folder without __init__.py
    spec.submodule_search_locations = [str(folder / top)]
    return spec


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Import from the folder first, then from the working directory, and let no module of the folder stay behind."""
    siblings = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__init__.py")}
    siblings -= sys.stdlib_module_names | {"modelstream"}
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in siblings}
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    added = [str(folder), ""]
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for entry in added:
            if entry in sys.path:
                sys.path.remove(entry)
        for name in [name for name in sys.modules.keys() - before if _comes_from(folder, name)]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _comes_from(folder: Path, name: str) -> bool:
    """Return whether a module was found in the folder itself, not in an environment that lies somewhere within."""
    spec = getattr(sys.modules[name], "__spec__", None)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    top = name.partition(".")[0]
    return any(
        Path(place).is_relative_to(folder) and Path(place).relative_to(folder).parts[:1] in ((top,), (f"{top}.py",))
        for place in places
        if isinstance(place, str)
    )


def _check_takes_one(function: Callable[..., Any], name: str, path: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, without a signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigError(path, f"{name}{signature} must take one argument, the event batch") from None


def function_name(function: Callable[..., Any], path: str) -> str:
    """Return the ``module:function`` under which a pipeline file can name a function.

    Raises
    ------
    ConfigError
        It has none, as it is a lambda, a closure, or was typed into a session.

    Examples
    --------
    >>> import json
    >>> function_name(json.dumps, "stages[0].extract")
    'json:dumps'
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<none>")
    if not module or module == "__main__" or "<" in name:
        raise ConfigError(path, f"{name} has no name that a file can use; define it at the top level of a module")
    return f"{module}:{name}"
