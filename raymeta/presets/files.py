"""The presets: complete configurations that come with raymeta, one YAML file each. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from raymeta.errors import ConfigError
from raymeta.system.text import did_you_mean, nearest

FOLDER = Path(__file__).parent
DEFAULT = "glyphs-5w1s-maml"
"""The preset of a run that names neither a preset nor a file."""


def preset_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of preset `name`, which may have _ for -, as algorithms do; raises `ConfigError` where there is none."""
    names, name = preset_names(), name.replace("_", "-")
    if name not in names:
        hint = did_you_mean(nearest(name, names), after=" ")
        raise ConfigError(f"there is no preset {name}: {hint}choose one of {', '.join(names)}")
    return FOLDER / f"{name}.yaml"


def description(name: str) -> str:
    """The first line of the preset's file, without its comment sign."""
    with open(preset_path(name), encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
