"""A measurement tells the commit of the code that ran, and whether that code was changed since."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raymeta

CODE = "import json, raymeta.runs.provenance as c; print(json.dumps(c.provenance('made by hand')))"


def told(checkout: Path) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=checkout, capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin"})  # fmt: skip
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is asked: the package's files that provenance needs, in a repository of its own."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    root = Path(raymeta.__file__).parent
    names = "__init__.py", "runs/__init__.py", "runs/provenance.py", "system/__init__.py", "system/public_names.py"
    for name in names:
        (tmp_path / "raymeta" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / "raymeta" / name)
    (tmp_path / "numbers.json").write_text("1")
    git(tmp_path, "init", "-q")
    return tmp_path


def test_the_commit_is_that_of_the_code_and_changes_of_the_code_count(checkout: Path) -> None:
    git(checkout, "commit", "-q", "--allow-empty", "-m", "somebody else's repository")
    assert (told(checkout)["commit"], told(checkout)["changed_since_commit"]) == (None, False)
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "the code")
    (checkout / "numbers.json").write_text("2")  # a result written before; no code
    found = told(checkout)
    assert (found["commit"], found["changed_since_commit"]) == (git(checkout, "rev-parse", "HEAD"), False)
    assert found["command"] == "made by hand"
    with open(checkout / "raymeta" / "runs" / "provenance.py", "a") as file:
        file.write("# changed\n")
    assert told(checkout)["changed_since_commit"] is True
