"""Names of a package that are imported on first use, so that importing the package stays light."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def resolved(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What `package` means by `name`, from the module below it that `homes` names; for its `__getattr__`.

    A module may be a name too: it is its own home. Raises `AttributeError` for a name that is not public.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = import_module(f"{package}.{homes[name]}")
    value = module if homes[name] == name else getattr(module, name)
    vars(sys.modules[package])[name] = value  # found at once from now on
    return value
