"""The rule behind `compile: auto`: what is asked, in which order, and that a run keeps what it chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import raymeta
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.worker import compile_rule
from raymeta.engine.worker.compile_rule import LEAST_TASKS, LEAST_TIME_S, MOST_INNER_STEPS, choose_compile

PAYS: dict[str, Any] = {
    "num_tasks": LEAST_TASKS,
    "time_limit_s": LEAST_TIME_S,
    "inner_steps": MOST_INNER_STEPS,
    "measured": True,
    "recomputed": False,
    "device": "cpu",
}


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_rule, "compiler_problem", lambda: None)


def test_each_reason_against_compiling_is_enough(compiler: None) -> None:
    assert choose_compile(**PAYS).compile
    for name, value, reason in (
        ("num_tasks", LEAST_TASKS - 1, "fewer than 100,000"),
        ("time_limit_s", LEAST_TIME_S - 1, "a time limit of 299 s"),
        ("inner_steps", MOST_INNER_STEPS + 1, "too large a graph"),
        ("measured", False, "not measured with this method"),
        ("recomputed", True, "checkpoint_inner_steps"),
        ("device", "cuda", "not measured on a GPU"),
    ):
        choice = choose_compile(**{**PAYS, name: value})
        assert not choice.compile
        assert reason in choice.text()


def test_a_machine_without_a_compiler_computes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_rule, "compiler_problem", lambda: "no g++")
    assert choose_compile(**PAYS).text() == "false by rule: no compiler works here: no g++"


def test_that_a_compiler_works_is_found_out_once_and_that_none_does_every_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    def answer() -> str | None:
        asked.append(next(answers))
        return asked[-1]

    def problem() -> str | None:
        compile_rule.compiler_problem.cache_clear()
        return compile_rule.compiler_problem()

    answers = iter(["no g++", None, None, None])
    monkeypatch.setattr(compile_rule, "compile_a_sum", answer)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert [problem() for _ in range(4)] == ["no g++", None, None, None]
    assert len(asked) == 2
    monkeypatch.setenv("CXX", "another")
    assert problem() is None
    assert len(asked) == 3, "another compiler is another question"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/nowhere")
    assert problem() is None, "without a place to write, it is asked again"
    assert len(asked) == 4
    compile_rule.compiler_problem.cache_clear()


def test_a_sum_is_compiled() -> None:
    assert compile_rule.compile_a_sum() is None


def test_papers_runs_are_compiled_and_short_ones_are_not(compiler: None) -> None:
    def compiled(preset: str, **options: Any) -> bool:
        overrides = {"device": "cpu", "validate_every": 0, **options}
        return build(load_config(preset=preset, overrides=overrides).config).blueprint.compiled

    assert compiled("sinusoid-maml")
    assert compiled("sinusoid-maml", time_limit="1h")
    assert not compiled("sinusoid-maml", time_limit="1m")
    assert not compiled("sinusoid-maml", steps=20)
    assert not compiled("sinusoid-maml", steps=10**6, mixing="mlti")
    assert not compiled("sinusoid-maml", steps=10**6, **{"algorithm.test_inner_steps": 50})
    assert not compiled("gp-cnp", steps=10**6)


def test_the_choice_is_recorded_and_kept(compiler: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate_every": 0, "test_episodes": 2, "output": str(tmp_path)}
    run = raymeta.meta_train("sinusoid-maml", steps=2, **options)
    assert run.config["compile"] is False
    (event,) = [event for event in run.events() if event["kind"] == "compile"]
    assert "fewer than 100,000" in event["message"]
    longer = raymeta.meta_train(resume=run.path, steps=3, compile="auto", vectorize="auto")  # given again
    assert longer.config["compile"] is False
