"""A command line as the command's own flags and configuration keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from raymeta.config import yaml_lines
from raymeta.config.describe import all_keys, run_options
from raymeta.config.layers import Override
from raymeta.config.variants import SECTIONS
from raymeta.errors import ConfigError
from raymeta.system.text import did_you_mean, nearest


class Flag(NamedTuple):
    """One of the command's own flags."""

    names: tuple[str, ...]
    takes: Literal["nothing", "one", "many", "maybe"]
    help: str
    metavar: str = ""

    @property
    def key(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")


class Arguments(NamedTuple):
    """Values of the flags by key (True, a text, or a list), and the configuration keys in order."""

    flags: dict[str, Any]
    overrides: list[Override]


_NUMBER = re.compile(r"-\.?\d")


def split_arguments(argv: Sequence[str], flags: Sequence[Flag]) -> Arguments:
    """Flags and configuration keys of `argv`: `--KEY VALUE`, `--KEY=VALUE`, `KEY=VALUE`; in keys `-` equals `_`.

    Raises `ConfigError` for a value without its key, or a flag without its value.
    """
    by_name = {name.lstrip("-").replace("-", "_"): flag for flag in flags for name in flag.names}
    values: dict[str, Any] = {}
    overrides: list[Override] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        name, equals, inline = token.partition("=")
        if not name.strip("-") or not token.startswith("-"):
            if not equals or not name.strip("-"):
                raise ConfigError(f"command line: {token!r} belongs to no option: write --KEY VALUE or KEY=VALUE")
            overrides.append(_override(name, inline))
            continue
        key = name.lstrip("-").replace("-", "_")
        flag = by_name.get(key) if name.startswith("--") or len(name) == 2 else None
        if flag is None and not name.startswith("--"):
            raise ConfigError(f"command line: there is no flag {name}{_nearest(name, flags)}")
        has_value = bool(equals) or bool(rest and not _is_option(rest[0]))
        if flag is not None and flag.takes == "nothing":
            if equals:
                raise ConfigError(f"command line: {name} takes no value: leave out {equals}{inline}")
            values[flag.key] = True
            continue
        if flag is not None and not has_value and flag.takes != "maybe":
            raise ConfigError(f"command line: {name} needs a value: {flag.help}")
        text = inline if equals else rest.pop(0) if has_value else None
        if flag is None:
            _require_no_misspelt_flag(name, key, flags)
            overrides.append(_override(name, text))
        elif flag.takes == "many":
            values.setdefault(flag.key, []).append(text)
        else:
            values[flag.key] = True if text is None else text
    return Arguments(values, overrides)


def _is_option(token: str) -> bool:
    if _NUMBER.match(token):
        return False
    return token.startswith("-") or bool(re.match(r"[A-Za-z_][\w.-]*=", token))


def _override(name: str, text: str | None) -> Override:
    key = name.lstrip("-").replace("-", "_")
    if text is None:  # a switch
        return Override(key, True, f"command line --{key} (without a value)")
    origin = f"command line --{key}"
    if text[:1] in ("[", "{") or (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"):
        return Override(key, yaml_lines.parse(text, origin).value, origin)
    return Override(key, yaml_lines.scalar(text), origin, text)


def _require_no_misspelt_flag(name: str, key: str, flags: Sequence[Flag]) -> None:
    """Other misspelt keys are told with the rest of the configuration's mistakes."""
    if key.partition(".")[0] in (*run_options(), *SECTIONS, "outer"):
        return
    own = {flag.key: flag for flag in flags}
    close = nearest(key, [*own, *all_keys()])
    if close and close[0] in own:
        raise ConfigError(f"command line: there is no option {name}: {did_you_mean([own[close[0]].names[-1]])}")


def _nearest(name: str, flags: Sequence[Flag]) -> str:
    return did_you_mean(nearest(name, [n for flag in flags for n in flag.names], cutoff=0.4), before=": ")
