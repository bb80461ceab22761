"""YAML that would end or occupy the process is refused before anything is made of it."""

from __future__ import annotations

from typing import Any

import yaml

from raymeta.system.reading import MAX_DEPTH

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same language, ten times as fast


def require_bounded(data: str | bytes, *, aliases: bool) -> None:
    """Raise `ValueError` for deep nesting, and for aliases unless they may stand there; `yaml.YAMLError` for no YAML.

    Events are looked at one after the other: very deep nesting would end the process where nodes are made of them, and
    aliases grow without bound when they are written out.
    """
    depth = 0
    for event in yaml.parse(data, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise ValueError("it has aliases, which no configuration of a run has")
