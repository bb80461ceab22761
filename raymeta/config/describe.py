"""What each option means, its range and its default, read from the schema itself."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, NamedTuple

from raymeta.config.known import Entry, known
from raymeta.config.variants import SECTIONS, Section, registry, variant_class
from raymeta.errors import ConfigError


class Option(NamedTuple):
    """One option: its dotted key, meaning, range in words, and default (`REQUIRED` without one)."""

    key: str
    meaning: str
    range: str
    default: Any

    def text(self) -> str:
        return f"{self.meaning} ({self.range})" if self.meaning else self.range


REQUIRED = object()


@cache
def schema_of(cls: Any) -> dict[str, Any]:
    """JSON schema of an option class."""
    from pydantic import BaseModel, TypeAdapter

    schema = cls.model_json_schema() if issubclass(cls, BaseModel) else TypeAdapter(cls).json_schema()
    for name, piece in schema.get("properties", {}).items():
        if "description" not in piece and (meaning := _inherited_meaning(cls, name)):
            piece["description"] = meaning
    return schema


def _inherited_meaning(cls: type[Any], name: str) -> str | None:
    """The text under the field in a base class: pydantic reads only the class at hand."""
    fields = (base.__dict__.get("__pydantic_fields__", {}) for base in cls.__mro__)
    return next((f[name].description for f in fields if name in f and f[name].description), None)


@cache
def options_of(cls: Any, prefix: str = "") -> dict[str, Option]:
    """The options of a class by their name in it."""
    from pydantic import BaseModel

    if issubclass(cls, BaseModel):
        defaults = {n: f.get_default(call_default_factory=True) for n, f in cls.model_fields.items()}
    else:
        defaults = {f.name: _default(f) for f in dataclasses.fields(cls)}
    return _options(schema_of(cls), defaults, prefix)


def _options(schema: dict[str, Any], defaults: dict[str, Any], prefix: str) -> dict[str, Option]:
    properties = schema.get("properties", {})
    return {
        name: Option(
            prefix + name, properties.get(name, {}).get("description", ""), _range(properties.get(name, {})), d
        )
        for name, d in defaults.items()
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    default: Any = field.default
    if hasattr(default, "is_required"):  # pydantic's FieldInfo
        return REQUIRED if default.is_required() else default.get_default(call_default_factory=True)
    if default is not dataclasses.MISSING:
        return default
    factory = field.default_factory
    return factory() if callable(factory) else REQUIRED


def _range(schema: dict[str, Any]) -> str:
    """A range in words from a piece of JSON schema."""
    if "x-range" in schema:
        return str(schema["x-range"])
    if "anyOf" in schema:
        return " or ".join(_range(s) if s.get("type") != "null" else "null" for s in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}.get(
        schema.get("type", ""), schema.get("type", "any value")
    )
    if schema.get("type") == "array":
        kind = f"list of {_range(schema.get('items', {}))}" if schema.get("items") else "list"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema and abs(schema[key]) < 2**60
    ]
    return " ".join([kind, *([" and ".join(bounds)] if bounds else [])])


def section_options(section: str, name: str | None = None) -> dict[str, Option]:
    """Options under a section of the configuration; a variant's where the section has variants."""
    if known_entry(section, name) is not None:
        return _of_entry(section, name or "")
    if section == "outer":
        from raymeta.engine.outer import OuterOptions

        return options_of(OuterOptions, "outer.")
    if section in SECTIONS and name is not None:
        return options_of(variant_class(section, name), f"{section}.")  # type: ignore[arg-type]
    raise ConfigError(f"there is no section {section}")


def run_options() -> dict[str, Option]:
    """Options outside any section."""
    if known_entry("run", None) is not None:
        return _of_entry("run", "")
    from raymeta.config.schema import RunOptions

    return options_of(RunOptions)


def known_entry(section: str, name: str | None) -> Entry | None:
    """What is known of a class that comes with raymeta, without the class; `run` is what is outside any section."""
    return known().get(section, {}).get(name or "")


@cache
def _of_entry(section: str, name: str) -> dict[str, Option]:
    entry = known()[section][name]
    defaults = {key: REQUIRED if default is None else default for key, default in entry["defaults"].items()}
    return _options(entry["schema"], defaults, "" if section == "run" else f"{section}.")


def variants_with(section: Section, key: str) -> list[str]:
    """Names of the variants of `section` that have an option `key`."""
    return [name for name in registry(section) if key in section_options(section, name)]


def all_keys() -> list[str]:
    """Every dotted key of every variant."""
    keys = [*run_options(), *SECTIONS, *(o.key for o in section_options("outer").values())]
    for section in SECTIONS:
        for name in registry(section):
            keys += [o.key for o in section_options(section, name).values()]
    return sorted(set(keys))
