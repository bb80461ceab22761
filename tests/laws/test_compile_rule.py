"""The rule behind `compile: auto`: what is asked, in which order, and that a run keeps what it chose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import rewrite

import raymeta
from raymeta.api.resume import resumed_config
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.engine.worker import compile_rule
from raymeta.engine.worker import worker as workers
from raymeta.engine.worker.compile_rule import LEAST_TASKS, LEAST_TIME_S, MOST_INNER_STEPS, choose_compile
from raymeta.engine.worker.kernels import instruction_sets
from raymeta.errors import ConfigError, EnvironmentProblem, RaymetaWarning

PAYS: dict[str, Any] = {
    "num_tasks": LEAST_TASKS,
    "limits_s": {"time_limit": LEAST_TIME_S, "shard_timeout": None},
    "inner_steps": MOST_INNER_STEPS,
    "measured": True,
    "recomputed": False,
    "device": "cpu",
}


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_rule, "compiler_problem", lambda *_: None)


def test_each_reason_against_compiling_is_enough(compiler: None) -> None:
    assert choose_compile(**PAYS).compile
    for name, value, reason in (
        ("num_tasks", LEAST_TASKS - 1, "fewer than 100,000"),
        ("limits_s", {"shard_timeout": LEAST_TIME_S - 1}, "shard_timeout is 299 s"),
        ("inner_steps", MOST_INNER_STEPS + 1, "too large a graph"),
        ("measured", False, "not measured with this method"),
        ("recomputed", True, "checkpoint_inner_steps"),
        ("device", "cuda", "not measured on a GPU"),
        ("device", None, "not known yet"),
    ):
        choice = choose_compile(**{**PAYS, name: value})
        assert not choice.compile
        assert reason in choice.text()


def test_a_machine_without_a_compiler_computes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_rule, "compiler_problem", lambda *_: "no g++")
    assert choose_compile(**PAYS).text() == "false by rule: no compiler works here: no g++"


@pytest.fixture
def problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], str | None]]:
    """`compiler_problem` as another process would ask it, with compilers and notes in `tmp_path`."""
    for name in ("one", "other"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)

    def asked() -> str | None:
        compile_rule._tried.cache_clear()
        return compile_rule.compiler_problem()

    monkeypatch.setenv("CXX", str(tmp_path / "one"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    yield asked
    compile_rule._tried.cache_clear()


def test_that_a_compiler_works_is_found_out_once(
    problem: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = iter(["it fails", None, None, None])
    monkeypatch.setattr(compile_rule, "compile_a_sum", lambda: next(answers))
    assert [problem() for _ in range(4)] == ["it fails", None, None, None]
    assert len(list(answers)) == 2, "a failure is not written down, a success is"
    answers = iter(["another compiler is another question", "a place that cannot be written"])
    monkeypatch.setenv("CXX", str(tmp_path / "other"))
    assert problem() == "another compiler is another question"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/nowhere")
    assert problem() == "a place that cannot be written"
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert problem() == f"{tmp_path / 'none'} is not installed"


def test_a_compiler_that_is_tried_is_told(
    problem: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(compile_rule, "compile_a_sum", lambda: None)
    for _ in range(2):
        assert choose_compile(**PAYS, say=heard.append).compile
    assert heard == ["trying torch's compiler, which takes some seconds once on a machine"]


def test_a_sum_is_compiled_each_time() -> None:
    from torch._inductor import config

    assert compile_rule.compile_a_sum() is None
    with config.patch({"cpp.cxx": ("/bin/false",)}):
        assert compile_rule.compile_a_sum() is not None


def test_a_compiler_that_is_switched_off_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_rule, "compile_a_sum", lambda: None)
    assert compile_rule.compiler_problem() is None
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert compile_rule.compiler_problem() == "TORCH_COMPILE_DISABLE=1 switches it off"


def test_a_worker_without_a_compiler_says_so_before_its_first_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = iter([None, "no g++"])
    monkeypatch.setattr(workers, "compiler_problem", lambda: next(problems))
    options: dict[str, Any] = {"device": "cpu", "compile": True}
    worker = workers.Worker(build(load_config(preset="sinusoid-maml", overrides=options).config).blueprint)
    assert worker.ready() > 0
    with pytest.raises(EnvironmentProblem, match=r"no compiler works on .*: no g\+\+\. .*--compile false"):
        worker.ready()
    plain = build(load_config(preset="sinusoid-maml", overrides={**options, "compile": False}).config).blueprint
    assert workers.Worker(plain).ready() > 0, "it is not asked"


def test_instruction_sets_are_those_of_the_options_at_hand() -> None:
    """They are looked for in another thread, where torch's options are its defaults."""
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa

    assert instruction_sets().result() == pick_vec_isa()
    with config.patch({"cpp.simdlen": 7}):  # which no processor has
        assert instruction_sets().result() == invalid_vec_isa
    assert pick_vec_isa() != invalid_vec_isa


