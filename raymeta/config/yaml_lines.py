"""YAML as raymeta reads and writes it: every value knows its line, and scalars mean what they look like.

Unlike in YAML 1.1, only true and false are booleans (no, on and yes are text), `1e-3` is a number, whole numbers may be
written `6e4`, and digits with a leading zero (007) are text. A key may stand in a mapping once. Tags are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from raymeta.errors import ConfigError
from raymeta.system.reading import first_line
from raymeta.system.yaml_bounds import require_bounded

_TAG = "tag:yaml.org,2002:"
_NUMBER = r"(?:0|[1-9][0-9]*)"
_KINDS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(rf"[-+]?{_NUMBER}(?:[eE]\+?[0-9]{{1,2}})?"),
    "float": re.compile(
        rf"[-+]?(?:{_NUMBER}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}

MAX_VALUES = 100_000
MAX_DIGITS = 100

KeyPath = tuple[str, ...]


class Parsed(NamedTuple):
    """A document: its value, the line of every key and the text of every scalar by path, and repeated keys."""

    value: Any
    lines: dict[KeyPath, int]
    texts: dict[KeyPath, str]
    problems: list[str]
    left: Iterator[int]
    """Counts down with each value, as aliases may stand for more than any memory holds."""


def scalar(text: str) -> object:
    """The value that `text` stands for where it is not quoted."""
    return _convert(text, next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(text)), "str"))


def _convert(text: str, kind: str) -> object:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            digits, _, exponent = text.lower().partition("e")
            if len(digits) > MAX_DIGITS:
                return float(digits)  # which no option takes for a whole number
            return int(digits) * 10 ** int(exponent or 0)
        case "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return text


def parse(text: str, where: str) -> Parsed:
    """Read one document; `where` names it in errors.

    Raises `ConfigError` with line and column where it is no YAML, or more than a person writes.
    """
    parsed = Parsed(None, {}, {}, [], iter(range(MAX_VALUES)))
    _require_bounded(text, where)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where}:{line}: this is no YAML: it has the control character {error.character!r}"
        ) from error
    try:
        node = loader.get_single_node()
        value = None if node is None else _value(node, (), where, parsed, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = "" if mark is None else f":{mark.line + 1}: column {mark.column + 1}"
        text_of_it = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}{at}: this is no YAML: {text_of_it}") from error
    finally:
        loader.dispose()
    return parsed._replace(value=value)


def _require_bounded(text: str, where: str) -> None:
    try:
        require_bounded(text, aliases=True)
    except ValueError as error:
        raise ConfigError(f"{where}: {first_line(error)}") from error
    except yaml.YAMLError:
        return  # told below, with the line


def _value(node: yaml.Node, path: KeyPath, where: str, parsed: Parsed, above: tuple[yaml.Node, ...]) -> Any:
    if next(parsed.left, None) is None:
        raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES:,} values", problem_mark=node.start_mark)
    if any(node is other for other in above):
        raise yaml.MarkedYAMLError(problem="an alias that contains itself", problem_mark=node.start_mark)
    above = (*above, node)
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.ScalarNode) and (kind == "str" or kind in _KINDS):
        parsed.texts[path] = node.value
        if kind != "str" and not _KINDS[kind].fullmatch(node.value):
            raise yaml.MarkedYAMLError(problem=f"{node.value!r} is no {kind}", problem_mark=node.start_mark)
        return _convert(node.value, kind)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_value(item, (*path, str(i)), where, parsed, above) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return _mapping(node, path, where, parsed, above)
    raise yaml.MarkedYAMLError(problem=f"tag {node.tag} is not supported", problem_mark=node.start_mark)


def _mapping(
    node: yaml.MappingNode, path: KeyPath, where: str, parsed: Parsed, above: tuple[yaml.Node, ...]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
        key = key_node.value
        below = (*path, key)
        if key in result:
            parsed.problems.append(
                f"{where}:{line}: {'.'.join(below)} is given twice (before in line {parsed.lines[below]}): keep one"
            )
            continue
        parsed.lines[below] = line
        result[key] = _value(value_node, below, where, parsed, above)
    return result


class _Loader(yaml.SafeLoader):
    """Composes nodes with the scalars described above; nothing is ever constructed from tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # PyYAML's own class attribute, emptied


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or `scalar` would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


for _kind, _pattern in _KINDS.items():
    for _cls in (_Loader, _Dumper):
        _cls.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern.pattern})$"), None)
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True))


def write(value: dict[str, Any]) -> str:
    """A mapping as YAML in its own order, lists on one line; `parse` reads it back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
