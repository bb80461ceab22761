"""From layers to a configuration: defaults < preset < files < command line, with all mistakes told at once."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from raymeta.config import yaml_lines
from raymeta.config.describe import all_keys, run_options, section_options, variants_with
from raymeta.config.preset_files import DEFAULT, preset_path
from raymeta.config.schema import RunConfig, RunOptions
from raymeta.config.variants import SECTIONS, import_path, name_of, section_of, variant_class
from raymeta.engine.outer import OuterOptions
from raymeta.errors import ConfigError

KeyPath = tuple[str, ...]


class Override(NamedTuple):
    """One key from the command line or from Python: `key` is dotted, `value` already a value."""

    key: str
    value: Any
    origin: str


class Loaded(NamedTuple):
    """A checked configuration, and what a person should know about how it came about."""

    config: RunConfig
    notes: list[str]


@dataclasses.dataclass
class _Layers:
    """What the layers so far say: nested values, where each came from, and what was noticed."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    origins: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def origin(self, path: KeyPath) -> str:
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "configuration")


def load_config(
    *,
    preset: str | None = None,
    files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | Sequence[Override] = (),
) -> Loaded:
    """Merge the layers and check everything.

    Switching a variant starts from the new variant's own defaults; what is dropped is told in the notes. A mapping of
    overrides holds dotted keys; its values may be instances of algorithms, task sets and model specifications.

    Raises `ConfigError` with all mistakes at once, each with its origin, the option's meaning and its range.
    """
    layers = _Layers()
    parsed = [_read(path, layers) for path in files]
    listed = _as_overrides(overrides)
    named = [o for o in listed if o.key == "preset" and o.value is not None]
    preset = named[-1].value if named else preset
    listed = [o for o in listed if o.key != "preset"]
    for content, _ in parsed:
        preset = preset or content.get("preset")
    if preset is None and not files:
        preset = DEFAULT
    if preset is not None:
        content, lines = _read(preset_path(str(preset)), layers, f"preset {preset}")
        _merge(layers, content, lines, f"preset {preset}")
        layers.values["preset"] = str(preset)
    for path, (content, lines) in zip(files, parsed, strict=True):
        _merge(layers, content, lines, str(path))
    # Variants first, so that the order of options on a command line does not matter.
    for override in sorted(listed, key=lambda o: o.key not in SECTIONS and not o.key.endswith(".name")):
        _merge(layers, *_nested(override), override.origin)
    return Loaded(_checked(layers), layers.notes)


def dump(config: RunConfig) -> str:
    """The configuration as YAML that loads to an equal one."""
    content: dict[str, Any] = {name: getattr(config, name) for name in RunOptions.model_fields}
    for section in SECTIONS:
        instance = getattr(config, section)
        content[section] = {"name": name_of(instance)} | _fields(instance)
    content["outer"] = _fields(config.outer)
    return yaml_lines.write(_plain(content))


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _read(path: Path, layers: _Layers, where: str | None = None) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    where = where or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; presets are named with --preset") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    parsed = yaml_lines.parse(text, where)
    layers.errors += parsed.problems
    if parsed.value is None:
        return {}, {}
    if not isinstance(parsed.value, dict):
        raise ConfigError(f"{where}: a configuration is a mapping of options, not a {type(parsed.value).__name__}")
    return parsed.value, parsed.lines


def _as_overrides(overrides: Mapping[str, Any] | Sequence[Override]) -> list[Override]:
    if isinstance(overrides, Mapping):
        return [Override(key, value, f"option {key}") for key, value in overrides.items()]
    return list(overrides)


def _nested(override: Override) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    value = override.value
    for key in reversed(override.key.split(".")):
        value = {key: value}
    return value, {}


def _merge(layers: _Layers, content: dict[str, Any], lines: dict[KeyPath, int], where: str) -> None:
    """Put a layer on top of what is there."""
    for key, value in content.items():
        if key in SECTIONS:
            if isinstance(value, str):
                value = {"name": value}
            _switch(layers, key, value, where)
        if isinstance(value, dict):
            below = layers.values.get(key)
            layers.values[key] = _deep(below if isinstance(below, dict) else {}, value)
        else:
            layers.values[key] = value
        _remember(layers, (key,), value, lines, where)


def _deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _deep(merged[key], value) if both else value
    return merged


def _remember(layers: _Layers, path: KeyPath, value: Any, lines: dict[KeyPath, int], where: str) -> None:
    layers.origins[path] = f"{where}:{lines[path]}" if path in lines else where
    if isinstance(value, dict):
        for key, item in value.items():
            _remember(layers, (*path, str(key)), item, lines, where)


def _switch(layers: _Layers, section: str, value: Any, where: str) -> None:
    """Forget the old variant's options where a layer names another variant."""
    before = layers.values.get(section)
    name = value.get("name") if isinstance(value, dict) else _name_or_none(value)
    if before is None or name is None:
        return
    old = before.get("name") if isinstance(before, dict) else _name_or_none(before)
    if old is None or import_path(section, str(old)) == import_path(section, str(name)):  # type: ignore[arg-type]
        if not isinstance(value, dict):
            layers.values.pop(section)
        return
    layers.values.pop(section)
    dropped = [f"{section}.{key}" for key in before if key != "name"] if isinstance(before, dict) else []
    if section == "algorithm" and isinstance(layers.values.get("outer"), dict):
        dropped += [f"outer.{key}" for key in layers.values.pop("outer")]
    if dropped:
        layers.notes.append(
            f"{where} switches {section} from {old} to {name}, which starts from its own defaults; "
            f"dropped: {', '.join(dropped)}"
        )


