"""Importing torch without Python's search for cycles, which takes a third of the time and finds nothing."""

from __future__ import annotations

import atexit
import gc
import sys


def import_torch() -> None:
    """Import torch, in 1.6 s instead of 2.4 s on one core; what commands say before it does not wait for it.

    What the import made stays for good, so it is kept out of later searches. At the end of the process it is looked
    through after all: libraries that count what they made (nanobind in Triton) would print pages about it.
    """
    if "torch" in sys.modules:
        return
    was_on = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
    atexit.register(gc.unfreeze)
