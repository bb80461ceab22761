"""The house: start-up is light, Ray stands where it must, public names resolve and shadow no module."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import raymeta

ROOT = Path(raymeta.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules imported in a file, and whether at top level (type checking apart)."""
    tree = ast.parse(path.read_text())
    top = set()
    for node in tree.body:
        top.update(ast.walk(node) if isinstance(node, ast.Import | ast.ImportFrom) else [])
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node in top))
    return found


def test_ray_stands_only_in_its_executor_and_in_sweeps() -> None:
    users = {str(p.relative_to(ROOT)) for p in MODULES for module, _ in imports(p) if module.split(".")[0] == "ray"}
    assert users
    assert all(
        user.startswith(("engine/executors/ray_actors/", "sweeps/", "trackers/ray_metrics.py")) for user in users
    )


def test_public_names_resolve_and_shadow_no_module() -> None:
    assert raymeta.__all__ == sorted(raymeta.__all__, key=lambda n: (n.upper() != n, n[0].islower(), n))
    stems = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    for name in raymeta.__all__:
        assert getattr(raymeta, name) is not None
        assert name not in stems
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        raymeta.nothing  # noqa: B018


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_import_is_light() -> None:
    code = "import sys, raymeta; print([m for m in ('ray', 'torchvision', 'torch') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"
    code = (
        "import sys, raymeta; raymeta.MAML, raymeta.meta_train, raymeta.load_run;"
        "import raymeta.api.train;"
        "print([m for m in ('ray', 'torchvision', 'torch._dynamo') if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_help_costs_under_half_a_second_of_cpu() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "raymeta", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "train" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_training_in_process_needs_no_ray(tmp_path: Path) -> None:
    """With Ray and torchvision not importable, a run in this process works and a run on workers says what to do."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('ray', 'torchvision'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from raymeta.train import main
options = ['--output', {str(tmp_path)!r}, 'steps=2', 'model.width=4', 'meta_batch_size=2', 'test_episodes=2', '-q']
print(main(options), main([*options, '--workers', '1']))
"""
    done = run_python(code)
    assert done.stdout.strip().endswith("0 3"), done.stderr
    assert "pip install 'raymeta[ray]'" in done.stderr


def test_every_command_answers_help() -> None:
    from raymeta.__main__ import COMMANDS, main

    for name in COMMANDS:
        try:
            code = main([name, "--help"])
        except SystemExit as exit_:  # argparse
            code = int(exit_.code or 0)
        assert code == 0, name
    assert main(["trian"]) == 2
