"""The options of a class, read from its own schema: meaning, range and default."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One option: its dotted key, meaning, range in words, default (`REQUIRED` without one), and marks by name."""

    key: str
    meaning: str
    range: str
    default: Any
    marks: dict[str, str]

    def text(self) -> str:
        """In one line."""
        return f"{' '.join(self.meaning.split())} ({self.range})" if self.meaning else self.range


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
    return options_from(schema_of(cls), defaults, prefix)


def options_from(schema: dict[str, Any], defaults: dict[str, Any], prefix: str) -> dict[str, Option]:
    pieces = {name: schema.get("properties", {}).get(name, {}) for name in defaults}
    return {
        name: Option(prefix + name, piece.get("description", ""), _range(piece), defaults[name], _marks(piece))
        for name, piece in pieces.items()
    }


def _marks(piece: dict[str, Any]) -> dict[str, str]:
    marks: dict[str, str] = piece.get("x-marks", {})
    return marks


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
