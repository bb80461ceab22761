"""Layers of a configuration put on top of each other, each value remembering where it was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raymeta.config import yaml_lines
from raymeta.config.variants import SECTIONS, import_path, name_of, section_of
from raymeta.config.yaml_lines import KeyPath
from raymeta.errors import ConfigError
from raymeta.presets.files import DEFAULT
from raymeta.system.reading import first_line, read_text


class Override(NamedTuple):
    """One key from the command line or from Python: `key` is dotted, `value` already a value, `text` as written."""

    key: str
    value: Any
    origin: str
    text: str | None = None
    foreign: bool = False  # of a run's folder, see `strangers`


OF_PRESET = "preset "
"""How origins in presets begin."""
UNASKED = f"{OF_PRESET}{DEFAULT} (the default)"
"""The origin of a preset that nobody named; nobody misses what is dropped of it."""
SECOND_NAMES = {"init_from": "start"}
"""Other names of options."""
MAX_DOTS = 8
"""More levels than any option has."""


class Layer(NamedTuple):
    """Nested values of one origin; the line and the text of each by path, where it has them."""

    where: str
    content: dict[str, Any]
    lines: Mapping[KeyPath, int] = {}
    texts: Mapping[KeyPath, str] = {}
    problems: Sequence[str] = ()
    foreign: bool = False  # of a run's folder, see `strangers`


def read_layer(path: Path, where: str | None = None) -> Layer:
    """The layer in a file, which `where` names in errors. Keys may be dotted.

    Raises `ConfigError` where it cannot be read, or is no mapping.
    """
    where = where or str(path)
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; presets are named with --preset") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {first_line(error)}") from error
    parsed = yaml_lines.parse(text, where)
    if parsed.value is None:
        return Layer(where, {})
    if not isinstance(parsed.value, dict):
        raise ConfigError(f"{where}: a configuration is a mapping of options, not a {type(parsed.value).__name__}")
    return _undotted(Layer(where, parsed.value, parsed.lines, parsed.texts, parsed.problems))


def _undotted(layer: Layer) -> Layer:
    """`algorithm.inner_lr: 0.1` as `algorithm: {inner_lr: 0.1}`."""
    content: dict[str, Any] = {}
    lines, texts, problems = dict(layer.lines), dict(layer.texts), list(layer.problems)
    for key, value in sorted(layer.content.items(), key=lambda item: "." in item[0]):
        if key.count(".") > MAX_DOTS:
            problems.append(f"{layer.where}:{layer.lines[(key,)]}: there is no option {key}")
            continue
        *above, last = path = tuple(key.split("."))
        below = content
        for i, part in enumerate(above):
            if isinstance(below.get(part), str) and part in SECTIONS:
                below[part] = {"name": below[part]}  # `algorithm: maml` beside `algorithm.inner_lr: 0.1`
            below = below.setdefault(part, {})
            lines.setdefault(tuple(path[: i + 1]), layer.lines[(key,)])
            if not isinstance(below, dict):
                break
        if not isinstance(below, dict) or last in below:
            problems.append(f"{layer.where}:{layer.lines[(key,)]}: {key} is given twice: keep one")
            continue
        below[last] = value
        if above:
            lines |= {(*path, *p[1:]): line for p, line in layer.lines.items() if p[0] == key}
            texts |= {(*path, *p[1:]): text for p, text in layer.texts.items() if p[0] == key}
    return layer._replace(content=content, lines=lines, texts=texts, problems=problems)


def override_layer(override: Override) -> Layer:
    """The layer of one override."""
    if override.key.count(".") > MAX_DOTS:
        return Layer(override.origin, {}, problems=[f"{override.origin}: there is no option {override.key}"])
    path = tuple(override.key.split("."))
    value = override.value
    for key in reversed(path):
        value = {key: value}
    texts = {} if override.text is None else {path: override.text}
    return Layer(override.origin, value, texts=texts, foreign=override.foreign)


class Switch(NamedTuple):
    """A layer that named another variant, and what the layers below had said of the old one."""

    where: str
    section: str
    old: str
    new: str
    dropped: list[str]

    def note(self, values: Mapping[str, Any]) -> str | None:
        """What to tell of it, given the `values` in the end: nothing of options that were given for the new variant."""
        lost = [key for key in self.dropped if key.partition(".")[2] not in _options_in(values, key)]
        if not lost:
            return None
        return (
            f"{self.where} switches {self.section} from {self.old} to {self.new}, which starts from its own defaults; "
            f"dropped: {', '.join(lost)}"
        )


def _options_in(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The options beside dotted `key`."""
    section = values.get(key.partition(".")[0])
    return section if isinstance(section, dict) else {}


