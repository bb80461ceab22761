"""The command `evaluate`: what is wrong is told before anything is computed, and JSON is JSON for everyone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded import rewrite

import raymeta
from raymeta import evaluate
from raymeta.api import evaluate as evaluating
from raymeta.config.build import Built
from raymeta.engine.executors.local import LocalExecutor
from raymeta.engine.executors.placement import PoolOptions
from raymeta.errors import ConfigError, RaymetaWarning
from raymeta.evaluate import main
from raymeta.runs.read import Run

SMALL: dict[str, Any] = {"model.hidden": [8], "meta_batch_size": 2, "shard_size": 1, "steps": 6, "test_episodes": 4}
SMALL |= {"checkpoint_every": 2, "validate_every": 2, "validation_episodes": 2, "outer.lr": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return raymeta.meta_train("sinusoid-maml", output=str(tmp_path_factory.mktemp("runs")), **SMALL)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A run whose best checkpoint is not its last."""
    shutil.copytree(trained.path, tmp_path / trained.id)
    opened = Run.open(tmp_path / trained.id)
    assert (opened.summary or {})["best_step"] < 6
    return opened


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--inner-steps", "-1"], "inner_steps -1 is out of range"),
        (["--seed", "-1"], "seed -1 is out of range"),
        (["--seed", str(2**63)], "seed 9223372036854775808 is out of range"),
        (["--episodes", "0"], "episodes 0 is out of range"),
        (["--shot", "0"], "tasks.shot 0 should be"),
        (["--workers", "-1"], "workers -1 should be"),
        (["--way", "3"], "way"),
    ],
)
def test_numbers_out_of_range(run: Run, options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run.path), *options]) == 2
    assert text in capsys.readouterr().err


def test_python_callers_meet_the_same_limits(run: Run) -> None:
    with pytest.raises(ConfigError, match="seed -1 is out of range"):
        raymeta.meta_test(run, seed=-1)


def test_json_is_strict_with_a_single_episode(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    assert main([str(run.path), str(run.path), "--episodes", "1", "--json"]) == 0
    said = capsys.readouterr()
    content = json.loads(said.out, parse_constant=refuse)
    assert content["runs"][0]["headline"]["ci95"] is None
    assert content["paired"][0]["ci95"] is None
    assert said.err == ""
    assert main([str(run.path), "--episodes", "1"]) == 0
    assert "inf" not in capsys.readouterr().out


def test_a_damaged_best_checkpoint_is_a_warning(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    best = run.path / "checkpoints" / f"step-{(run.summary or {})['best_step']:08d}"
    (best / "params.safetensors").write_bytes(b"no tensors")
    assert main([str(run.path), "--episodes", "2"]) == 0
    said = capsys.readouterr()
    assert f"{best.name}/params.safetensors is damaged" in said.err
    assert "the checkpoint of step 6 is used in its place" in said.err
    assert "checkpoint of step 6" in said.out
    with pytest.warns(RaymetaWarning, match="step 6 is used"):
        raymeta.meta_test(run, episodes=2)


def test_without_an_index_the_best_is_still_known(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "checkpoints" / "index.json").unlink()
    assert main([str(run.path), "--episodes", "2"]) == 0
    said = capsys.readouterr()
    assert f"checkpoint of step {(run.summary or {})['best_step']}" in said.out
    assert said.err == ""


def test_results_that_cannot_be_kept_are_told_before_computing(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run.path / "eval")
    (run.path / "eval").write_text("in the way")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "meta_test", lambda *_, **__: pytest.fail("computed first"))
        assert main([str(run.path)]) == 3
    told = capsys.readouterr().err
    assert f"cannot write results into {run.path / 'eval'}" in told
    assert "--no-save" in told
    assert main([str(run.path), "--no-save", "--episodes", "2"]) == 0
    assert "test mse" in capsys.readouterr().out
    assert (run.path / "eval").read_text() == "in the way"


def test_inner_steps_of_a_method_without_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"steps": 1, "test_episodes": 2, "validate_every": 0, "model.width": 4, "meta_batch_size": 2}
    run = raymeta.meta_train(output=str(tmp_path), algorithm="protonet", **small)
    assert main([str(run.path), "--inner-steps", "3", "--episodes", "100000"]) == 2
    assert "takes no inner steps" in capsys.readouterr().err


def test_what_a_cluster_run_could_do_with_does_not_bind_its_test(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of four to eight workers on a GPU cluster that is gone is tested on two workers of this machine."""
    rewrite(run, workers=4, min_workers=4, max_workers=8, address="10.0.0.1:6379")
    asked: list[tuple[PoolOptions, str]] = []

    def note(built: Built) -> LocalExecutor:
        assert built.pool is not None
        asked.append((built.pool, built.blueprint.device))
        return LocalExecutor(built.blueprint)

    monkeypatch.setattr(Built, "executor", note)
    assert main([str(run.path), "--episodes", "2", "--workers", "2", "--address", "none", "--device", "cpu"]) == 0
    assert main([str(run.path), "--episodes", "2", "--workers", "2"]) == 0
    assert [(pool.workers, pool.min_workers, pool.max_workers) for pool, _ in asked] == [(2, None, None)] * 2
    assert [(pool.address, device) for pool, device in asked] == [(None, "cpu"), (None, "auto")], "not the run's to say"
    assert "address '10.0.0.1:6379' of the run's folder is not taken over" in capsys.readouterr().err
    assert main([str(run.path), "--episodes", "2", "--workers", "2", "--address", "auto"]) == 0
    assert asked[-1][0].address == "auto"
    assert main([str(run.path), "--device", "tpu"]) == 2


def test_a_compiled_run_is_tested_where_no_compiler_works(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluating, "compiler_problem", lambda: "no g++")
    compiled: list[bool] = []

    def note(built: Built) -> LocalExecutor:
        compiled.append(built.blueprint.compiled)
        return LocalExecutor(replace(built.blueprint, compiled=False))

    monkeypatch.setattr(Built, "executor", note)
    assert main([str(run.path), "--episodes", "2"]) == 0
    assert "no g++" not in capsys.readouterr().err, "a run that was not compiled needs none"
    run = rewrite(run, compile=True)
    assert main([str(run.path), "--episodes", "2"]) == 0
    assert "no compiler works here (no g++): last digits of scores may differ" in capsys.readouterr().err
    raymeta.meta_test(run, episodes=2, compile=True)
    monkeypatch.setattr(evaluating, "compiler_problem", lambda: None)
    raymeta.meta_test(run, episodes=2)
    raymeta.meta_test(run, episodes=2, inner_steps=3)
    raymeta.meta_test(run, episodes=2, **{"tasks.shot": 3})
    assert compiled == [False, False, True, True, False, False]
