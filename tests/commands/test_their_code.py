"""A person's own code: whatever it does, one error names it, its file and its line, and no mistake ends with exit 0."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.errors import LONGEST_LINE, MOST_LINES, ConfigError, RaymetaError, RunFailed, shortened
from raymeta.evaluate import main as evaluate
from raymeta.runs.__main__ import main as runs
from raymeta.runs.read import Run
from raymeta.system.command_line import run_command
from raymeta.system.their_code import imported, place
from raymeta.train import main as train
from raymeta.tune import main as tune

TINY = ["steps=2", "meta_batch_size=2", "shard_size=1", "test_episodes=2", "validate_every=0", "-q"]


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module of the person's, anew for each test; answers with its file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "their_module") -> Path:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / f"{name}.py"

    yield write
    sys.modules.pop("their_module", None)


AT_IMPORT = {
    "sys.exit(0)": "it called sys.exit(0)",
    "sys.exit()": "it called sys.exit()",
    "sys.exit('a text')": "it called sys.exit(a text)",
    "raise ValueError('no weights')": "ValueError: no weights",
    "import absent_thing": "No module named 'absent_thing'",
    "1 / 0": "ZeroDivisionError",
    "raise BaseException": None,
}


@pytest.mark.parametrize("option", ["model.path", "tasks", "algorithm", "model"])
@pytest.mark.parametrize("line", [line for line, text in AT_IMPORT.items() if text])
def test_a_module_that_fails_at_import(
    theirs: Any, option: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = theirs(f"import sys\n\n{line}\n")
    options = ["--model", "custom"] if option == "model.path" else []
    assert train([*options, f"--{option}", "their_module:Thing", *TINY, "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "their_module:Thing" in told
    assert str(AT_IMPORT[line]) in told
    assert f"in {file}, line 3" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_a_syntax_error_is_told_with_its_line(theirs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = theirs("x = 1\ny = (\n")
    assert train(["--tasks", "their_module:Thing"]) == 2
    assert f"in {file}, line 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["..os:x", "a..b:c", ":x", "x:", "", "os", "os:", ".:.", "os :path", "os:path.", "1a:b", "a:b:c"]
)
@pytest.mark.parametrize("option", ["model.path", "tasks"])
def test_malformed_import_paths(path: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "custom"] if option == "model.path" else []
    assert train([*options, f"--{option}={path}"]) == 2
    told = capsys.readouterr().err
    assert option in told
    assert "Traceback" not in told


@pytest.mark.parametrize("path", ["os:", "os", "..os:path", "os:path..join", "os: path"])
def test_what_is_no_import_path_is_not_imported(path: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form package\.module:name"):
        imported(path, "option")


def test_a_name_that_a_module_lacks_comes_with_the_nearest(theirs: Any) -> None:
    theirs("def network(): pass\n")
    with pytest.raises(ConfigError, match="their_module has no netwrk; did you mean network"):
        imported("their_module:netwrk", "model.path")


MODEL = """
from torch import nn
import sys

class Net(nn.Sequential):
    def forward(self, x):
        {line}
        return super().forward(x)

def net(input_shape, num_outputs):
    return Net(nn.Flatten(), nn.Linear(28 * 28, num_outputs))
"""


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("raise KeyError('no such thing')", 2, "'no such thing'"),
        ("sys.exit(0)", 2, "it called sys.exit(0)"),
    ],
)
def test_a_model_that_cannot_be_called_even_once(
    theirs: Any, line: str, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = theirs(MODEL.format(line=line))
    assert train(["--model", "custom", "--model.path", "their_module:net", *TINY]) == code
    told = capsys.readouterr().err
    assert text in told
    assert f"in {file}, line 7, in forward" in told


TASKS = """
import sys
from pydantic.dataclasses import dataclass
from raymeta import TaskSet
from raymeta.tasks.sinusoid import Sinusoid

@dataclass(frozen=True, kw_only=True)
class Tasks(TaskSet):
    goal, num_outputs, input_shape = "regression", 1, (1,)
    def size(self, split):
        return Sinusoid().size(split)
    def num_classes(self, split):
        return 1
    def episode(self, key):
        if key.step == 1 and key.split == "train":
            {line}
        return Sinusoid().episode(key)
