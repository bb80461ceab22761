"""How much one request may ask for, and how a request is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the service takes; anything above is refused with a 4xx that names the limit."""

    body_bytes: int = 64 * 2**20
    file_bytes: int = 16 * 2**20
    pixels: int = 25_000_000
    """of one image"""
    examples: int = 1_000
    """of one request, support examples or queries"""
    classes: int = 200
    name_letters: int = 100
    """of a class or a file"""
    classifiers: int = 1_000
    """in the store"""
    head_s: float = 10.0
    """until the head of a request is there"""
    body_s: float = 30.0
    """until its body is there"""
    answer_s: float = 120.0
    """until it is answered"""
    connections: int = 256


class Refused(Exception):
    """A request that is not done, with the status and the sentence of its answer."""

    def __init__(self, status: int, reason: str, *, retry_s: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_s = status, reason, retry_s
