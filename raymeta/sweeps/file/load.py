"""From a sweep file to a sweep whose every value was checked, before Ray is started."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raymeta.config import yaml_lines
from raymeta.config.build import build
from raymeta.config.class_options import options_of
from raymeta.config.layers import Override
from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.config.strangers import give, is_of_a_run, require_trusted
from raymeta.config.yaml_lines import Parsed
from raymeta.errors import ConfigError, DataError, RaymetaWarning
from raymeta.options import NOT_SEARCHED, OWNED_BY_SWEEP, marked
from raymeta.presets.files import DEFAULT, preset_names
from raymeta.sweeps.file.checks import disagreements
from raymeta.sweeps.file.parse import SpaceParser
from raymeta.sweeps.file.schema import SweepFile
from raymeta.sweeps.file.space import Case, Point, Space, describe
from raymeta.sweeps.file.sweep import Sweep
from raymeta.system.reading import first_line, read_text
from raymeta.system.text import did_you_mean, nearest

OWNED = marked(RunConfig, OWNED_BY_SWEEP)
"""Configuration keys that the sweep decides, and what to do instead."""


def load_sweep(
    path: Path,
    *,
    overrides: Sequence[Override] = (),
    changes: Mapping[str, Any] | None = None,
    check: bool = True,
    foreign: bool | None = None,
    trust: bool = False,
) -> Sweep:
    """Read and check a sweep file.

    Args:
        overrides: configuration keys for all trials, over those of the file.
        changes: keys of the sweep itself that replace the file's, such as `samples`.
        foreign: whether it stands in a sweep's folder and may be a stranger's; found out unless given.
        trust: import the code that such a file names.
        check: also load every end and option of the space, and build their models and data.

    Raises `ConfigError` with all mistakes that can be seen at once, each with its line; `DataError`.
    """
    parsed, where = _read(path)
    foreign = is_of_a_run(path) if foreign is None else foreign
    if foreign and not trust:
        give([override.value for override in overrides])
        require_trusted([parsed.value.get(key) for key in ("space", "options")], where)
    file = _file({**parsed.value, **(changes or {})}, parsed, where)
    parser = SpaceParser(where, parsed.lines)
    space = parser.parse(file.space)
    errors = [*parsed.problems, *parser.errors, *_forbidden(file, space, parsed, where)]
    errors += _forbidden_on_the_command_line(overrides, space)
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(errors)))
    options = [Override(k, v, _at(parsed, where, ("options", k)), foreign=foreign) for k, v in file.options.items()]
    listed = (*options, *overrides)
    base = _base(file, path, _at(parsed, where, ("base",)))
    loaded = load_config(preset=base[0], files=base[1], overrides=listed, foreign=foreign, trust=trust)
    for key, text in loaded.left_out.items():
        if key == "mirror":  # the others are never those of the base
            warnings.warn(text, RaymetaWarning, stacklevel=2)
    bare = loaded.config
    if file.report_every is None and bare.validate_every == 0:
        raise ConfigError(f"{where}: the base never validates (validate_every 0): write report_every")
    sweep = Sweep(file, space, file.name or path.stem, base, listed, bare, foreign, trust)
    if errors := [f"{_at(parsed, where, at)}: {text}" for at, text in disagreements(sweep)]:
        raise ConfigError("\n".join(errors))
    if check:
        _check_cases(sweep)
    return sweep


def _read(path: Path) -> tuple[Parsed, str]:
    where = str(path)
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such sweep file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {first_line(error)}") from error
    parsed = yaml_lines.parse(text, where)
    if not isinstance(parsed.value, dict):
        raise ConfigError(f"{where}: a sweep is a mapping with at least `space`")
    return parsed, where


def _at(parsed: Parsed, where: str, path: Sequence[str]) -> str:
    path = tuple(path)
    while path and path not in parsed.lines:
        path = path[:-1]
    return f"{where}:{parsed.lines[path]}" if path else where


def _file(content: dict[str, Any], parsed: Parsed, where: str) -> SweepFile:
    try:
        return SweepFile.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(_explained(problem, parsed, where) for problem in error.errors())) from error


def _explained(problem: Any, parsed: Parsed, where: str) -> str:
    # A discriminated part puts its name into the location: ("scheduler", "asha", "grace_period").
    loc = [str(part) for part in problem["loc"]]
    names = [p for i, p in enumerate(loc) if not (i == 1 and loc[0] in ("scheduler", "search"))]
    at, dotted = _at(parsed, where, names), ".".join(names)
    if problem["type"] == "extra_forbidden":
        known = _siblings(names, loc)
        longer = [name for name in known if name.startswith(names[-1])]
        hint = did_you_mean(longer[:1] or nearest(names[-1], known, cutoff=0.5), after=" ")
        owner = f"{names[0]} {loc[1]}" if len(loc) > len(names) else ".".join(names[:-1]) or "a sweep"
        return f"{at}: there is no key {dotted}: {hint}{owner} has {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{at}: {dotted} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    given = "" if isinstance(problem["input"], dict) else f" {problem['input']!r}"
    option = options_of(SweepFile).get(names[0])
    meaning = f". {names[0]}: {option.meaning}" if option else ""
    return f"{at}: {dotted}{given}{'' if message.startswith('should') else ':'} {message}{meaning}"


def _siblings(names: Sequence[str], loc: Sequence[str]) -> list[str]:
    from raymeta.sweeps.file import schema

    parts: dict[str, Any] = {"resources": schema.Resources, "stop": schema.StopRules}
    if len(loc) > len(names):
        classes = [c for c in vars(schema).values() if isinstance(c, type) and issubclass(c, schema.Part)]
        cls = next(c for c in classes if "name" in c.model_fields and c.model_fields["name"].default == loc[1])
    elif len(names) > 2 and names[1] == "when":
        cls = schema.Rule
    else:
        cls = parts[names[0]] if len(names) > 1 else SweepFile
    return [field.alias or name for name, field in cls.model_fields.items()]


def _forbidden(file: SweepFile, space: Space, parsed: Parsed, where: str) -> Iterator[str]:
    for key in file.options:
        if key in OWNED:
            yield f"{_at(parsed, where, ('options', key))}: options.{key} is decided by the sweep: {OWNED[key]}"
    for dimension in space.all():
        reason = (OWNED | marked(RunConfig, NOT_SEARCHED)).get(dimension.key)
        if reason is not None:
            yield f"{dimension.where}: {dimension.key} cannot be searched: {reason}"
        elif dimension.key in file.options:
            yield f"{dimension.where}: {dimension.key} stands in options too: keep one"


def _forbidden_on_the_command_line(overrides: Sequence[Override], space: Space) -> Iterator[str]:
    """Options for all trials that the sweep would replace without a word."""
    searched = {dimension.key: dimension.where for dimension in space.all()}
    for override in overrides:
        key = override.key.removesuffix(".name")
        if key in OWNED:
            yield f"{override.origin}: {key} is decided by the sweep file: {OWNED[key]} there"
        elif key in searched:
            yield f"{override.origin}: {key} is searched ({searched[key]}): leave one of them out"


def _base(file: SweepFile, path: Path, at: str) -> tuple[str | None, tuple[Path, ...]]:
    name = file.base or DEFAULT
    if name in preset_names():
        return name, ()
    beside = path.parent / name
    if beside.is_file():
        return None, (beside,)
    hint = did_you_mean(nearest(name, preset_names()), after=" ")
    raise ConfigError(f"{at}: base {name} is neither a preset nor a file {beside}: {hint}see `raymeta presets`")


def _check_cases(sweep: Sweep) -> None:
    """Load every end of every range and every option; build each model and data set that is new."""
    errors: dict[str, None] = {}
    built: set[str] = set()
    for case in sweep.space.cases():
        try:
            config = sweep.config(case.point, _origins(sweep.space, case.point))
        except ConfigError as error:
            errors |= dict.fromkeys(str(error).splitlines())
            continue
        if problem := _does_not_build(config, case, built):
            errors[problem] = None
    if errors:
        raise ConfigError("\n".join(errors))


def _origins(space: Space, point: Point) -> dict[str, str]:
    return {dimension.key: dimension.where for dimension in space.walk(point)}


def _does_not_build(config: RunConfig, case: Case, built: set[str]) -> str | None:
    identity = repr((config.tasks, config.model, config.batch_norm, config.vectorize, type(config.algorithm)))
    if identity in built:
        return None
    built.add(identity)
    try:
        build(config)
    except DataError:
        raise
    except ConfigError as error:
        return f"{case.dimension.where}: with {describe(case.point)}: {error}"
    return None
