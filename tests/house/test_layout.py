"""The house: start-up is light, Ray stands where it must, public names resolve and shadow no module."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest

import raymeta
import raymeta.models
import raymeta.tasks
from raymeta.config.variants import BUILT_IN, Section, variant_class

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
        user.startswith(("engine/executors/ray_actors/", "sweeps/", "trackers/ray_metrics.py", "serve/replicas.py"))
        for user in users
    )


def test_public_names_resolve_and_shadow_no_module() -> None:
    assert raymeta.__all__ == sorted(raymeta.__all__, key=lambda n: (n.upper() != n, n[0].islower(), n))
    stems = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    for name in raymeta.__all__:
        assert getattr(raymeta, name) is not None
        assert name not in stems or name == "options", "options is a module, and public as one"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        raymeta.nothing  # noqa: B018


@pytest.mark.parametrize("package", [raymeta, raymeta.tasks, raymeta.models], ids=lambda package: package.__name__)
def test_type_checkers_see_the_public_names_that_there_are(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"{package.__name__}.{home}" for name, home in package._HOMES.items()}
    assert seen == {name: home if home == "raymeta.options" else f"{home}.{name}" for name, home in homes.items()}
    assert package.__all__ == list(homes)


@pytest.mark.parametrize(("section", "package"), [("tasks", raymeta.tasks), ("model", raymeta.models)])
def test_everything_that_has_a_name_has_a_short_import_path(section: Section, package: ModuleType) -> None:
    classes = {path.partition(":")[2]: name for name, path in BUILT_IN[section].items()}
    makers = {name for name in package.__all__ if not isinstance(getattr(package, name), type)}
    assert set(package.__all__) - makers == set(classes)
    assert makers == ({"from_arrays", "from_dataset", "from_frame", "from_function"} if section == "tasks" else set())
    assert all(getattr(package, name) is variant_class(section, classes[name]) for name in classes)


def test_examples_use_public_names_alone() -> None:
    """In the README too, where the examples stand."""
    public = {"raymeta": raymeta, "raymeta.tasks": raymeta.tasks, "raymeta.models": raymeta.models}
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT.parent / "examples").glob("*.py"))]
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    texts += re.findall(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert all(alias.name in public for alias in node.names if alias.name.startswith("raymeta"))
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("raymeta"):
                assert {alias.name for alias in node.names} <= set(public[str(node.module)].__all__)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "raymeta":
                assert node.attr in raymeta.__all__


def test_a_run_is_the_same_whoever_gives_it() -> None:
    found = {get_type_hints(door)["return"] for door in (raymeta.meta_train, raymeta.load_run)}
    assert found == {raymeta.RunView}


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_import_is_light() -> None:
    code = (
        "import sys, raymeta; import raymeta.tasks, raymeta.models, raymeta.options;"
        "print([m for m in ('ray', 'torchvision', 'torch') if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"
    code = (
        "import sys, raymeta; raymeta.MAML, raymeta.meta_train, raymeta.load_run;"
        "from raymeta.tasks import Images; from raymeta.models import Conv4;"
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
