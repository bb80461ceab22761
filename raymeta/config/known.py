"""The options that come with raymeta as data beside the code, so that mistakes are told before torch is imported.

`options.json` is made from the classes by `python -m raymeta.config.known`, and counts only as long as the sources that
it was made from are the same: with others, everything is read from the classes again, which takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from raymeta.system.files import write_whole
from raymeta.system.reading import read_json

FILE = Path(__file__).with_name("options.json")
_ROOT = Path(__file__).parents[1]
_SOURCES = (
    "adaptation", "algorithms", "models", "tasks", "config/schema.py", "config/class_options.py", "config/variants.py",
    "engine/driver/outer.py", "engine/worker/numerics.py", "engine/executors/placement.py", "options.py",
)  # fmt: skip

Entry = dict[str, Any]
"""A class: `schema`, its JSON schema, and `defaults`, by option what people are shown; null where one is required."""


@cache
def known() -> dict[str, dict[str, Entry]]:
    """Entries by section and variant; `run` and `outer` have one, under an empty name. Empty where they may be old."""
    try:
        content = read_json(FILE)
    except (OSError, ValueError):
        return {}
    entries: dict[str, dict[str, Entry]] = content.get("entries", {})
    return entries if content.get("sources") == sources_sha256() else {}


def sources_sha256() -> str:
    """What the entries were made from."""
    found = hashlib.sha256()
    for name in _SOURCES:
        place = _ROOT / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(f"{path.name}\n".encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()


def made() -> dict[str, Any]:
    """The content of `options.json`, from the classes."""
    from raymeta.config.class_options import REQUIRED, options_of, schema_of
    from raymeta.config.schema import RunOptions
    from raymeta.config.variants import BUILT_IN, variant_class
    from raymeta.engine.driver.outer import OuterOptions

    def entry(cls: Any) -> Entry:
        options = options_of(cls).items()
        return {
            "schema": schema_of(cls),
            "defaults": {name: None if o.default is REQUIRED else str(o.default) for name, o in options},
        }

    entries = {"run": {"": entry(RunOptions)}, "outer": {"": entry(OuterOptions)}}
    for section, names in BUILT_IN.items():
        entries[section] = {name: entry(variant_class(section, name)) for name in names}
    return {"sources": sources_sha256(), "entries": entries}


def main() -> int:
    """Write the file; returns the exit code."""
    write_whole(FILE, json.dumps(made(), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
