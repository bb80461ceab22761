"""The README says what is: its commands parse, its examples run, its tables and numbers are those of the files."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import program
from commands import parse

from raymeta import evaluate, train
from raymeta.config.describe import all_keys
from raymeta.config.variants import BUILT_IN
from raymeta.errors import ConfigError
from raymeta.presets.files import preset_names

HOME = Path(__file__).parents[2]
README = (HOME / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((HOME / "examples").glob("own_*.py"))
DOCUMENTS = [
    HOME / "README.md",
    *sorted((HOME / "docs").rglob("*.md")),
    HOME / "CONTRIBUTING.md",
    HOME / "cluster" / "README.md",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


PROSE = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`([^`\n]+)`", PROSE)
LINES = [line for block in blocks("bash") for line in block.splitlines() if line]
SHOWN = [*LINES, *(code for code in INLINE if code.startswith("raymeta ") and "COMMAND" not in code)]
MINE = next(block for block in blocks("yaml") if block.startswith("# mine.yaml"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder holding what the README's commands name."""
    (tmp_path / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HOME / "examples"))
    return tmp_path


def test_results_and_examples_are_those_of_the_files() -> None:
    for page in _keeper().PAGES:
        text = page.read_text(encoding="utf-8")
        assert _keeper().updated(text) == text, f"{page.name} is stale: run python tools/update_documents.py"
    assert set(re.findall(r"<!-- (own_\w+\.py) -->", README)) == {path.name for path in EXAMPLES}
    assert all(path.read_text(encoding="utf-8") in README for path in EXAMPLES)


def _keeper() -> ModuleType:
    return program("tools/update_documents.py")


def test_results_are_of_600_tasks_or_of_as_many_as_the_text_says() -> None:
    contents = [json.loads(path.read_text()) for path in (HOME / "results" / "benchmarks").glob("*-seed*.json")]
    numbers = {content["summary"]["headline"]["episodes"] for content in contents}
    assert 600 in numbers
    assert all(f"{number:,} test tasks" in README.replace("\n", " ") for number in numbers - {600})


def test_a_changed_number_is_put_right() -> None:
    keeper = _keeper()
    row = next(row for row in keeper.results_table().splitlines() if "%" in row)
    changed = README.replace(row, row.replace("%", "0 %"))
    assert changed != README
    assert keeper.updated(changed) == README


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_run(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30
    done = _python(tmp_path, str(path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"'value': \d|norm of the meta-gradient \d", done.stdout)


def test_the_tour_in_python_runs(tmp_path: Path) -> None:
    (tour,) = [block for block in blocks("python") if "again = " in block]
    done = _python(tmp_path, "-c", tour)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", SHOWN)
def test_commands_parse(line: str, workplace: Path) -> None:
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z]+=", word)]
    assert words[0] == "raymeta"
    parse(words[1], words[2:])


@pytest.mark.parametrize(
    "line", ["train --tasks.shots 5", "train -c nothing.yaml", "evaluate --episodes many RUN", "runs list"]
)
def test_a_wrong_command_would_be_noticed(line: str, workplace: Path) -> None:
    command, *arguments = line.split()
    with pytest.raises((ConfigError, SystemExit)):
        parse(command, arguments)


def test_options_in_the_text_exist() -> None:
    flags = {name.lstrip("-").replace("-", "_") for flag in train.FLAGS for name in flag.names}
    flags |= {action.dest for action in evaluate.parser()._actions}
    keys = {*all_keys(), *flags}
    options = [code.split()[0].removeprefix("--").replace("-", "_") for code in INLINE if code.startswith("--")]
    dotted = [code for code in INLINE if re.fullmatch(r"(tasks|model|algorithm|outer)\.[a-z_]+", code)]
    bare = [m[1] for code in INLINE if (m := re.fullmatch(r"([a-z_]+): [a-z_]+", code))]
    assert len(options) >= 8
    assert [name for name in (*options, *dotted) if name not in keys] == []
    assert [name for name in bare if f"algorithm.{name}" not in keys] == []


@pytest.mark.parametrize(
    ("heading", "section"), [("Algorithms", "algorithm"), ("Task sets", "tasks"), ("Models", "model")]
)
def test_tables_list_the_registries(heading: str, section: Any) -> None:
    table = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    names = re.findall(r"^\| `([a-z_0-9]+)` \|", table, flags=re.MULTILINE)
    assert sorted(names) == sorted(BUILT_IN[section])


def test_presets_in_the_text_exist() -> None:
    named = set(re.findall(r"\b(?:omniglot|sinusoid|glyphs)-[a-z0-9-]+[a-z]\b(?!-)", PROSE + "\n".join(LINES)))
    assert named
    assert {name for name in named if not name.endswith("seed")} <= set(preset_names())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_the_scripts_in_the_text_exist() -> None:
    scripts = [code.split()[1] for code in INLINE if code.startswith("python ") and code.split()[1].endswith(".py")]
    assert scripts
    assert all((HOME / script).is_file() for script in scripts)
