"""What every command shares: one clear error, the right exit code, and no traceback unless it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from raymeta.errors import EnvironmentProblem, RaymetaError, RaymetaWarning, shortened
from raymeta.system.redact import without_secrets
from raymeta.system.signals import termination_interrupts
from raymeta.system.text import clean
from raymeta.system.their_code import described, own_place, place


def run_command(name: str, command: Callable[[], int], *, verbose: bool) -> int:
    """Call `command` and turn what it raises into a message on stderr and an exit code.

    2 configuration, 3 environment or data, 1 a failed run, 130 interrupted, by SIGTERM too; a closed stdout (`| head`)
    is calm.
    """
    _occupy_standard_streams()
    try:
        with _warnings_told(name), termination_interrupts():
            code = command()
        sys.stdout.flush()
    except RaymetaError as error:
        _tell(name, clean(described(error)), verbose)
        return error.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except KeyboardInterrupt as error:
        _tell(name, " ".join(["interrupted", own_place(error)]).strip(), False)
        return 130
    except SystemExit as error:  # only a person's own code does that
        _tell(name, clean(f"something ended the process: {described(error)}"), verbose)
        return 1
    except OSError as error:
        _give_up_unprinted()
        where = error.filename or "a stream such as stdout"
        text = f"cannot read or write {where}: {error.strerror or error}"
        _tell(name, clean(shortened("\n".join(part for part in (text, place(error)) if part))), verbose)
        return EnvironmentProblem.exit_code
    except Exception as error:
        hint = "" if verbose else " (run again with -v for the traceback)"
        _tell(name, clean(shortened(described(error))) + hint, verbose)
        return 1
    finally:
        _forget_interrupts()
    return code


def say(text: str) -> None:
    """Print text on stdout in which names and values of a run may stand: none of them can steer the terminal."""
    print("".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else "" for c in text))


def print_result(name: str, text: str, kept: str) -> None:
    """Print what is `kept` in a file, too: a stdout that is full or closed costs a word, not the work that was done."""
    try:
        say(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    except OSError as error:
        _silence_stdout()
        _tell(name, f"the result could not be printed ({error.strerror}); it is in {kept}", False)


class Parser(ArgumentParser):
    """One whose errors are as short as all others."""

    def error(self, message: str) -> NoReturn:
        super().error(clean(shortened(message)))


def add_verbose(*parsers: ArgumentParser) -> None:
    """The flag -v."""
    for parser in parsers:
        parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")


def dashed(argv: Sequence[str]) -> list[str]:
    """`argv` with `-` for `_` in option names, so that argparse takes either."""
    result = []
    for token in argv:
        name, equals, value = token.partition("=")
        result.append(name.replace("_", "-") + equals + value if name.startswith("--") else token)
    return result


def _tell(name: str, text: str, with_traceback: bool) -> None:
    if with_traceback:
        print(without_secrets(traceback.format_exc()), file=sys.stderr)
    print(without_secrets(f"raymeta {name}: {text}"), file=sys.stderr)


def _occupy_standard_streams() -> None:
    """Where stdout or stderr came closed (`>&-`), give its number to nothing, or the next file opened would get it."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _forget_interrupts() -> None:
    """Python ends by SIGINT, whatever the exit code, once an interrupt has passed through `exec` in a `python -m`.

    Importing dataclasses and named tuples goes through it, so any interrupt may. The next `exec` makes it forget.
    """
    exec("")


def _silence_stdout() -> None:
    """What is still in the buffer goes nowhere, instead of failing at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _give_up_unprinted() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _silence_stdout()


@contextmanager
def _warnings_told(name: str) -> Iterator[None]:
    """Print our own warnings like errors; those of others stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RaymetaWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: object) -> None:
            if issubclass(category, RaymetaWarning):
                _tell(name, f"warning: {clean(str(message))}", False)
            else:
                others(message, category, *where)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield
