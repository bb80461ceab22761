"""From layers to a configuration: defaults < preset < files < command line, with all mistakes told at once."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raymeta.config import light, yaml_lines
from raymeta.config.describe import known_entry, run_options, section_options
from raymeta.config.layers import OF_PRESET, UNASKED, Layer, Layers, Override, override_layer, read_layer
from raymeta.config.mistakes import is_known, note, note_missing, one_for_a_choice, unknown
from raymeta.config.strangers import give, is_of_a_run, left_to_the_person, refusal, untrusted
from raymeta.config.variants import SECTIONS, name_of, registry, require_name, section_of, variant_class
from raymeta.config.yaml_lines import KeyPath
from raymeta.errors import ConfigError
from raymeta.options import OF_THE_PERSON, OUTPUT, marked
from raymeta.presets.files import DEFAULT, preset_names, preset_path
from raymeta.system.redact import without_secrets
from raymeta.system.their_code import described, recorded

if TYPE_CHECKING:
    from raymeta.config.schema import RunConfig

__all__ = ["Loaded", "Override", "dump", "load_config"]


class Loaded(NamedTuple):
    """A checked configuration, and what a person should know about how it came about."""

    config: RunConfig
    notes: list[str]
    left_out: dict[str, str]  # by option: of a run's folder, where nobody else said it


def load_config(
    *,
    preset: str | None = None,
    files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    foreign: bool = False,
    trust: bool = False,
) -> Loaded:
    """Merge the layers and check everything.

    A preset named by an override counts before `preset`, and that before the last file that names one. Switching a
    variant starts from the new variant's own defaults; what is dropped is told in the notes. A mapping of overrides
    holds dotted keys; its values may be instances of algorithms, task sets and model specifications.

    Files that lie in a run's folder, or all of them where they are `foreign`, do not decide what is left to the person,
    and name code to import only where they are trusted, see `strangers`.

    Raises `ConfigError` with all mistakes at once, each with its origin, the option's meaning and its range.
    """
    return finished(merged(preset=preset, files=files, overrides=overrides, foreign=foreign, trust=trust))


def merged(
    *,
    preset: str | None = None,
    files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    foreign: bool = False,
    trust: bool = False,
    whole: bool = True,
) -> Layers:
    """The first half of `load_config`: all layers on top of each other, and the mistakes that show without torch.

    An option that has to be given is no mistake unless they are `whole`.
    """
    layers = Layers(whole=whole)
    from_files = _read_all(files, foreign)
    listed = _as_overrides(overrides)
    for layer in [*from_files, *map(override_layer, listed)]:
        if not layer.foreign:
            _give(layer)
    presets = [layer.content.pop("preset") for layer in from_files if "preset" in layer.content]
    presets += [preset] if preset is not None else []
    presets += [o.value for o in listed if o.key == "preset"]
    unasked = not presets and not files
    _add_preset(layers, DEFAULT if unasked else presets[-1] if presets else None, unasked=unasked)
    for layer in from_files:
        _add(layers, layer, trust)
    # Variants first, so that the order of options on a command line does not matter.
    unnamed = [o for o in listed if o.key in SECTIONS and o.value is None]
    layers.errors += [f"{o.origin}: {o.key} needs a name: one of {', '.join(registry(o.key))}" for o in unnamed]
    for override in sorted(listed, key=lambda o: o.key not in SECTIONS and not o.key.endswith(".name")):
        if override.key != "preset":
            _add(layers, override_layer(override), trust)
    _look(layers)
    _require_no_errors(layers)
    return layers


def finished(layers: Layers) -> Loaded:
    """The second half: objects of the classes that the layers name, with which torch comes."""
    left_out = {key: text for key, text in layers.left_out.items() if key not in layers.values}
    return Loaded(_checked(layers), layers.notes(), left_out)


def _add_preset(layers: Layers, preset: Any, *, unasked: bool) -> None:
    if preset is None:
        return
    if preset is True:  # `--preset` without a value
        raise ConfigError(f"--preset needs a name: one of {', '.join(preset_names())}")
    name = str(preset)
    layers.add(read_layer(preset_path(name), UNASKED if unasked else f"{OF_PRESET}{name}"))
    layers.values["preset"] = name


def _require_no_errors(layers: Layers) -> None:
    if layers.errors:
        raise ConfigError("\n".join(dict.fromkeys(layers.errors)))


def _add(layers: Layers, layer: Layer, trust: bool) -> None:
    if layer.foreign:
        from raymeta.config.schema import RunOptions

        content, notes = left_to_the_person(layer.content, marked(RunOptions, OF_THE_PERSON))
        layer = layer._replace(content=content)
        layers.left_out |= notes
        layers.guarded |= not trust
        if trust:  # for the rest of this process
            give(layer.content)
    layers.add(layer)


def _give(layer: Layer) -> None:
    """Import paths that the person gave, as text or as instances of classes, are trusted in this process."""
    give(layer.content)
    for section in SECTIONS:
        value = layer.content.get(section)
        if not isinstance(value, str | dict | None) and section_of(value) == section:
            give([name_of(value), *vars(value).values()])


def _read_all(files: Sequence[Path], foreign: bool) -> list[Layer]:
    """The layers of all files, or one `ConfigError` for all that cannot be read."""
    layers, errors = [], []
    for path in files:
        try:
            layers.append(read_layer(path)._replace(foreign=foreign or is_of_a_run(path)))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return layers


def _as_overrides(overrides: Mapping[str, Any] | Sequence[Override]) -> list[Override]:
    if isinstance(overrides, Mapping):
        head = overrides.get("model.head") if _is_module(overrides.get("model")) else None
        return [
            Override(key, _recorded(key, value, head), f"option {key}")
            for key, value in overrides.items()
            if not (key == "model.head" and head is not None)
        ]
    return list(overrides)


def _recorded(key: str, value: Any, head: str | None) -> Any:
    """A Python caller's object as what a run can record of it; `head` is the one of a module."""
    if key == "model" and _is_module(value):
        from raymeta.models.instance import hand_over

        return hand_over(value, head)
    return recorded(value, key)


def _is_module(value: Any) -> bool:
    return any(cls.__module__ == "torch.nn.modules.module" for cls in type(value).__mro__)


def dump(config: RunConfig) -> str:
    """The configuration as YAML that loads to an equal one, except for credentials, which are left out."""
    content: dict[str, Any] = {name: getattr(config, name) for name in run_options()}
    for section in SECTIONS:
        instance = getattr(config, section)
        content[section] = {"name": name_of(instance)} | _fields(instance)
    content["outer"] = _fields(config.outer)
    return without_secrets(yaml_lines.write(_plain(content)))


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _look(layers: Layers) -> None:
    """Note what can be known without importing torch: unknown options, wrong types, bad choices, missing sections."""
    values = dict(layers.values)
    if known_entry("run", None) is None:  # then nothing is
        return
    for section in SECTIONS:
        value = values.pop(section, None)
        if value is None:
            note_missing(layers, section)
        elif isinstance(value, dict) and isinstance(name := value.get("name"), str):
            try:
                require_name(section, name)
            except ConfigError as error:
                layers.errors.append(f"{layers.origin((section, 'name'))}: {error}")
                continue
            _look_at(layers, {k: v for k, v in value.items() if k != "name"}, section, name)
    outer = values.pop("outer", {})
    if isinstance(outer, dict):
        _look_at(layers, outer, "outer", None)
    _look_at(layers, {key: value for key, value in values.items() if is_known(layers, key)}, None, None)


def _look_at(layers: Layers, values: dict[str, Any], section: str | None, name: str | None) -> None:
    entry = known_entry(section or "run", name)
    if entry is None:
        return
    good, _ = _good(layers, values, section, name)
    options, prefix = section_options(section, name) if section else run_options(), (section,) if section else ()
    for problem in one_for_a_choice(light.problems(entry, good)):
        note(layers, problem, prefix, options, good, values)


def _checked(layers: Layers) -> RunConfig:
    from pydantic import ValidationError

    from raymeta.config.schema import RunConfig, RunOptions
    from raymeta.engine.driver.outer import OuterOptions

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
    top = {key: value for key, value in values.items() if is_known(layers, key)}
    options = _validated(layers, RunOptions, top, None, None)
    _require_no_errors(layers)
    try:
        return RunConfig(**{name: getattr(options, name) for name in RunOptions.model_fields}, **parts)
    except ValidationError as error:
        raise ConfigError("\n".join(str(e["msg"]) for e in error.errors())) from error


