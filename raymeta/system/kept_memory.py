"""Memory that a process frees and needs again in its next step, and that the C library would hand back in between."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

LARGEST_BLOCK = 2**30
"""Bytes of the largest block that is kept when it is freed: 1 GiB, where the C library takes as much."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_BY_ITSELF = 2**25  # up to which glibc raises the limit of a block; the most that older versions take


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, this process keeps what it frees, where the C library can; at the end it gives that back to the system.

    glibc gives large blocks back as they are freed. The next step gets them again page by page and filled with zeros,
    which takes up to half of the time of tasks that are computed side by side (`results/benchmarks/kept-memory.json`).
    Results are the same.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (OSError, TypeError, AttributeError):
        yield
        return
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    if not mallopt(_M_MMAP_THRESHOLD, LARGEST_BLOCK):
        mallopt(_M_MMAP_THRESHOLD, _BY_ITSELF)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _BY_ITSELF)
        mallopt(_M_TRIM_THRESHOLD, 2 * _BY_ITSELF)
        malloc_trim(0)
