"""What each option of a section means, its range and its default: as data where it is known, else from the class."""

from __future__ import annotations

from functools import cache

from raymeta.config.class_options import REQUIRED, Option, options_from, options_of
from raymeta.config.known import Entry, known
from raymeta.config.variants import SECTIONS, Section, registry, variant_class
from raymeta.errors import ConfigError


def section_options(section: str, name: str | None = None) -> dict[str, Option]:
    """Options under a section of the configuration; a variant's where the section has variants."""
    if known_entry(section, name) is not None:
        return of_entry(section, name or "")
    if section == "outer":
        from raymeta.engine.driver.outer import OuterOptions

        return options_of(OuterOptions, "outer.")
    if section in SECTIONS and name is not None:
        return options_of(variant_class(section, name), f"{section}.")  # type: ignore[arg-type]
    raise ConfigError(f"there is no section {section}")


def run_options() -> dict[str, Option]:
    """Options outside any section."""
    if known_entry("run", None) is not None:
        return of_entry("run", "")
    from raymeta.config.schema import RunOptions

    return options_of(RunOptions)


def known_entry(section: str, name: str | None) -> Entry | None:
    """What is known of a class that comes with raymeta, without the class; `run` is what is outside any section."""
    return known().get(section, {}).get(name or "")


@cache
def of_entry(section: str, name: str) -> dict[str, Option]:
    entry = known()[section][name]
    defaults = {key: REQUIRED if default is None else default for key, default in entry["defaults"].items()}
    return options_from(entry["schema"], defaults, "" if section == "run" else f"{section}.")


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
