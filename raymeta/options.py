"""How hyper-parameters are declared: a frozen dataclass whose fields are the configuration schema.

Unknown keys are refused, values are checked where the object is made, and the text under a field is its help. What else
must be known of an option is a mark in its annotation: `path: Annotated[str, IMPORTED]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import ConfigDict

STRICT: ConfigDict = {"extra": "forbid", "use_attribute_docstrings": True, "arbitrary_types_allowed": True}
"""Pass to `pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)`."""


class Mark(NamedTuple):
    """Something about an option beside its type, its meaning and its range."""

    text: str


OF_THE_PERSON = Mark("where work happens, or what is written where: never taken from a run's folder")
IMPORTED = Mark("an import path: code that a run's folder names is imported only where the person trusts it")


def marked(cls: Any, mark: Mark) -> list[str]:
    """Names of the options of `cls` with this mark."""
    fields = cls.__pydantic_fields__ if hasattr(cls, "__pydantic_fields__") else {}
    return [name for name, field in fields.items() if mark in field.metadata]
