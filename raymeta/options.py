"""How hyper-parameters are declared: a frozen dataclass whose fields are the configuration schema.

Unknown keys are refused, values are checked where the object is made, and the text under a field is its help.
"""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
"""Pass to `pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)`."""
