"""What SIGINT and SIGTERM do to work that has something to save."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class _Interrupt:
    """A handler that raises `KeyboardInterrupt`, and knows whether it did.

    Code that runs then may swallow the interrupt, as imports do that catch everything.
    """

    came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True
        raise KeyboardInterrupt


@contextmanager
def first_signal(ask: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `ask`; a second one quits at once.

    A SIGTERM that came in `termination_interrupts` around this, and was swallowed there, calls `ask` at once.
    """
    came = threading.Event()

    def handle(number: int, frame: object) -> None:
        if came.is_set():
            os._exit(130)
        came.set()
        ask()

    before = signal.getsignal(signal.SIGTERM)
    with _handled((signal.SIGINT, signal.SIGTERM), handle):
        if isinstance(before, _Interrupt) and before.came:
            ask()
        yield


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: it raises `KeyboardInterrupt`."""
    with _handled((signal.SIGTERM,), _Interrupt()), unwrapped_interrupts():
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What handles SIGINT and SIGTERM now does so afterwards, whatever is installed in between.

    A library's own handler that ends the process raises `SystemExit`: in here that is an interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not installed from Python cannot be put back
                signal.signal(number, handler)


@contextmanager
def unwrapped_interrupts() -> Iterator[None]:
    """An interrupt leaves this as `KeyboardInterrupt`, whatever Python made of it."""
    try:
        yield
    except Exception as error:
        raise_if_interrupt(error)
        raise


def raise_if_interrupt(error: Exception) -> None:
    """Raises `KeyboardInterrupt` where one is the cause of `error`; for who catches everything and goes on.

    Before Python 3.12 one that falls into the making of a class (`__set_name__`), as imports do by the thousand, comes
    out as the cause of a `RuntimeError`.
    """
    cause: BaseException | None = error
    seen: set[int] = set()  # an error may be its own cause
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handle: Callable[[int, object], None]) -> Iterator[None]:
    """Python handles signals in the main thread only; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