WATCHED = """
import sys, threading
from raymeta.engine.worker.kernels import instruction_sets

class Watched(list):
    def insert(self, *args):
        changed_by.append(threading.current_thread())
        super().insert(*args)

changed_by = []
sys.meta_path = Watched(sys.meta_path)
instruction_sets().result()
assert "setuptools" in sys.modules, "it never was the case"
assert changed_by == [threading.main_thread()], changed_by
"""


def test_nothing_changes_the_search_for_modules_beside_what_imports_them() -> None:
    """An import in another thread, which goes through the finders meanwhile, misses one and finds no module then."""
    subprocess.run([sys.executable, "-c", WATCHED], check=True)


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
    assert not compiled("sinusoid-maml", tasks="gaussian_process"), "each size would be a graph"
    assert not compiled("sinusoid-maml", precision="bfloat16")
    assert not compiled("sinusoid-maml", device="auto", workers=2, address="auto"), "GPUs would be found by workers"
    for algorithm in ("maml", "anil", "meta_sgd", "protonet", "matching", "r2d2"):
        assert compiled("glyphs-5w1s-maml", steps=10**5, algorithm=algorithm)
    short = {"algorithm.inner_steps": 5, "algorithm.test_inner_steps": 5}
    assert compiled("glyphs-5w1s-maml", steps=10**5, algorithm="reptile", **short)
    assert not compiled("glyphs-5w1s-maml", steps=10**5, algorithm="imaml")
    assert not compiled("glyphs-5w1s-maml", steps=10**5, model="resnet12")


def test_the_choice_is_recorded_and_kept(compiler: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate_every": 0, "test_episodes": 2, "output": str(tmp_path)}
    run = raymeta.meta_train("sinusoid-maml", steps=2, **options)
    assert run.config["compile"] is False
    (event,) = [event for event in run.events() if event["kind"] == "compile"]
    assert "fewer than 100,000" in event["message"]
    longer = raymeta.meta_train(resume=run.path, steps=3, compile="auto", vectorize="auto")  # given again
    assert longer.config["compile"] is False


def test_a_compiled_run_stays_compiled_unless_that_is_ended_by_hand(tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate_every": 0, "test_episodes": 2, "output": str(tmp_path), "model.hidden": [4]}
    plain = raymeta.meta_train("sinusoid-maml", steps=2, **options)
    with pytest.raises(ConfigError, match="cannot change compile"):
        resumed_config(plain, {"compile": True})
    run = rewrite(plain, compile=True)
    for given in ({}, {"compile": "auto"}, {"compile": True}):
        assert resumed_config(run, given).config.compile is True
    with pytest.warns(RaymetaWarning, match="not compiled from step 2 on"):
        ended = raymeta.meta_train(resume=run.path, steps=3, compile=False)
    assert ended.config["compile"] is False
    assert any("not compiled from step 2 on" in event["message"] for event in ended.events())
