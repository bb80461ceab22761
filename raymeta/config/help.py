"""The help of `raymeta train`: in groups, with the defaults of a run that says nothing, as wide as the terminal."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raymeta.config.arguments import Flag
from raymeta.config.class_options import REQUIRED, Option
from raymeta.config.describe import known_entry, run_options, section_options
from raymeta.config.layers import Override
from raymeta.config.load import merged
from raymeta.config.variants import BUILT_IN, SECTIONS, Section, registry, variant_class
from raymeta.presets.files import DEFAULT, preset_names

GROUPS: dict[str, tuple[str, ...]] = {
    "what is trained": (
        "steps", "meta_batch_size", "seed", "loss", "class_weights", "label_smoothing", "batch_norm", "start", "freeze",
        "metrics",
    ),
    "training tasks made of others": (
        "mixing", "mixing_beta", "mixing_layers", "channel_shuffle", "channel_shuffle_after",
    ),
    "validation, test, checkpoints": (
        "validate_every", "validation_episodes", "test_episodes", "checkpoint_every", "keep_checkpoints", "time_limit",
    ),
    "where it goes": ("name", "preset", "tags", "output", "mirror"),
    "speed and memory": (
        "device", "precision", "deterministic", "compile", "vectorize", "shard_size", "chunk_size",
        "checkpoint_inner_steps", "threads_per_worker",
    ),
    "Ray workers": (
        "workers", "min_workers", "max_workers", "address", "cpus_per_worker", "gpus_per_worker", "accelerator_type",
        "node_labels", "placement", "aggregate", "autoscaling", "overlap_validation", "worker_wait", "shard_timeout",
    ),
}  # fmt: skip
"""Options outside any section, by what they are about."""
EXAMPLES = (
    ("raymeta train", f"the preset {DEFAULT}, in this process"),
    ("raymeta train --algorithm protonet --tasks.shot 5", "another method, five examples a class"),
    ("raymeta train --preset sinusoid-maml --workers 2", "another preset, on two Ray workers"),
    ("raymeta train --tasks images --tasks.root photos", "images of your own, a folder for each class"),
    ("raymeta train --resume", "go on with the latest run that was stopped"),
    ("raymeta train --algorithm reptile --help", "the options of another method"),
)
_MOST_COLUMNS = 100


def help_text(flags: Sequence[Flag], overrides: Sequence[Override] = ()) -> str:
    """Flags, presets, a line for each variant, and the options of those that `overrides` choose.

    Defaults are those of a run with these `overrides`, its preset included.
    """
    chosen = [o for o in overrides if o.key in SECTIONS or o.key == "preset"]
    values = merged(overrides=chosen, whole=False).values
    lines = [
        "usage: raymeta train [-c FILE] [--preset NAME] [--KEY VALUE ...]",
        "",
        *_wrapped(
            f"Options are configuration keys: --KEY VALUE, --KEY=VALUE or KEY=VALUE; - equals _, lists are a,b,c. "
            f"Without -c and --preset, a run starts from the preset {DEFAULT}. In brackets: what counts unless given, "
            f"with preset {values.get('preset')}. `raymeta config explain KEY` tells of every option there is.",
            "",
        ),
        "",
        "examples",
        *(f"  {command:52} {text}" for command, text in EXAMPLES),
        "",
        "flags",
        *(line for flag in flags for line in _entry(f"{', '.join(flag.names)} {flag.metavar}".strip(), flag.help)),
    ]
    for title, names in _groups().items():
        lines += ["", title, *_options([run_options()[name] for name in names], values)]
    for section in SECTIONS:
        lines += ["", *_section(section, values[section])]
    outer = section_options("outer").values()
    lines += ["", "outer optimiser (defaults depend on the algorithm)", *_options(outer, values.get("outer", {}))]
    lines += ["", *_wrapped(f"presets: {', '.join(preset_names())}; `raymeta presets` describes them", "")]
    return "\n".join(lines)


def _groups() -> dict[str, tuple[str, ...]]:
    """`GROUPS`, with options that stand in none of them at the end."""
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in run_options() if name not in grouped)
    return GROUPS | ({"others": others} if others else {})


def _section(section: Section, chosen: Mapping[str, Any]) -> Iterator[str]:
    yield f"--{section} NAME, one of these or an import path (mypackage.module:MyClass)"
    for name in registry(section):
        yield from _entry(name, _first_paragraph(section, name))
    name = chosen["name"]
    yield ""
    yield f"options of {section} {name}"
    yield from _options(section_options(section, name).values(), chosen)


def _first_paragraph(section: Section, name: str) -> str:
    entry = known_entry(section, name)
    if entry is None and name not in BUILT_IN[section]:  # of an installed package: told by its own options
        return ""
    text = inspect.getdoc(variant_class(section, name)) if entry is None else entry["schema"].get("description")
    return " ".join((text or "").partition("\n\n")[0].split())


def _options(options: Any, values: Mapping[str, Any]) -> Iterator[str]:
    for option in options:
        yield from _entry(f"--{option.key}", f"{option.text()}{_default(option, values)}")


def _default(option: Option, values: Mapping[str, Any]) -> str:
    """What counts unless it is given: the preset's value, else the option's own."""
    name = option.key.rpartition(".")[2]
    if name in values:
        return f" [{values[name]}]"
    return (
        ""
        if option.default is REQUIRED or str(option.default) in ("None", "", "[]", "{}", "()")
        else f" [{option.default}]"
    )


def _entry(name: str, text: str) -> list[str]:
    """`  NAME  text`, the text in a column of its own."""
    column = 26
    lines = _wrapped(text, " " * column) or [""]
    head = f"  {name}"
    if len(head) < column - 1:
        return [head.ljust(column) + lines[0].strip(), *lines[1:]]
    return [head, *lines] if text else [head]


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(shutil.get_terminal_size((_MOST_COLUMNS, 24)).columns, _MOST_COLUMNS)
    return textwrap.wrap(text, max(width, 50), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
