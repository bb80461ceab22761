"""How hyper-parameters are declared: a frozen dataclass whose fields are the configuration schema.

Unknown keys are refused, values are checked where the object is made, and the text under a field is its help. What else
must be known of an option is a mark in its annotation: `path: Annotated[str, IMPORTED]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetJsonSchemaHandler

STRICT: ConfigDict = {"extra": "forbid", "use_attribute_docstrings": True, "arbitrary_types_allowed": True}
"""Pass to `pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)`."""


OUTPUT = "output"
"""What a validator's context calls the folder, or URI, of the runs that options may name by id."""


class Mark(NamedTuple):
    """Something about an option beside its type, its meaning and its range.

    `about` is what holds of this option alone, such as what to write instead: `OWNED_BY_SWEEP.with_("write base")`.
    """

    name: str
    text: str
    about: str = ""

    def with_(self, about: str) -> Mark:
        return self._replace(about=about)

    def __str__(self) -> str:
        return f"{self.text} ({self.about})" if self.about else self.text

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        schema.setdefault("x-marks", {})[self.name] = str(self)
        return schema


OF_THE_PERSON = Mark(
    "of_the_person", "says where work happens or what is written where, and is never taken from a run's folder"
)
"""About an option: what happens where the person says nothing."""
IMPORTED = Mark("imported", "may be an import path: code that a run's folder names is imported only with --trust")
FREE_ON_RESUME = Mark("free_on_resume", "a resumed run may change it")
"""All other options change the result, so they belong to a new run."""
OF_WORKERS = Mark("of_workers", "without effect where workers is 0")
OF_MIXING = Mark("of_mixing", "without effect where no tasks are mixed")
OWNED_BY_SWEEP = Mark("owned_by_sweep", "decided by the sweep in its trials")
"""About an option: what to do instead."""
NOT_SEARCHED = Mark("not_searched", "the same in all trials of a sweep")
"""About an option: why, or what to do instead."""


def marked(cls: Any, mark: Mark) -> dict[str, str]:
    """Options of `cls` with this mark: what is said about each of them, by name."""
    fields = cls.__pydantic_fields__ if hasattr(cls, "__pydantic_fields__") else {}
    return {
        name: found.about
        for name, field in fields.items()
        for found in field.metadata
        if isinstance(found, Mark) and found.name == mark.name
    }
