"""The rooms: what docs/design.md lists is what is there, imports go down the list, and none go in a circle."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import raymeta

ROOT = Path(raymeta.__file__).parent
DOCUMENT = (ROOT.parent / "docs" / "design.md").read_text(encoding="utf-8")
WORDS = {"errors", "keys", "options", "tree"}
FILES = {".".join(("raymeta", *p.relative_to(ROOT).with_suffix("").parts)): p for p in sorted(ROOT.rglob("*.py"))}
OPEN: set[tuple[str, str]] = set()
"""Imports (importer, imported) that go up or close a circle and are still to be undone."""


def listing() -> list[str]:
    """The lines of the list of rooms, each with those that continue it."""
    section = re.search(r"^## Rooms\n.*?^```\n(.*?)^```", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    assert section is not None, "docs/design.md has no list of rooms"
    return re.sub(r"\n +", " ", section[1]).splitlines()


def rooms() -> list[str]:
    """The folders of the list, in its order."""
    return [line.split("/")[0] for line in listing() if re.match(r"\w+/", line)]


def module_at(name: str) -> str | None:
    """The file that an import of `name` reads: a module, or a package's `__init__`."""
    return name if name in FILES else f"{name}.__init__" if f"{name}.__init__" in FILES else None


def imports(module: str) -> set[str]:
    """The files that a file imports, in functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_at(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {module_at(f"{node.module}.{alias.name}") or module_at(node.module) for alias in node.names}
    return {name for name in found if name is not None} - {module}


GRAPH = {module: imports(module) for module in FILES}


def level(module: str) -> int:
    """How far down a file stands: commands are above the first room, the words below the last."""
    room = module.split(".")[1]
    if room in WORDS:
        return len(rooms())
    return rooms().index(room) if room in rooms() else -1


def test_the_document_lists_what_is_there() -> None:
    files = {name for line in listing() for name in re.findall(r"\w+\.py", line.split("   ")[0])}
    assert files == {path.name for path in ROOT.glob("*.py")}
    folders = {path.parent for path in ROOT.rglob("*.py")} - {ROOT}
    assert sorted(rooms()) == sorted(folder.name for folder in folders if folder.parent == ROOT)
    inner = {room: set(re.findall(r"\b(\w+)/(?= |$|\))", line.partition("/")[2])) for line, room in _room_lines()}
    data = {path.parent for pattern in ("*.json", "*.js") for path in ROOT.rglob(pattern)} - folders
    there = {room: set[str]() for room in rooms()}
    for folder in folders | data:
        if folder.parent != ROOT:
            there[folder.relative_to(ROOT).parts[0]].add(folder.name)
    there["tasks"].discard("omniglot")  # a task set that is a folder, as others are files
    assert inner == there


def _room_lines() -> list[tuple[str, str]]:
    return [(line, line.split("/")[0]) for line in listing() if re.match(r"\w+/", line)]


def test_at_the_top_stand_commands_and_words() -> None:
    for path in ROOT.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        names |= {a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert path.stem in WORDS | {"__init__"} or "main" in names, f"{path.name} belongs in a room"


@pytest.mark.parametrize("path", sorted({p.parent for p in FILES.values()}), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_folder_says_what_lives_in_it(path: Path) -> None:
    said = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8")))
    assert said
    assert len(said) > 40


def test_imports_go_down_the_list() -> None:
    up = {
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if module not in ("raymeta.__init__", "raymeta.__main__") and other != "raymeta.__init__"
        if module.split(".")[1] != other.split(".")[1] and level(other) <= level(module) < len(rooms())
    }
    up |= {(m, o) for m, others in GRAPH.items() if level(m) == len(rooms()) for o in others if level(o) < level(m)}
    assert up - OPEN == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {m: {o for o in others if (m, o) not in OPEN} for m, others in GRAPH.items() if m != "raymeta.__init__"}
    assert circle(graph) is None


def test_a_circle_would_be_noticed() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Files each of which imports the next, the last the first; None where there are none."""
    done: set[str] = set()

    def search(module: str, way: list[str]) -> list[str] | None:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        found = next((f for other in sorted(graph.get(module, ())) if (f := search(other, [*way, module]))), None)
        done.add(module)
        return found

    return next((found for module in sorted(graph) if (found := search(module, []))), None)


def test_no_open_import_is_gone() -> None:
    assert {(module, other) for module, other in OPEN if other not in GRAPH.get(module, ())} == set()