@dataclasses.dataclass
class Layers:
    """What the layers so far say: nested values, where each came from, and what was noticed."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    origins: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    texts: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    switches: list[Switch] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    whole: bool = True
    """Whether options without a default have to be among them"""
    guarded: bool = False
    """Whether something of a run's folder that is not trusted is among them."""

    def origin(self, path: KeyPath) -> str:
        """Where the value at `path`, or what is around it, was written."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "configuration")

    def add(self, layer: Layer) -> None:
        """Put a layer on top of what is there.

        Variants come first: a switch drops the `outer` of the layers below, never that of its own layer.
        """
        layer = _under_first_names(layer)
        self.errors += layer.problems
        for key in sorted(layer.content, key=lambda key: key not in SECTIONS):
            value = layer.content[key]
            if value is None and key in (*SECTIONS, "outer"):  # a section whose every line is commented out
                continue
            if key in SECTIONS:
                value = {"name": value} if isinstance(value, str) else value
                self._switch(key, value, layer.where)
            self._put(key, value, layer)
            self._remember((key,), value, layer)

    def _put(self, key: str, value: Any, layer: Layer) -> None:
        below = self.values.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            self.values[key] = _deep(below, value)
        elif isinstance(value, dict) and "name" not in value and dataclasses.is_dataclass(below):
            self.errors.append(
                f"{layer.where}: {key} is given as an object, {below!r}: set {', '.join(value)} where that is made"
            )
        else:
            self.values[key] = value

    def _remember(self, path: KeyPath, value: Any, layer: Layer) -> None:
        line = next((layer.lines[path[:i]] for i in range(len(path), 0, -1) if path[:i] in layer.lines), None)
        self.origins[path] = layer.where if line is None else f"{layer.where}:{line}"
        self.texts.pop(path, None)
        if path in layer.texts:
            self.texts[path] = layer.texts[path]
        if isinstance(value, dict):
            for key, item in value.items():
                self._remember((*path, str(key)), item, layer)

    def _switch(self, section: str, value: Any, where: str) -> None:
        """Forget the old variant's options where a layer names another variant."""
        before = self.values.get(section)
        old, new = _variant_name(before), _variant_name(value)
        if old is None or new is None:
            return
        if import_path(section, old) == import_path(section, new):  # type: ignore[arg-type]
            return
        self.values.pop(section)
        dropped = [f"{section}.{key}" for key in before if key != "name"] if isinstance(before, dict) else []
        if section == "algorithm" and "outer" in self.values:
            outer = self.values.pop("outer")
            dropped += [f"outer.{key}" for key in outer] if isinstance(outer, dict) else ["outer"]
        asked = [key for key in dropped if not self.origin(tuple(key.split("."))).startswith(UNASKED)]
        self.switches.append(Switch(where, section, old, new, asked))

    def notes(self) -> list[str]:
        """What a person should know of how the values came about."""
        told = [switch.note(self.values) for switch in self.switches]
        return [note for note in (*told, self._other_steps_at_test()) if note]

    def _other_steps_at_test(self) -> str | None:
        """Where a person gave `inner_steps`, and the steps at test are still those of a preset."""
        given = _options_in(self.values, "algorithm.")
        steps, at_test = given.get("inner_steps"), given.get("test_inner_steps")
        origin, theirs = self.origin(("algorithm", "inner_steps")), self.origin(("algorithm", "test_inner_steps"))
        if None in (steps, at_test) or steps == at_test:
            return None
        if origin.startswith(OF_PRESET) or not theirs.startswith(OF_PRESET):
            return None
        return (
            f"{origin}: it trains with {steps} inner steps and tests with {at_test}, algorithm.test_inner_steps of "
            f"{theirs}: give that, too, for another number"
        )


def _under_first_names(layer: Layer) -> Layer:
    """With the first name of each option that has two."""
    for second in SECOND_NAMES.keys() & layer.content.keys():
        first = SECOND_NAMES[second]
        if first in layer.content:
            problem = f"{layer.where}: {first} and {second} are one option, given twice: keep one"
            layer = layer._replace(problems=[*layer.problems, problem])
        content = {SECOND_NAMES.get(key, key): value for key, value in layer.content.items()}
        lines = {(SECOND_NAMES.get(path[0], path[0]), *path[1:]): line for path, line in layer.lines.items()}
        texts = {(SECOND_NAMES.get(path[0], path[0]), *path[1:]): text for path, text in layer.texts.items()}
        layer = layer._replace(content=content, lines=lines, texts=texts)
    return layer


def _variant_name(value: Any) -> str | None:
    if isinstance(value, dict):
        name = value.get("name")
        return None if name is None else str(name)
    return name_of(value) if value is not None and section_of(value) else None


def _deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _deep(merged[key], value) if both else value
    return merged