def _variant(layers: Layers, section: str, value: Any) -> Any:
    if value is None:
        note_missing(layers, section)
        return None
    if section_of(value) == section:
        if not dataclasses.is_dataclass(value):
            layers.errors.append(
                f"{layers.origin((section,))}: {type(value).__name__} must be a dataclass, so that a run can record "
                "its options: put @dataclass(frozen=True, kw_only=True) above it"
            )
        return value
    if not isinstance(value, dict):
        layers.errors.append(
            f"{layers.origin((section,))}: {section} is a name or a mapping of options, not a {type(value).__name__}"
        )
        return None
    options = dict(value)
    name = options.pop("name", None)
    if not isinstance(name, str):
        layers.errors.append(f"{layers.origin((section,))}: {section}.name is missing")
        return None
    if layers.guarded and name not in registry(section) and (text := refusal(section, name)):
        layers.errors.append(f"{layers.origin((section, 'name'))}: {text}")
        return None
    try:
        cls = variant_class(section, name)  # type: ignore[arg-type]
    except ConfigError as error:
        layers.errors.append(f"{layers.origin((section, 'name'))}: {error}")
        return None
    return _validated(layers, cls, options, section, name)


def _validated(layers: Layers, cls: type[Any], values: dict[str, Any], section: str | None, name: str | None) -> Any:
    """An instance of `cls`, or None after noting every mistake."""
    if layers.guarded and (refused := untrusted(cls, section, values)):
        layers.errors += [f"{layers.origin((section,) if section else ())}: {text}" for text in refused]
        return None
    from pydantic import ValidationError

    options = section_options(section, name) if section else run_options()
    prefix: KeyPath = (section,) if section else ()
    good, sound = _good(layers, values, section, name)
    try:
        instance = _strictly(cls, good, {k: v for k, v in layers.values.items() if k == OUTPUT})
    except ValidationError as error:
        for problem in one_for_a_choice(error.errors()):
            note(layers, problem, prefix, options, good, values)
    except ConfigError as error:
        layers.errors.append(f"{layers.origin(prefix)}: {error}")
    except (Exception, SystemExit) as error:  # of a person's own class
        layers.errors.append(f"{layers.origin(prefix)}: {section} {name} cannot be made: {described(error)}")
    else:
        return instance if sound else None
    return None


def _good(layers: Layers, values: dict[str, Any], section: str | None, name: str | None) -> tuple[dict[str, Any], bool]:
    """The values that can be looked at, and whether those are all; of the others the mistakes are noted."""
    options = section_options(section, name) if section else run_options()
    prefix: KeyPath = (section,) if section else ()
    good, sound = {}, True
    for key, value in values.items():
        path = (*prefix, key)
        if key not in options:
            layers.errors.append(f"{layers.origin(path)}: {unknown(section, name, key)}")
            sound = False
            continue
        if isinstance(value, bool | int | float) and options[key].range.startswith("text"):
            value = layers.texts.get(path, value)  # `--name 2026` is text, whatever it looks like
        if isinstance(value, str | bool | int | float):
            value = _items(layers.texts.get(path), value, options[key].range)
        if isinstance(value, float) and not math.isfinite(value):
            where, dotted = layers.origin(path), ".".join(path)
            layers.errors.append(f"{where}: {dotted} {value} should be a finite number. It is {options[key].text()}")
            sound = False
            continue
        if (text := _no_utf8(value)) is not None:
            layers.errors.append(
                f"{layers.origin(path)}: {'.'.join(path)} {text!r} is no UTF-8, in which a run records its options: "
                "rename it, or make a link to it with another name (ln -s) and give that"
            )
            sound = False
            continue
        good[key] = value
    return good, sound


def _items(text: str | None, value: Any, range_: str) -> Any:
    """The items of a list that was written without brackets: `40,40`, `dog,cat`, or one of them alone."""
    if not range_.startswith("list") or range_.endswith("a,b") or not (text or "").strip():
        return value
    items = [item.strip() for item in str(text).split(",")]
    return items if range_.startswith("list of text") else [yaml_lines.scalar(item) for item in items]


def _no_utf8(value: Any) -> str | None:
    """A text in `value` that cannot be written; Python holds bytes of other encodings in lone surrogates."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next((found for item in value if (found := _no_utf8(item)) is not None), None)
    if not isinstance(value, str | os.PathLike):
        return None
    text = os.fspath(value)
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return str(text)
    return None


def _strictly(cls: type[Any], values: dict[str, Any], context: dict[str, Any]) -> Any:
    """`cls(**values)` without conversions such as "yes" to true or "007" to 7, as far as values are what files hold.

    JSON is the mode of pydantic that is strict about types and still takes a list for a tuple. `context` is for
    validators.
    """
    from pydantic import TypeAdapter

    try:
        text = json.dumps(values, default=os.fspath)
    except TypeError:  # a Python caller's objects, which mean what they are
        return TypeAdapter(cls).validate_python(values, context=context)
    return TypeAdapter(cls).validate_json(text, strict=True, context=context)
