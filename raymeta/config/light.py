"""Values checked against the schema as data: what can be known of them without the classes, in the same words."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raymeta.config.known import Entry

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def problems(entry: Entry, values: dict[str, Any]) -> list[ErrorDetails]:
    """What pydantic finds wrong with `values`; nothing where they are objects of Python, or a validator has to look."""
    try:
        text = json.dumps(values, default=os.fspath)
    except (TypeError, ValueError):
        return []
    properties, defaults = entry["schema"].get("properties", {}), entry["defaults"]
    required = {name for name, default in defaults.items() if default is None and name not in values}
    asked = {name: piece for name, piece in properties.items() if name in values and not _is_plain(values[name], piece)}
    checked = asked | {name: properties[name] for name in required if name in properties}
    if not checked:
        return []

    from pydantic import ConfigDict, Field, ValidationError, create_model

    # Aliases, since a model takes no field that is called like one of its own methods.
    fields: dict[str, Any] = {f"f{i}": (_type(p), Field(alias=name)) for i, (name, p) in enumerate(checked.items())}
    model = create_model("Options", __config__=ConfigDict(allow_inf_nan=True), **fields)
    try:
        model.model_validate_json(text, strict=True)
    except ValidationError as error:
        return error.errors()
    return []


def _is_plain(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is certainly fine, which spares the import of pydantic."""
    if _is_left_open(schema):
        return True
    if "anyOf" in schema:
        return any(_is_plain(value, part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return isinstance(value, str) and value in schema.get("enum", [schema.get("const")])
    match schema.get("type"):
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str) and len(value) >= schema.get("minLength", 0) and "format" not in schema
        case "integer" | "number" as kind:
            return type(value) in ((int,) if kind == "integer" else (int, float)) and all(
                fits(value, schema[bound]) for bound, fits in _FITS.items() if bound in schema
            )
        case "array":
            return isinstance(value, list | tuple) and all(_is_plain(item, schema.get("items", {})) for item in value)
    return False


def _is_left_open(schema: dict[str, Any]) -> bool:
    """Whether a validator of its own looks at the value before its type counts."""
    return "x-range" in schema or "$ref" in schema or "prefixItems" in schema


def _type(schema: dict[str, Any]) -> Any:
    """The type that has this JSON schema, as far as errors show it; anything where a validator comes first."""
    from typing import Annotated, Literal, Optional, Union

    from pydantic import Field

    if _is_left_open(schema):
        return Any
    if "anyOf" in schema:
        types = [_type(part) for part in schema["anyOf"] if part.get("type") != "null"]
        union: Any = Union[tuple(types)]  # noqa: UP007  made at run time
        return Optional[union] if len(types) < len(schema["anyOf"]) else union  # noqa: UP045
    if "const" in schema or "enum" in schema:
        return Literal[tuple(schema.get("enum", [schema.get("const")]))]
    bounds = {ours: schema[theirs] for theirs, ours in _BOUNDS.items() if theirs in schema}
    match schema.get("type"):
        case "integer":
            whole: dict[str, Any] = {bound: int(value) for bound, value in bounds.items()}
            return Annotated[int, Field(**whole)]
        case "number":
            return Annotated[float, Field(**bounds)]
        case "boolean":
            return bool
        case "string" if "format" not in schema:
            return Annotated[str, Field(min_length=schema.get("minLength"))]
        case "array" if schema.get("items"):
            return list[_type(schema["items"])]  # type: ignore[misc]
    return Any


_FITS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge, "exclusiveMinimum": operator.gt, "maximum": operator.le, "exclusiveMaximum": operator.lt,
}  # fmt: skip
_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
