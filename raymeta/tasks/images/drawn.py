"""Images that code draws, kept on the disk: drawing them again takes a second at every start.

A file is named by all that determines its images, the code included, and ends with the hash of its bytes. One that is
damaged, or that cannot be written, costs the time to draw and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raymeta.errors import EnvironmentProblem
from raymeta.system.files import write_whole
from raymeta.tasks.data_folder import data_folder
from raymeta.tasks.manifest import sha256_of

_HASH_BYTES = 32
WORTH_BYTES = 4 * 2**20
"""Fewer images than these are drawn sooner than people notice."""


def kept(
    name: str, source: str, options: object, shape: tuple[int, ...], draw: Callable[[], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """What `draw` gives, uint8 of `shape`: from the disk where it lies there. `source` is the file of the code."""
    num_bytes = int(np.prod(shape))
    if num_bytes < WORTH_BYTES:
        return draw()
    code = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    path = data_folder(None, name) / f"{sha256_of([code, options, list(shape)])[:32]}.bin"
    data = _sound(path, num_bytes)
    if data is not None:
        return np.frombuffer(data, np.uint8).reshape(shape)
    images = draw()
    data = images.tobytes()
    with contextlib.suppress(EnvironmentProblem, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data + hashlib.sha256(data).digest())
    return images


def _sound(path: Path, num_bytes: int) -> bytes | None:
    """The images in a file; None where it is missing or damaged."""
    try:
        content = path.read_bytes() if path.stat().st_size == num_bytes + _HASH_BYTES else b""
    except OSError:
        return None
    data, digest = content[:num_bytes], content[num_bytes:]
    return data if content and hashlib.sha256(data).digest() == digest else None
