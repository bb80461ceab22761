"""Mistakes that can be known from the schema are told at once, in the words in which the classes would tell them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymeta.config import describe, known
from raymeta.config.arguments import split_arguments
from raymeta.config.class_options import REQUIRED
from raymeta.config.load import load_config
from raymeta.config.variants import SECTIONS
from raymeta.errors import ConfigError
from raymeta.train import FLAGS
from raymeta.train import main as train

MISTAKES = [
    ["--algorithm.iner_lr", "1"],
    ["--stepz", "3"],
    ["--steps", "many"],
    ["--steps", "0"],
    ["--steps", "1.5"],
    ["--steps", "true"],
    ["--steps"],
    ["--seed", str(2**63)],
    ["--workers", "some"],
    ["--workers", "-1"],
    ["--vectorize", "maybe"],
    ["--compile", "3"],
    ["--node_labels", "3"],
    ["--output", "''"],
    ["--name", "[1]"],
    ["--batch_norm", "other"],
    ["--gpus_per_worker", "-1"],
    ["--algorithm.inner_lr", "-1"],
    ["--algorithm.inner_lr", "nan"],
    ["--algorithm.inner_lr", "fast"],
    ["--algorithm.first_order", "maybe"],
    ["--algorithm.adapt_only", "{a: 1}"],
    ["--algorithm", "mamll"],
    ["--algorithm", "protonet", "--algorithm.inner_lr", "0.1"],
    ["--tasks.way", "0"],
    ["--tasks.shotz", "1"],
    ["--model.width", "wide"],
    ["--model", "mlp", "--model.hidden", "[1, x]"],
    ["--model", "mlp", "--model.hidden", "3,x"],
    ["--model", "custom"],
    ["--outer.optimizer", "adan"],
    ["--outer.momentum", "1"],
    ["--outer.lrr", "1"],
    ["--steps", "0", "--meta_batch_size", "0", "--outer.lr", "0", "--algorithm.inner_lrr", "1"],
]


@pytest.fixture
def from_classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the file of known options were old."""
    known.known.cache_clear()
    describe.of_entry.cache_clear()
    monkeypatch.setattr(known, "FILE", Path("absent"))
    yield
    known.known.cache_clear()
    describe.of_entry.cache_clear()


def told(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=split_arguments(argv, FLAGS).overrides)
    return str(caught.value)


def test_the_file_is_up_to_date() -> None:
    """After a change of an option: python -m raymeta.config.known"""
    assert json.loads(known.FILE.read_text()) == json.loads(json.dumps(known.made()))
    assert known.known()


@pytest.mark.parametrize("argv", MISTAKES, ids=" ".join)
def test_the_words_are_those_of_the_classes(argv: list[str], request: pytest.FixtureRequest) -> None:
    assert known.known()
    quick = told(argv)
    request.getfixturevalue("from_classes")
    assert not known.known()
    assert quick == told(argv)


@pytest.mark.usefixtures("from_classes")
def test_an_old_file_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--dry-run", "model.width=4"]) == 0
    assert train(["--algorithm.iner_lr", "1"]) == 2
    assert "did you mean algorithm.inner_lr" in capsys.readouterr().err


def test_options_are_described_alike(request: pytest.FixtureRequest) -> None:
    def everything() -> list[str]:
        texts = [f"{o.key} {o.text()} {o.default}" for o in describe.run_options().values()]
        for section in SECTIONS:
            for name in known.made()["entries"][section]:
                texts += [f"{o.key} {o.text()} {o.default}" for o in describe.section_options(section, name).values()]
        return texts

    quick = [text.replace(str(REQUIRED), "required") for text in everything()]
    request.getfixturevalue("from_classes")
    assert quick == [text.replace(str(REQUIRED), "required") for text in everything()]


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--algorithm.iner_lr", "1"],
        ["train", "--steps", "many"],
        ["train", "--algorithm", "mamll"],
        ["train", "--outer.optimizer", "adan"],
        ["train", "--preset", "omniglot"],
        ["train", "-c", "absent.yaml"],
        ["train", "--nothing-of-the-kind"],
        ["train", "--help"],
        ["tune", "-c", "absent.yaml"],
        ["tune", "--samplez", "3"],
        ["evaluate", "run", "--episodez", "3"],
        ["evaluate", "run", "--episodes", "many"],
        ["config", "check", "--nope"],
        ["config", "explian"],
        ["report", "run", "--nope"],
        ["dashboard", "--nope"],
        ["bench", "--nope"],
    ],
    ids=" ".join,
)
def test_a_mistake_costs_under_half_a_second_of_cpu(argv: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "raymeta", *argv], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == (0 if "--help" in argv else 2), done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_what_was_told_at_once_needs_no_torch() -> None:
    code = (
        "import sys; from raymeta.train import main; main(['--algorithm.inner_lr', '-1']);"
        "print([m for m in ('torch', 'numpy', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]"


# Starts that fail


def test_a_gpu_that_is_not_there_is_told_before_there_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for workers in ("0", "2"):
        options = ["--device", "cuda", "--workers", workers, "--output", str(tmp_path / "out")]
        assert train([*options, "model.width=4"]) == 3
        assert "torch sees no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_start_that_failed_is_not_the_latest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymeta.errors import EnvironmentProblem
    from raymeta.runs.read import resolve_run

    options = ["--preset", "sinusoid-maml", "--steps", "1", "--validate_every", "0", "--test_episodes", "2", "-q"]
    options += ["--output", str(tmp_path), "model.hidden=[8]"]

    def fails(*_: object) -> None:
        raise EnvironmentProblem("no workers")

    with monkeypatch.context() as patch:
        patch.setattr("raymeta.config.build.Built.executor", fails)
        assert train(options) == 3
    failed = resolve_run("latest", tmp_path)
    assert failed.status == "failed", "with nothing else it is shown"
    assert train(options) == 0
    with monkeypatch.context() as patch:
        patch.setattr("raymeta.config.build.Built.executor", fails)
        assert train(options) == 3
    assert resolve_run("latest", tmp_path).status == "finished"
