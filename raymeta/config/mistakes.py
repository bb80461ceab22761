"""Mistakes in a configuration, in words: where, what, and the meaning and range of the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymeta.config.describe import all_keys, run_options, section_options, variants_with
from raymeta.config.layers import Layers
from raymeta.config.variants import SECTIONS
from raymeta.config.yaml_lines import KeyPath
from raymeta.system.text import did_you_mean, nearest


def is_known(layers: Layers, key: str) -> bool:
    """Whether there is such an option outside any section; notes the nearest ones where there is none."""
    if key in run_options():
        return True
    keys = all_keys()
    same_end = [k for k in keys if k.rpartition(".")[2] == key]
    close = same_end or nearest(key, keys) or nearest(key, [k for k in keys if "." not in k], cutoff=0.5)
    hint = did_you_mean(close[:2], before=": ") or "; `raymeta config explain` lists all"
    layers.errors.append(f"{layers.origin((key,))}: there is no option {key}{hint}")
    return False


def note_missing(layers: Layers, section: str) -> None:
    """Note that a section names no variant."""
    example = f"`{section}: {_EXAMPLES[section]}`"
    layers.errors.append(f"{section} is missing: name one, for instance {example}, or a preset that has it")


_EXAMPLES = {"tasks": "glyphs", "model": "conv4", "algorithm": "maml"}


def note(
    layers: Layers,
    problem: Any,
    prefix: KeyPath,
    options: Mapping[str, Any],
    good: dict[str, Any],
    given: Mapping[str, Any],
) -> None:
    """Note a mistake, unless it is that something is missing which was given and has a mistake of its own."""
    missing = problem["type"].startswith("missing") and not _in_a_list(problem)
    if not (missing and (not layers.whole or (problem["loc"] and problem["loc"][0] in given))):
        layers.errors.append(_explained(layers, problem, prefix, options, good))


def _in_a_list(problem: Any) -> bool:
    """Whether it is about an item of a list: one that is missing there is no option that is missing."""
    return bool(problem["loc"]) and isinstance(problem["loc"][-1], int)


def one_for_a_choice(problems: Sequence[Any]) -> list[dict[str, Any]]:
    """Problems with what each type of a choice of types would ask, told as one: «should be a number or 'auto'»."""
    told: dict[object, dict[str, Any]] = {}
    for position, problem in enumerate(problems):
        loc = problem["loc"]
        key = loc[0] if len(loc) == 2 and isinstance(loc[1], str) else position
        if key in told:
            told[key]["msg"] += " or " + str(problem["msg"]).removeprefix("Input should be ")
        else:
            told[key] = dict(problem)
    return list(told.values())


def _explained(
    layers: Layers, problem: Any, prefix: KeyPath, options: Mapping[str, Any], values: dict[str, Any]
) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    loc = [str(part) for part in problem["loc"] if not isinstance(part, str) or part in options]
    key = loc[0] if loc else None
    if key is None:
        return ": ".join([layers.origin(prefix), *prefix, message])
    path = (*prefix, key)
    dotted = ".".join(path)
    if problem["type"] == "missing" and _in_a_list(problem):
        message = "has too few values"
    elif problem["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{layers.origin(prefix)}: {dotted} is missing: {options[key].text()}"
    colon = "" if message.startswith(("should", "has ")) else ":"
    return f"{layers.origin(path)}: {dotted} {values.get(key)!r}{colon} {message}. It is {options[key].text()}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def unknown(section: str | None, name: str | None, key: str) -> str:
    """What to say of an option that there is not: who has one of this name, or the nearest."""
    dotted = f"{section}.{key}" if section else key
    known = section_options(section, name) if section else run_options()
    if section in SECTIONS:
        owners = [other for other in variants_with(section, key) if other != name]
        if owners:
            return f"{dotted} belongs to {_listed(owners)}; this run uses {name}"
    close = [f"{section}.{other}" if section else other for other in nearest(key, known, cutoff=0.5)]
    hint = did_you_mean(close, after=" ")
    return f"there is no option {dotted}: {hint}{name or section} has {', '.join(known) or 'no options'}"
