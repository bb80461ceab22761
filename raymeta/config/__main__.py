"""Look at configurations: `python -m raymeta.config check|explain|diff|schema|algorithms`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymeta.config.catalogue import CATALOGUE, RULES, candidates
from raymeta.config.class_options import REQUIRED, Option, schema_of
from raymeta.config.describe import all_keys, run_options, section_options
from raymeta.config.layers import read_layer
from raymeta.config.load import dump, load_config
from raymeta.config.variants import SECTIONS, registry, variant_class
from raymeta.config.yaml_lines import parse
from raymeta.errors import ConfigError
from raymeta.options import OF_THE_PERSON, marked
from raymeta.presets.files import preset_names
from raymeta.runs import layout
from raymeta.system.command_line import Parser, add_verbose, run_command, say
from raymeta.system.text import did_you_mean, dotted, nearest


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="raymeta config", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    check = commands.add_parser("check", help="check configuration files, presets or runs")
    check.add_argument("sources", nargs="+", metavar="FILE|PRESET|RUN")
    explain = commands.add_parser("explain", help="meaning, range and default of an option; all without one")
    explain.add_argument("key", nargs="?")
    diff = commands.add_parser("diff", help="options in which two configurations differ")
    diff.add_argument("sources", nargs=2, metavar="FILE|PRESET|RUN")
    for command in (check, diff):
        command.add_argument("--trust", action="store_true", help="import the code that a run's folder names")
    schema = commands.add_parser("schema", help="print a JSON schema for editors")
    algorithms = commands.add_parser("algorithms", help="what each method learns, costs and is good for")
    algorithms.add_argument("--for", dest="wanted", metavar="TEXT", help="name candidates: '5 classes, "
                            "3 images each, no GPU', 'regression, moderate', 'any number of classes'")  # fmt: skip
    algorithms.add_argument("--markdown", action="store_true", help="as the page docs/algorithms.md")
    add_verbose(check, explain, diff, schema, algorithms)
    arguments = parser.parse_args(argv)
    actions = {
        "check": lambda: _check(arguments.sources, arguments.trust),
        "explain": lambda: _explain(arguments.key),
        "diff": lambda: _diff(*arguments.sources, trust=arguments.trust),
        "schema": _schema,
        "algorithms": lambda: _algorithms(arguments.wanted, arguments.markdown),
    }
    return run_command("config", actions[arguments.command], verbose=arguments.verbose)


def _resolved(source: str, trust: bool) -> dict[str, Any]:
    """The resolved, flattened configuration of a file, a run's folder or a preset."""
    from raymeta.config.schema import RunOptions  # with torch, which a mistyped option does not wait for

    path = Path(source)
    if path.is_dir():
        path = path / layout.CONFIG
    is_preset = not path.exists() and source in preset_names()
    loaded = load_config(preset=source) if is_preset else load_config(files=[path], trust=trust)
    said = {} if is_preset else read_layer(path).content  # also what a run's folder does not decide
    own = {key: said[key] for key in marked(RunOptions, OF_THE_PERSON) if key in said}
    return dotted(parse(dump(loaded.config), source).value | own)


def _check(sources: list[str], trust: bool) -> int:
    problems = []
    for source in sources:
        try:
            _resolved(source, trust)
            say(f"{source}: good")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return 0


def _explain(key: str | None) -> int:
    if key is None:
        print("\n".join(all_keys()))
        return 0
    key = key.lstrip("-").replace("-", "_")
    found = _options_named(key)
    if key in SECTIONS:
        print(f"{key}: one of {', '.join(registry(key))}, or an import path such as mypackage.module:MyClass")
    elif not found:
        hint = did_you_mean(nearest(key, all_keys(), most=3, cutoff=0.4), before=": ")
        raise ConfigError(f"there is no option {key}{hint}")
    for owner, option in found:
        default = "required" if option.default is REQUIRED else f"default {option.default}"
        parts = [option.text(), default, *option.marks.values()]
        print(f"{option.key}{f' ({owner})' if owner else ''}: {'; '.join(parts)}")
    return 0


def _options_named(key: str) -> list[tuple[str, Option]]:
    if key in run_options():
        return [("", run_options()[key])]
    section, dot, name = key.partition(".")
    if not dot and section not in SECTIONS:  # `inner_lr`: wherever it occurs
        return [found for s in (*SECTIONS, "outer") for found in _options_named(f"{s}.{key}")]
    if section == "outer":
        return [("", option) for n, option in section_options("outer").items() if n == name]
    if section not in SECTIONS:
        return []
    variants = [(variant, section_options(section, variant)) for variant in registry(section)]
    return [(variant, options[name]) for variant, options in variants if name in options]


def _diff(first: str, second: str, *, trust: bool) -> int:
    a, b = _resolved(first, trust), _resolved(second, trust)
    keys = [key for key in {**a, **b} if a.get(key, "absent") != b.get(key, "absent")]
    for key in keys:
        say(f"{key}: {a.get(key, '(absent)')} -> {b.get(key, '(absent)')}")
    if not keys:
        print("no difference")
    return 0


def _algorithms(wanted: str | None, markdown: bool) -> int:
    asked, names = ([], list(CATALOGUE)) if wanted is None else candidates(wanted)
    if wanted is not None:
        print(f"understood: {', '.join(wish.text for wish in asked)}")
    if not names:
        raise ConfigError("no method meets all of that: leave something out")
    if markdown:
        print(_page(names))
        return 0
    for name in names:
        entry = CATALOGUE[name]
        print(f"{name} ({entry.paper}): learns {entry.learns}")
        print(f"    choose it when {entry.choose}" if wanted is None else f"    {entry.choose}")
        print(
            f"    adapting: {entry.inner_cost}; memory: {entry.memory}; cost {entry.cost}; set first: {entry.set_first}"
        )
    return 0


def _page(names: Sequence[str]) -> str:
    """The catalogue as a page of the documentation."""
    head = "| method | paper | learns | adapting to a task | memory | cost | set first | choose it when |"
    rows = [
        f"| `{name}` | {e.paper} | {e.learns} | {e.inner_cost} | {e.memory} | {e.cost} | {e.set_first} | {e.choose} |"
        for name, e in ((name, CATALOGUE[name]) for name in names)
    ]
    rules = [f"- {example}" for example, _, _ in RULES]
    return "\n".join(
        [
            "# Methods",
            "",
            "Written by `raymeta config algorithms --markdown`. `raymeta config algorithms --for TEXT` chooses.",
            "",
            head,
            "|---" * 8 + "|",
            *rows,
            "",
            "## How candidates are named",
            "",
            "The text is parts between commas, each of which must be met. Cheaper methods come first. Understood are:",
            "",
            *rules,
        ]
    )


def _schema() -> int:
    from raymeta.config.schema import RunOptions
    from raymeta.engine.driver.outer import OuterOptions

    top = schema_of(RunOptions)
    properties = {**top["properties"], "outer": schema_of(OuterOptions)}
    for section in SECTIONS:
        variants: list[dict[str, Any]] = [{"type": "string"}]
        for name in registry(section):
            cls: Any = variant_class(section, name)
            schema = schema_of(cls)
            variants.append({**schema, "properties": {"name": {"const": name}, **schema.get("properties", {})}})
        properties[section] = {"anyOf": variants}
    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "raymeta configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    print(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
