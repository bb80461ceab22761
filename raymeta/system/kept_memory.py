"""Memory that a process frees and needs again in its next step, and that the C library would hand back in between."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LARGEST_BLOCK = 2**27
"""Bytes of the largest block that is kept: 128 MiB.

A heap may grow to several times a block before that is used again, which this bounds.
"""
SET_BY_HAND = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which a person decides this; where one is set, nothing is changed."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_BY_ITSELF = 2**25  # up to which glibc raises the limit of a block; the most that older versions take
_LOCK = threading.Lock()
_holders = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, the main thread of this process keeps what it frees, where the C library is glibc.

    glibc gives large blocks back as they are freed. The next step gets them again page by page and filled with zeros,
    which takes up to half of the time of tasks that are computed side by side (`results/benchmarks/kept-memory.json`).
    Results are the same. Where the last of several ends, what is free is given back to the system, and the limits are
    those that glibc reaches by itself.
    """
    library = None if any(name in os.environ for name in SET_BY_HAND) else _library()
    if library is None:
        yield
        return
    _count(library, 1)
    try:
        yield
    finally:
        _count(library, -1)


def _library() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, TypeError, AttributeError):
        return None


def _count(library: Any, change: int) -> None:
    global _holders
    with _LOCK:
        before, _holders = _holders, _holders + change
        if before == 0:
            library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            if not library.mallopt(_M_MMAP_THRESHOLD, LARGEST_BLOCK):
                library.mallopt(_M_MMAP_THRESHOLD, _BY_ITSELF)
        elif _holders == 0:
            library.mallopt(_M_MMAP_THRESHOLD, _BY_ITSELF)
            library.mallopt(_M_TRIM_THRESHOLD, 2 * _BY_ITSELF)
            library.malloc_trim(0)
