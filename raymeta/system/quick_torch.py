"""Importing torch without Python's search for cycles, which takes a third of the time and finds nothing."""

from __future__ import annotations

import atexit
import gc
import sys

from raymeta.system.cycles import unsearched


def import_torch() -> None:
    """Import torch, in 1.6 s instead of 2.4 s on one core; what commands say before it does not wait for it.

    What the import made stays for good, so it is kept out of later searches, and out of the one at the end of the
    process, which takes half a second otherwise.
    """
    if "torch" in sys.modules:
        return
    with unsearched():
        import torch  # noqa: F401

        gc.freeze()
    atexit.register(_look_through_what_is_counted)


def _look_through_what_is_counted() -> None:
    """Where Triton was loaded, all is searched after all: it prints pages about what is left at the end."""
    if "triton" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()