"""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("line", ["raise KeyError('gone')", "sys.exit(0)"])
def test_an_error_inside_own_code_is_told_with_its_line(
    theirs: Any, line: str, workers: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, local_ray: Any
) -> None:
    file = theirs(TASKS.format(line=line))
    options = ["--preset", "sinusoid-maml", "--tasks", "their_module:Tasks", "--output", str(tmp_path / "out"), *TINY]
    if workers:  # a worker of a cluster that runs already has another path
        sys.modules.pop("their_module", None)
        import their_module  # type: ignore[import-not-found]

        local_ray.cloudpickle.register_pickle_by_value(their_module)
    assert train([*options, "--workers", str(workers)]) == 1
    told = capsys.readouterr().err
    assert f"in {file}, line 16, in episode" in told
    assert "Traceback" not in told
    (run,) = (Run.open(path) for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert run.status == "failed"
    assert f"in {file}, line 16" in run.info["reason"]


def test_python_callers_get_no_exit_either(theirs: Any, tmp_path: Path) -> None:
    theirs(TASKS.format(line="sys.exit(0)"))
    options = {
        "steps": 2,
        "meta_batch_size": 2,
        "validate_every": 0,
        "test_episodes": 2,
        "output": str(tmp_path / "out"),
    }
    with pytest.raises(RunFailed, match=r"it called sys\.exit\(0\)"):
        raymeta.meta_train("sinusoid-maml", tasks="their_module:Tasks", **options)


def test_ctrl_c_inside_own_code_tells_where(theirs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = theirs("def slow():\n    raise KeyboardInterrupt\n")

    def command() -> int:
        return int(imported("their_module:slow", "x")())

    assert run_command("try", command, verbose=False) == 130
    assert capsys.readouterr().err == f"raymeta try: interrupted in {file}, line 2, in slow\n"


def test_errors_of_libraries_and_of_ours_have_no_place() -> None:
    for call in (lambda: imported("os:path.nothing_there", "x"), lambda: int("x", 99)):
        try:
            call()
        except Exception as error:
            here = place(error)
            assert __file__ in here, "the call stands here"


# Long values


@pytest.mark.parametrize(
    "command",
    [
        lambda long: train([f"--{long}", "1"]),
        lambda long: train(["--algorithm.inner_lr", long]),
        lambda long: train(["--algorithm", long]),
        lambda long: train(["--model", "custom", f"--model.path={long}:x"]),
        lambda long: train(["--preset", long]),
        lambda long: train(["-c", long]),
        lambda long: train([long]),
        lambda long: train(["--" + "a." * (len(long) // 2) + "b", "1"]),
        lambda long: train(["--resume", long]),
        lambda long: train(["--tags", f"[{long}"]),
        lambda long: tune(["-c", long]),
        lambda long: evaluate([long]),
        lambda long: runs(["show", long]),
        lambda long: runs(["ls", long]),
    ],
)
def test_long_values_are_shortened(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("x" * 200_000) in (0, 2, 3)
    said = capsys.readouterr()
    assert 0 < len(said.err + said.out) < 2 * LONGEST_LINE


@pytest.mark.parametrize("argument", [["evaluate", "r", "--episodes"], ["runs", "ls", "--nothing"], ["config"], []])
def test_long_values_that_argparse_refuses(argument: list[str]) -> None:
    command = [sys.executable, "-m", "raymeta", *argument, "x" * 100_000]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr) < 2 * LONGEST_LINE


def test_shortened_keeps_beginning_and_end() -> None:
    text = shortened("begin " + "x" * 10**6 + " end")
    assert text.startswith("begin x")
    assert text.endswith("x end")
    assert len(text) <= LONGEST_LINE
    assert shortened("\n".join(map(str, range(10**5)))).count("\n") == MOST_LINES - 1
    assert len(str(RaymetaError("y" * 10**6))) <= LONGEST_LINE
    for short in ("", "a\nb", "x" * LONGEST_LINE):
        assert shortened(short) == short


# Names that are no UTF-8


def test_a_folder_whose_name_is_no_utf8_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    options = ["--tasks", "images", "--tasks.root", str(folder), "--tasks.way", "2", "--dry-run"]
    assert train(options) == 2
    told = capsys.readouterr().err
    assert "command line --tasks.root: tasks.root" in told
    assert "is no UTF-8" in told
    assert "missing" not in told
    assert train(["--output", str(folder), "--dry-run"]) == 2
    (tmp_path / "link").symlink_to(folder)  # as the text says
    assert train([*options[:3], str(tmp_path / "link"), *options[4:]]) in (2, 3)
    assert "UTF-8" not in capsys.readouterr().err.partition("output")[2].partition("link")[2]


def test_a_run_goes_on_in_a_folder_whose_name_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert train(["--preset", "sinusoid-maml", "model.hidden=[8]", *TINY]) == 0
    (run,) = folder.glob("results/2*")
    assert train(["--resume", str(run), "--steps", "3", "-q"]) == 0
