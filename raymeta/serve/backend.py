"""Where the work of a request is done: in this process, or on replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from raymeta.serve.classifiers import Classifiers, Item


class Backend(Protocol):
    """Raises `Refused` for what cannot be done; 503 where it may be tried again."""

    async def create(self, name: str, items: Sequence[Item]) -> None: ...

    async def predict(self, name: str, items: Sequence[Item], unknown: bool) -> list[dict[str, Any]]: ...

    async def ready(self) -> bool: ...


class InProcess:
    """Threads of this process, without Ray."""

    def __init__(self, classifiers: Classifiers) -> None:
        self._classifiers = classifiers

    async def create(self, name: str, items: Sequence[Item]) -> None:
        await asyncio.to_thread(self._classifiers.create, name, items)

    async def predict(self, name: str, items: Sequence[Item], unknown: bool) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._classifiers.predict, name, items, unknown=unknown)

    async def ready(self) -> bool:
        return True
