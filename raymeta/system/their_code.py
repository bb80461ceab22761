"""A person's own code, named by an import path: imported, and its mistakes told with file and line.

Whatever it does while it is imported or called, leaving the process by `sys.exit` included, is one error that names it.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

from raymeta.errors import ConfigError, RaymetaError
from raymeta.system.signals import raise_if_interrupt
from raymeta.system.text import did_you_mean, nearest

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_PATH = re.compile(rf"({_DOTTED}):({_DOTTED})")
_OURS = Path(__file__).parents[1]
_STANDARD = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
_SITE = {"site-packages", "dist-packages"}


def is_import_path(path: str) -> bool:
    """Whether `path` has the form `package.module:name`."""
    return _PATH.fullmatch(path) is not None


def trust_flag(content: object) -> str:
    """` --trust` for a command that reads `content` of a run's folder, if that names code by import paths."""
    return " --trust" if any(map(is_import_path, texts_in(content))) else ""


def texts_in(value: object) -> Iterator[str]:
    """All texts in `value`, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*texts_in(key), *texts_in(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def imported(path: str, what: str) -> Any:
    """The object at `path`, such as `package.module:name`; `what` is the option that names it.

    Raises `ConfigError` for a path of another form, a module that is missing or fails, and a name that it lacks.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise ConfigError(f"{what} {path!r} is not of the form package.module:name")
    module_name, names = found.groups()
    with told(f"{what} {path} cannot be imported"):
        result: Any = _module(module_name, path, what)
        for name in names.split("."):
            if not hasattr(result, name):
                raise ConfigError(
                    f"{what} {path} cannot be imported: {_named(result)} has no {name}{_near(name, result)}"
                )
            result = getattr(result, name)
    return result


def recorded(value: Any, what: str) -> Any:
    """What a run can record of an option's value: import paths in place of functions, alone or in a list.

    Raises `ConfigError` for a function that no import path leads to.
    """
    if isinstance(value, list | tuple) and any(map(_is_function, value)):
        return [recorded(item, what) for item in value]
    if not _is_function(value):
        return value
    path = f"{value.__module__}:{value.__qualname__}"
    if not is_import_path(path) or imported(path, what) is not value:
        raise ConfigError(
            f"{what}: a run records a function by its import path, and {path} leads to none: define it by itself in a "
            "module, outside of other functions, and without lambda"
        )
    return path


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType)


def _module(name: str, path: str, what: str) -> Any:
    package, here = name.partition(".")[0], os.getcwd()
    try:
        if package not in sys.modules and find_spec(package) is None and not {"", here} & {*sys.path}:
            sys.path.append(here)  # as `python -m` has it from the start; Ray gives its workers the same
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # something that the module needs
            raise
        raise ConfigError(
            f"{what} {path} cannot be imported: No module named {error.name!r}: run where it can be imported, or add "
            "its folder to PYTHONPATH"
        ) from error


def _named(thing: Any) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _near(name: str, thing: Any) -> str:
    return did_you_mean(nearest(name, dir(thing)), before="; ")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever a person's code raises in here becomes a `ConfigError`: what was done, what it raised, and where."""
    try:
        yield
    except RaymetaError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, Exception):
            raise_if_interrupt(error)
        raise ConfigError(f"{what}: {described(error)}") from error


def described(error: BaseException) -> str:
    """An error in words: its type, its text, its notes, and the line of a person's own code that it came from."""
    if isinstance(error, SystemExit):
        text = f"it called sys.exit({'' if error.code is None else error.code})"
    elif isinstance(error, RaymetaError):
        text = str(error)
    else:
        text = ": ".join(part for part in (type(error).__name__, str(error)) if part)
    notes = [*getattr(error, "__notes__", [])]
    origin = error.__cause__ if isinstance(error, RaymetaError) else error  # we raise those ourselves, on purpose
    if (found := place(origin)) and found not in "\n".join([text, *notes]):
        notes.append(found)
    return "\n".join([text, *notes])


def with_place(error: BaseException) -> BaseException:
    """`error` with a note of where in a person's code it was raised: a note stays when an error changes process."""
    if (found := place(error)) and found not in "\n".join([str(error), *getattr(error, "__notes__", [])]):
        error.add_note(found)
    return error


def place(error: BaseException | None) -> str:
    """`in FILE, line N, in FUNCTION`: the last line of a person's own code that led to `error`, or to its cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := own_place(error):
            return found
        error = error.__cause__
    return ""


def own_place(error: BaseException) -> str:
    """The same for `error` alone, without its causes."""
    if isinstance(error, SyntaxError) and error.filename and _is_theirs(error.filename):
        return f"in {error.filename}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_theirs(frame.filename):
            return f"in {frame.filename}, line {frame.lineno}, in {frame.name}"
    return ""


def _is_theirs(filename: str) -> bool:
    """Whether it is neither raymeta's, nor Python's, nor of a package that was installed."""
    if filename.endswith((".pxi", ".pyx")):  # of a library that was compiled
        return False
    if filename.startswith("<") and not filename.startswith("<ipython"):
        return False
    path = Path(filename)
    inside = (path.is_relative_to(folder) for folder in (_OURS, *_STANDARD))
    return not (_SITE.intersection(path.parts) or any(inside))
