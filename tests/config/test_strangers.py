"""A stranger's run: looking at it, testing it and going on with it obeys the person at the keyboard, not its files."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import replace_config, rewrite

import raymeta
from raymeta.config import strangers
from raymeta.config.__main__ import main as config
from raymeta.config.build import Built
from raymeta.config.schema import RunOptions
from raymeta.config.variants import SECTIONS, registry, variant_class
from raymeta.errors import ConfigError, EnvironmentProblem, RaymetaWarning
from raymeta.evaluate import main as evaluate
from raymeta.options import IMPORTED, OF_THE_PERSON, marked
from raymeta.report import main as report
from raymeta.runs.__main__ import main as runs
from raymeta.runs.read import Run
from raymeta.train import main as train
from raymeta.tune import main as tune

SMALL: dict[str, Any] = {"model.hidden": [8], "meta_batch_size": 2, "shard_size": 1, "steps": 2, "test_episodes": 4}
SMALL |= {"validate_every": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return raymeta.meta_train("sinusoid-maml", output=str(tmp_path_factory.mktemp("runs")), **SMALL)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    shutil.copytree(finished.path, tmp_path / "theirs" / finished.id)
    return Run.open(tmp_path / "theirs" / finished.id)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the person is."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# Where work happens, and what is written where


def test_what_is_of_the_person_stands_in_the_schema() -> None:
    assert list(marked(RunOptions, OF_THE_PERSON)) == ["address", "output", "mirror"]


def test_a_resumed_run_joins_no_cluster_that_its_folder_names(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rewrite(run, address="10.9.8.7:6379", workers=1)
    asked: list[Any] = []

    def note(built: Any, *_: object) -> None:
        asked.append(built.pool.address)
        raise EnvironmentProblem("enough")

    monkeypatch.setattr(Built, "executor", note)
    assert train(["--resume", str(run.path), "-q", "--test-episodes", "3"]) == 3
    told = capsys.readouterr().err
    assert "address '10.9.8.7:6379' of the run's folder is not taken over" in told
    assert "give --address again" in told
    assert train(["--resume", str(run.path), "--address", "10.9.8.7:6379"]) == 3
    assert "not taken over" not in capsys.readouterr().err, "it was given again"
    assert asked == [None, "10.9.8.7:6379"]


def test_nothing_is_copied_to_a_mirror_that_a_folder_names(run: Run, tmp_path: Path, here: Path) -> None:
    stolen = tmp_path / "stolen"
    run = rewrite(run, mirror=stolen.as_uri())
    assert train(["--resume", str(run.path), "--steps", "3", "-q"]) == 0
    assert not stolen.exists()
    assert train(["--resume", str(run.path), "--steps", "4", "-q", "--mirror", stolen.as_uri()]) == 0
    assert (stolen / run.id / "run.json").exists()


def test_a_new_run_from_its_configuration_is_written_here(run: Run, tmp_path: Path, here: Path) -> None:
    run = rewrite(run, output=str(tmp_path / "elsewhere"), mirror=(tmp_path / "stolen").as_uri())
    assert train(["-c", str(run.path / "config.yaml"), "-q"]) == 0
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "stolen").exists()
    assert len(list(here.glob("results/*/summary.json"))) == 1


def test_a_test_joins_no_cluster_that_a_folder_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rewrite(run, address="10.9.8.7:6379")
    asked: list[Any] = []

    def note(built: Any, *_: object) -> None:
        asked.append(built.pool.address)
        raise EnvironmentProblem("enough")

    monkeypatch.setattr(Built, "executor", note)
    with pytest.warns(RaymetaWarning, match="not taken over"), pytest.raises(EnvironmentProblem):
        raymeta.meta_test(run, workers=1)
    assert asked == [None]


@pytest.mark.parametrize("name", ["eval", "tb", "checkpoints", "metrics.jsonl", "command.txt", "logs"])
def test_links_that_lead_out_of_a_run_are_refused(
    run: Run, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    place = run.path / name
    if place.exists():
        place.rename(mine)
    else:
        mine.mkdir()
    place.symlink_to(mine)
    before = sorted(mine.rglob("*")), mine.stat().st_mtime_ns
    for command in (train, lambda argv: evaluate([*argv[1:2], "--episodes", "2"])):
        assert command(["--resume", str(run.path), "-q", "--steps", "3"]) == 3
        assert f"{place} leads out of the run" in capsys.readouterr().err
    assert (sorted(mine.rglob("*")), mine.stat().st_mtime_ns) == before
    assert train(["--resume", str(run.path), "-q", "--steps", "3", "--trust"]) == 0


def test_links_inside_a_run_are_fine(run: Run) -> None:
    (run.path / "newest").symlink_to("checkpoints")
    assert train(["--resume", str(run.path), "-q", "--steps", "3"]) == 0


# Code that a run names


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A module that notes that it was imported, and a file that is there afterwards."""
    folder, mark = tmp_path / "path", tmp_path / "imported"
    folder.mkdir()
    (folder / "from_a_stranger.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from raymeta import MAML\nfrom raymeta.tasks.sinusoid import Sinusoid\nfrom raymeta.models.mlp import MLP\n"
        "from pydantic.dataclasses import dataclass\nfrom raymeta.options import STRICT\n"
        "@dataclass(frozen=True, kw_only=True, config=STRICT)\nclass Tasks(Sinusoid): pass\n"
        "@dataclass(frozen=True, kw_only=True, config=STRICT)\nclass Method(MAML): pass\n"
        "@dataclass(frozen=True, kw_only=True, config=STRICT)\nclass Spec(MLP): pass\n"
        "def net(input_shape, num_outputs): return MLP(hidden=(8,)).build(input_shape, num_outputs)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(strangers, "_GIVEN", set())
    yield "from_a_stranger", mark
    sys.modules.pop("from_a_stranger", None)


def naming(run: Run, what: str, module: str) -> Run:
    """The run with a section or an option that names code of `module`."""
    text = (run.path / "config.yaml").read_text()
    model = text[text.index("model:") : text.index("algorithm:")]
    old, new = {
        "tasks": ("name: sinusoid\n", f"name: {module}:Tasks\n"),
        "algorithm": ("name: maml\n", f"name: {module}:Method\n"),
        "model": ("name: mlp\n", f"name: {module}:Spec\n"),
        "model.path": (
            model,
            f"model: {{name: custom, path: {module}:net}}\n",
        ),
    }[what]
    assert old in text
    return replace_config(run.path, text.replace(old, new))


COMMANDS: dict[str, Callable[[Run], Any]] = {
    "evaluate": lambda run: evaluate([str(run.path), "--episodes", "2"]),
    "resume": lambda run: train(["--resume", str(run.path), "-q", "--steps", "3"]),
    "dry run": lambda run: train(["--resume", str(run.path), "--dry-run"]),
    "new run": lambda run: train(["-c", str(run.path / "config.yaml"), "--dry-run"]),
    "check": lambda run: config(["check", str(run.path)]),
    "diff": lambda run: config(["diff", str(run.path), "sinusoid-maml"]),
}
LOOKING: dict[str, Callable[[Run], int]] = {
    "ls": lambda run: runs(["ls", str(run.path.parent)]),
    "show": lambda run: runs(["show", str(run.path)]),
    "export": lambda run: runs(["export", str(run.path), "-o", str(run.path.parent.parent / "out")]),
    "report": lambda run: report([str(run.path), "-o", str(run.path.parent.parent / "report.html")]),
}


@pytest.mark.parametrize("what", ["tasks", "algorithm", "model", "model.path"])
@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_a_run_names_needs_a_word(
    run: Run, here: Path, stranger: tuple[str, Path], what: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, mark = stranger
    run = naming(run, what, module)
    assert COMMANDS[command](run) == 2
    told = capsys.readouterr().err
    assert module in told
    assert "--trust" in told
    assert not mark.exists()


@pytest.mark.parametrize("what", ["tasks", "algorithm", "model", "model.path"])
def test_python_needs_a_word_too(run: Run, stranger: tuple[str, Path], what: str) -> None:
    module, mark = stranger
    run = naming(run, what, module)
    for call in (
        lambda: raymeta.meta_test(run, episodes=2),
        lambda: raymeta.meta_test(str(run.path), episodes=2),
        lambda: raymeta.load_run(run.path).model(),
        lambda: raymeta.meta_train(resume=run.path, steps=3),
    ):
        with pytest.raises(ConfigError, match="trust=True"):
            call()
    assert not mark.exists()
    raymeta.load_run(run.path, trust=True).model()
    raymeta.load_run(run.path).model()  # once trusted, for the rest of this process
    strangers._GIVEN.clear()
    raymeta.load_run(run.path).model(trust=True)
    strangers._GIVEN.clear()
    raymeta.meta_test(raymeta.load_run(run.path, trust=True), episodes=2)
    strangers._GIVEN.clear()
    raymeta.meta_test(run, episodes=2, trust=True)
    assert mark.exists()


@pytest.mark.parametrize("command", LOOKING)
def test_looking_at_a_run_imports_nothing(run: Run, stranger: tuple[str, Path], command: str) -> None:
    module, mark = stranger
    assert LOOKING[command](naming(run, "tasks", module)) == 0
    assert not mark.exists()


@pytest.mark.parametrize(
    "path", ["from_a_stranger :Tasks", "from_a_stranger:Tasks:x", "from_a_stranger:", ":x", "os:system"]
)
def test_no_spelling_gets_around_it(run: Run, stranger: tuple[str, Path], path: str) -> None:
    _, mark = stranger
    text = (run.path / "config.yaml").read_text()
    run = replace_config(run.path, text.replace("name: sinusoid\n", f"name: {json.dumps(path)}\n"))
    assert evaluate([str(run.path), "--episodes", "2"]) == 2
    assert not mark.exists()


def test_what_the_person_gave_is_trusted(run: Run, here: Path, stranger: tuple[str, Path]) -> None:
    """A job that is requeued repeats its command line; a notebook tests the run that it has just made."""
    module, _ = stranger
    line = ["--preset", "sinusoid-maml", "--tasks", f"{module}:Tasks", "--output", "o", "-q", "--validate_every", "0"]
    line += ["--model.hidden", "[8]", "--test_episodes", "4", "--steps", "2"]
    assert train(line) == 0
    assert raymeta.meta_test(Run.open(next((here / "o").glob("2*"))), episodes=2)
    strangers._GIVEN.clear()
    assert train(["--resume", "latest", "--output", "o", "-q"]) == 2
    assert train([*line, "--resume"]) == 0
    strangers._GIVEN.clear()
    assert train(["--resume", "latest", "--output", "o", "-q", "--trust"]) == 0


def test_what_to_do_next_says_the_word(
    run: Run, here: Path, stranger: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that are printed to be copied work in the next process, which was given nothing."""
    module, _ = stranger
    own = naming(run, "tasks", module)
    assert train(["--resume", str(own.path), "--steps", "3", "-q", "--trust"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "raymeta evaluate" in line)
    strangers._GIVEN.clear()
    assert evaluate([*shlex.split(line)[2:-2], "2", "--trust"]) == 0
    assert line.endswith("--episodes 1000 --trust")
    capsys.readouterr()
    assert runs(["show", str(own.path)]) == 0
    assert f"evaluate {own.path} --trust" in capsys.readouterr().out


def test_a_run_of_ours_alone_needs_no_word(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(["show", str(run.path)]) == 0
    assert "--trust" not in capsys.readouterr().out


def test_every_text_among_the_options_is_plain_or_marked() -> None:
    """Whoever adds an option that names code has to mark it; this list holds those that name none."""
    plain = {
        "name",
        "preset",
        "address",
        "output",
        "mirror",
        "accelerator_type",
        "arch",
        "root",
        "device",
        "kind",
        "layers_sha256",
        "film_layer",
        *("sha256", "file", "label", "task", "target", "missing", "features", "categorical", "ignore", "split_column"),
        *("text", "tokenizer", "encoder", "genotype", "teacher"),
        "start",
    }
    for section in SECTIONS:
        for name in registry(section):
            cls = variant_class(section, name)
            texts = {f.name for f in dataclasses.fields(cls) if "str" in str(f.type) and "Literal" not in str(f.type)}
            unknown = texts - plain - {*marked(cls, IMPORTED)}
            assert unknown <= {"options", "head", "adapt_only", "train_classes", "val_classes", "test_classes"}, (
                f"{section} {name}"
            )
    texts = {n for n, f in RunOptions.model_fields.items() if f.annotation in (str, str | None)}
    assert texts <= plain | {*marked(RunOptions, IMPORTED)}


# Sweeps


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep that somebody began."""
    folder = tmp_path / "sweeps" / "theirs"
    (folder / "records").mkdir(parents=True)
    (folder / "base.yaml").write_text("preset: sinusoid-maml\nsteps: 20\nvalidate_every: 10\n")
    (folder / "sweep.yaml").write_text(
        "base: base.yaml\nspace: {algorithm.inner_lr: {choice: [0.1, 0.01]}}\nsamples: 2\n"
    )
    return folder


def test_a_sweep_that_goes_on_needs_a_word_for_its_code(
    sweep: Path, stranger: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    module, mark = stranger
    good = (sweep / "sweep.yaml").read_text()
    base = (sweep / "base.yaml").read_text()
    assert tune(["--resume", str(sweep), "--dry-run"]) == 0
    cases = [
        ("sweep.yaml", good.replace("samples: 2", f"options: {{algorithm: {module}:Method}}")),
        (
            "sweep.yaml",
            good.replace("{algorithm.inner_lr:", f"{{tasks: {{choice: [{module}:Tasks]}}, algorithm.inner_lr:"),
        ),
        ("base.yaml", base + f"tasks: {module}:Tasks\n"),
    ]
    for name, text in cases:
        (sweep / name).write_text(text)
        assert tune(["--resume", str(sweep), "--dry-run"]) == 2, text
        assert "--trust" in capsys.readouterr().err
        (sweep / "sweep.yaml").write_text(good)
    assert not mark.exists()
    assert tune(["--resume", str(sweep), "--dry-run", "--trust"]) == 0
    assert mark.exists()


def test_a_record_sets_nothing_that_is_not_searched(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"id": "0000", "index": 0, "repeat": 0, "point": {"mirror": "file:///tmp/stolen"}, "reports": []}
    (sweep / "records" / "0000.json").write_text(json.dumps(record))
    assert tune(["--resume", str(sweep)]) == 3
    assert "sets mirror, which the sweep does not search" in capsys.readouterr().err


# What a run holds besides


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_run_is_refused_before_anything_is_written(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(run.path / "tb" / "events")
    assert train(["--resume", str(run.path), "-q", "--steps", "3"]) == 3
    assert "neither a file nor a folder" in capsys.readouterr().err