def _name_or_none(value: Any) -> str | None:
    return name_of(value) if section_of(value) else None


def _checked(layers: _Layers) -> RunConfig:
    values = dict(layers.values)
    parts: dict[str, Any] = {}
    for section in SECTIONS:
        parts[section] = _variant(layers, section, values.pop(section, None))
    outer = values.pop("outer", {})
    if isinstance(outer, OuterOptions):
        parts["outer"] = outer
    elif isinstance(outer, dict):
        defaults = dict(getattr(parts["algorithm"], "outer", {}))
        parts["outer"] = _validated(layers, OuterOptions, {**defaults, **outer}, "outer", None)
    else:
        layers.errors.append(f"{layers.origin(('outer',))}: outer is a mapping of options")
    top = {key: value for key, value in values.items() if _known(layers, key)}
    options = _validated(layers, RunOptions, top, None, None)
    if layers.errors:
        raise ConfigError("\n".join(dict.fromkeys(layers.errors)))
    try:
        return RunConfig(**{name: getattr(options, name) for name in RunOptions.model_fields}, **parts)
    except ValidationError as error:
        raise ConfigError("\n".join(str(e["msg"]) for e in error.errors())) from error


def _known(layers: _Layers, key: str) -> bool:
    if key in RunOptions.model_fields:
        return True
    keys = all_keys()
    same_end = [k for k in keys if k.rpartition(".")[2] == key]
    close = (
        same_end
        or difflib.get_close_matches(key, keys, n=1)
        or difflib.get_close_matches(key, [k for k in keys if "." not in k], n=1, cutoff=0.5)
    )
    hint = f": did you mean {' or '.join(close[:2])}?" if close else "; `raymeta config explain` lists all"
    layers.errors.append(f"{layers.origin((key,))}: there is no option {key}{hint}")
    return False


def _variant(layers: _Layers, section: str, value: Any) -> Any:
    if value is None:
        layers.errors.append(f"{section} is missing: name one, for instance `{section}: {_EXAMPLES[section]}`")
        return None
    if section_of(value) == section:
        return value
    if not isinstance(value, dict):
        layers.errors.append(f"{layers.origin((section,))}: {section} is a name or a mapping of options")
        return None
    options = dict(value)
    name = options.pop("name", None)
    if not isinstance(name, str):
        layers.errors.append(f"{layers.origin((section,))}: {section}.name is missing")
        return None
    try:
        cls = variant_class(section, name)  # type: ignore[arg-type]
    except ConfigError as error:
        layers.errors.append(f"{layers.origin((section, 'name'))}: {error}")
        return None
    return _validated(layers, cls, options, section, name)


_EXAMPLES = {"tasks": "glyphs", "model": "conv4", "algorithm": "maml"}


def _validated(layers: _Layers, cls: type[Any], values: dict[str, Any], section: str | None, name: str | None) -> Any:
    """An instance of `cls`, or None after noting every mistake."""
    options = section_options(section, name) if section else run_options()
    prefix: KeyPath = (section,) if section else ()
    good = {}
    for key, value in values.items():
        path = (*prefix, key)
        if key not in options:
            layers.errors.append(f"{layers.origin(path)}: {_unknown(section, name, key)}")
        elif isinstance(value, bool) and "true or false" not in options[key].range and "number" in options[key].range:
            layers.errors.append(f"{layers.origin(path)}: {'.'.join(path)} {value} is no number: {options[key].text()}")
        else:
            good[key] = value
    try:
        return TypeAdapter(cls).validate_python(good)
    except ValidationError as error:
        for problem in error.errors():
            layers.errors.append(_explained(layers, problem, prefix, options, good))
    except ConfigError as error:
        layers.errors.append(f"{layers.origin(prefix)}: {error}")
    return None


def _explained(
    layers: _Layers, problem: Any, prefix: KeyPath, options: Mapping[str, Any], values: dict[str, Any]
) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    loc = [str(part) for part in problem["loc"] if not isinstance(part, str) or part in options]
    key = loc[0] if loc else None
    if key is None:
        return f"{layers.origin(prefix)}: {'.'.join(prefix)}: {message}"
    path = (*prefix, key)
    dotted = ".".join(path)
    if problem["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{layers.origin(prefix)}: {dotted} is missing: {options[key].text()}"
    return f"{layers.origin(path)}: {dotted} {values.get(key)!r}: {message}. It is {options[key].text()}"


def _unknown(section: str | None, name: str | None, key: str) -> str:
    dotted = f"{section}.{key}" if section else key
    known = section_options(section, name) if section else run_options()
    if section in SECTIONS:
        owners = [other for other in variants_with(section, key) if other != name]
        if owners:
            return f"{dotted} belongs to {', '.join(owners)}; this run uses {name}"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {section + '.' if section else ''}{close[0]}? " if close else ""
    return f"there is no option {dotted}: {hint}{name or section} has {', '.join(known) or 'no options'}"
