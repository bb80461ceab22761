"""A text stream that never holds up or ends the training: closed, full or slow, it goes quiet."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import queue
import threading
import time
from typing import TextIO

_PENDING = 512
_DRAIN_S = 1.0
_RETRY_S = 0.05

_ASCII = str.maketrans({"±": "+-", "·": "-", "…": "...", **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))})


class QuietStream(io.TextIOBase):
    """Hands text to `stream` from a thread of its own.

    `write` never raises and never blocks: nobody may be reading the other end of a pipe, and a terminal can be halted
    with Ctrl-S. Text that does not fit into the queue meanwhile is dropped; a closed stream drops everything.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._codec = getattr(stream, "encoding", None) or "utf-8"
        self._plain_ascii = not _encodes(self._codec, "±▁█")
        # Written past the stream's own buffer: a thread that waits for a full pipe must not hold the buffer's lock,
        # which others need to write a traceback, to fork or to exit. Streams that only look like files (a
        # notebook's, a test's) are written the ordinary way.
        self._descriptor = _descriptor(stream)
        self._pending: queue.Queue[str | None] = queue.Queue(_PENDING)
        self._dead = False
        self._thread = threading.Thread(target=self._deliver, name="raymeta-terminal", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._codec

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        with contextlib.suppress(ValueError, OSError):
            return self._stream.isatty()
        return False

    def write(self, text: str, /) -> int:
        if not self._dead:
            with contextlib.suppress(queue.Full):
                self._pending.put_nowait(text.translate(_ASCII) if self._plain_ascii else text)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: every text is delivered as soon as the stream takes it."""

    def drain(self) -> None:
        """Wait until everything is delivered, for two seconds at most; nothing is delivered afterwards."""
        atexit.unregister(self.drain)
        if not self._dead:
            with contextlib.suppress(queue.Full):
                self._pending.put(None, timeout=_DRAIN_S)
            self._thread.join(_DRAIN_S)
        self._dead = True

    def _deliver(self) -> None:
        try:
            while (text := self._pending.get()) is not None and not self._dead:
                self._put(text)
        except (OSError, ValueError):  # a broken pipe; a stream that was closed in this process
            self._dead = True

    def _put(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        data = text.encode(self._codec, errors="replace")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # someone made the stream non-blocking, and it is full
                time.sleep(_RETRY_S)


def _descriptor(stream: TextIO) -> int | None:
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _encodes(codec: str, text: str) -> bool:
    try:
        text.encode(codec)
    except (UnicodeError, LookupError):
        return False
    return True
