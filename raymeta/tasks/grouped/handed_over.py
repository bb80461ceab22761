"""Data that were handed over in Python: kept in this process by a hash, which is what a run records of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from raymeta.errors import DataError

MOST = 8
"""Data that are kept; those handed over longest ago are let go."""
_KEPT: OrderedDict[str, Any] = OrderedDict()


def hand_over(sha256: str, data: Any) -> str:
    """Keep `data` by their hash, which is returned."""
    _KEPT[sha256] = data
    _KEPT.move_to_end(sha256)
    while len(_KEPT) > MOST:
        _KEPT.popitem(last=False)
    return sha256


def handed_over(sha256: str, maker: str) -> Any:
    """Raises `DataError` in a process where nobody handed them over."""
    if sha256 not in _KEPT:
        raise DataError(
            f"these tasks were made in Python by raymeta.tasks.{maker}, and no file holds their data: make them again "
            f"from the same data in this process, and then resume or evaluate there; a command needs a file"
        )
    return _KEPT[sha256]
