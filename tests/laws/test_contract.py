"""What every registered method keeps, so that a method is tested by being registered: one row of `CASES` for each."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from equal_bits import require_equal_bits
from killing import trained_alone, trained_with_kills
from torch import Tensor

import raymeta
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import TASK_GRADIENT, Algorithm
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.config.variants import registry
from raymeta.engine.worker.shard_function import Asked, ShardFunction
from raymeta.keys import TaskKey
from raymeta.tasks.episodes import Episode, each, in_type
from raymeta.tree import Layout, Params

STEPS = 5


class Case(NamedTuple):
    """The smallest real use of a method."""

    tasks: str = "sinusoid"
    options: Mapping[str, Any] = {}
    maps: tuple[str, ...] = (TASK_GRADIENT,)
    """methods that a step asks for which can be computed without what the driver made before"""
    pseudo: str = ""
    """why its meta-gradient is not the derivative of a value, where it is none"""
    lowers: bool = True
    """whether adapting lowers the loss on what it adapts to"""


MLP = {"model": "mlp", "model.hidden": [6], "model.activation": "tanh"}
SINES = {**MLP, "tasks.shot": 4, "tasks.query_shot": 4}
GLYPHS = {"model": "mlp", "model.hidden": [6], "model.activation": "tanh", "tasks.way": 3}
GP = {"model": "mlp", "model.hidden": [], "tasks.train_shots": [2, 5], "tasks.shot": 4, "tasks.query_shot": 4}
TABLES = {**MLP, "tasks.train_shots": [2, 3], "tasks.shot": 3, "tasks.query_shot": 2, "tasks.features": 3}
PARTS = {"tasks.classes": 3, "tasks.drawers": 12, "tasks.clean": 3, "tasks.val": 1, "tasks.test": 2}
PROBLEM = {**MLP, **PARTS, "tasks.batch": 6, "tasks.clean_batch": 4, "tasks.noise": "uniform_flip"}
DOMAINS = {**MLP, **PARTS, "tasks.batch": 3, "tasks.domains": "angles", "tasks.angles": [0, 45, 90]}
CELLS = {"model": "supernet", "model.width": 2, "model.cells": 3, "model.nodes": 1, "model.stem_stride": 2}
SEARCH = {
    **CELLS,
    **PARTS,
    "tasks.batch": 4,
    "tasks.clean_batch": 4,
    "model.operations": ["none", "skip", "sep_conv_3"],
}
CASES: dict[str, Case] = {
    "maml": Case(options=SINES | {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 2}),
    "maml_pp": Case("glyphs", GLYPHS | {"model.norm": "batch", "algorithm.inner_steps": 2}),
    "cavia": Case(options=SINES | {"algorithm.inner_lr": 0.5, "algorithm.inner_steps": 2}),
    "meta_curvature": Case(options=SINES | {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 2}),
    "leo": Case("glyphs", GLYPHS | {"algorithm.num_latents": 4, "algorithm.init_weight_lr": 0.1}),
    "meta_lstm": Case(
        options=SINES | {"algorithm.inner_steps": 2, "algorithm.hidden": 3},
        pseudo="slopes of the learner are inputs",
        lowers=False,
    ),
    "imaml": Case(
        options=SINES | {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 2},
        pseudo="the gradient of the solved inner problem; equal where it is solved, see test_imaml",
    ),
    "anil": Case(options=SINES | {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 2}),
    "meta_sgd": Case(options=SINES | {"algorithm.inner_steps": 2}),
    "reptile": Case(options=SINES | {"algorithm.test_inner_steps": 3}, pseudo="φ − θ_K, a difference"),
    "protonet": Case("glyphs", GLYPHS, lowers=False),
    "r2d2": Case("glyphs", GLYPHS, lowers=False),
    "relation": Case("glyphs", GLYPHS, lowers=False),
    "logistic": Case("glyphs", GLYPHS, lowers=False),
    "metaoptnet": Case("glyphs", GLYPHS, lowers=False),
    "matching": Case(
        "glyphs", GLYPHS | {"algorithm.full_context": True, "algorithm.processing_steps": 2}, lowers=False
    ),
    "siamese": Case("glyphs", GLYPHS, lowers=False),
    "mann": Case("glyphs", GLYPHS, lowers=False),
    "cnaps": Case("tabular_prior", TABLES | {"algorithm.hidden": 6}, lowers=False),
    "hsml": Case(options=SINES | {"algorithm.inner_lr": 0.05, "algorithm.inner_steps": 2, "algorithm.embedding": 5}),
    "metail": Case(
        "glyphs", GLYPHS | {"algorithm.inner_lr": 0.05, "algorithm.embedding": 5, "algorithm.encoder": "mean"}
    ),
    "snail": Case("glyphs", {**GLYPHS, "algorithm.scale": 32}, lowers=False),
    "cnp": Case("gaussian_process", {**GP, "algorithm.hidden": 8}, lowers=False),
    "np": Case(
        "gaussian_process", {**GP, "algorithm.hidden": 8, "algorithm.latent": 3, "algorithm.samples": 2}, lowers=False
    ),
    "pfn": Case(
        "gaussian_process", {**GP, "algorithm.width": 8, "algorithm.depth": 2, "algorithm.heads": 2}, lowers=False
    ),
    "joint": Case(options=SINES | {"algorithm.test_inner_steps": 2, "algorithm.inner_lr": 0.05}),
    "baseline": Case("glyphs", GLYPHS | {"algorithm.test_inner_steps": 5}),
    "meta_weight_net": Case(
        "classification", PROBLEM, ("weighted_gradient",), lowers=False, pseudo="its step differentiates across maps"
    ),
    "plain": Case("classification", PROBLEM, lowers=False),
    "l2rw": Case(
        "classification",
        PROBLEM | {"algorithm.exact": True},
        ("clean_gradient", "clean_examples"),
        lowers=False,
        pseudo="its step differentiates across maps",
    ),
    "erm": Case("classification", DOMAINS, lowers=False),
    "mldg": Case("classification", DOMAINS, lowers=False),
    "darts": Case(
        "classification",
        SEARCH,
        ("weights_gradient", "architecture_gradient"),
        lowers=False,
        pseudo="its step differentiates across maps",
    ),
    "enas": Case(
        "classification",
        SEARCH | {"algorithm.hidden": 4},
        ("weights_gradient", "judged"),
        lowers=False,
        pseudo="a sampled architecture is a constant",
    ),
    "maml_rl": Case(
        "navigation",
        MLP | {"algorithm.horizon": 5, "algorithm.trajectories": 4},
        lowers=False,
        pseudo="trajectories are sampled and held constant",
    ),
    "l2l": Case(
        "quadratics",
        {**MLP, "algorithm.unroll": 3, "algorithm.windows": 2},
        ("first_window",),
        lowers=False,
        pseudo="slopes of the optimisee are inputs",
    ),
    "learned_mlp": Case(
        "glyphs",
        {**GLYPHS, "model.shrink": 7, "algorithm.unroll": 3, "algorithm.windows": 2, "algorithm.batch_size": 2}
        | {"algorithm.hidden": 4, "algorithm.train": "pes", "algorithm.pairs": 2},
        ("first_window",),
        lowers=False,
        pseudo="an estimate from perturbations",
    ),
    "nas_evolution": Case(
        "cell_table",
        {**MLP, "tasks.edges": 3, "algorithm.population": 6},
        ("random_child",),
        lowers=False,
        pseudo="nothing is differentiated",
    ),
    "nas_reinforce": Case(
        "cell_table",
        {**MLP, "tasks.edges": 3, "algorithm.hidden": 4},
        ("sampled",),
        lowers=False,
        pseudo="a sampled architecture is a constant",
    ),
    "regularized_evolution": Case(
        "cell_table", {"tasks.edges": 3}, ("random_child",), lowers=False, pseudo="nothing is differentiated"
    ),
}
NAMES = sorted(CASES)
COMPILED = (
    "maml",
    "maml_pp",
    "meta_curvature",
    "leo",
    "protonet",
    "matching",
    "siamese",
    "metaoptnet",
    "cnp",
    "snail",
    "mldg",
)
"""One method of each kind of arithmetic: a compiler takes ten seconds for each."""
RUN_WHOLE = (
    "cnp",
    "darts",
    "enas",
    "erm",
    "l2l",
    "l2rw",
    "leo",
    "learned_mlp",
    "maml_pp",
    "maml_rl",
    "matching",
    "nas_evolution",
    "pfn",
    "l2l",
    "leo",
    "maml_pp",
    "maml_rl",
    "matching",
    "pfn",
    "nas_evolution",
    "nas_reinforce",
    "learned_mlp",
)
"""Those that draw, carry, size or sum something in a way of their own."""


def test_every_method_has_its_row() -> None:
    assert sorted(registry("algorithm")) == NAMES


class Made(NamedTuple):
    algorithm: Algorithm
    problem: Problem
    learned: Learned
    keys: list[TaskKey]
    episodes: Episode

    def part(self, function: str, learned: Learned | None = None, episodes: Episode | None = None) -> Part:
        torch.manual_seed(0)
        self.problem.set_training(True)
        phase = Phase(way=self.problem.way_of(self.episodes))
        noise = self.algorithm.noise(self.problem, self.keys, self.episodes, phase)
        noise = {n: v.double() if v.is_floating_point() else v for n, v in noise.items()}
        return self.algorithm.contribution(
            self.problem, learned or self.learned, episodes or self.episodes, noise=noise, phase=phase,
            function=function,
        )  # fmt: skip


def made(name: str, vectorize: str = "vmap", num_tasks: int = 3) -> Made:
    """Everything in float64, with parameters a little away from where they start, which may be zero."""
    case = CASES[name]
    config = load_config(overrides={"algorithm": name, "tasks": case.tasks, **case.options}).config
    built = build(config)
    problem = Problem(
        built.blueprint.model.double(), goal=config.tasks.goal, vectorize=vectorize, wide_head=False, judged=True
    )  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    initial = config.algorithm.init(problem, problem.initial_params(), torch.Generator().manual_seed(0))
    params = {
        n: v.double() + 0.05 * torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for n, v in initial.params.items()
    }
    keys = [TaskKey(0, "train", 0, index) for index in range(num_tasks)]
    episodes = in_type(torch.float64, config.tasks.episodes(keys))
    return Made(config.algorithm, problem, initial._replace(params=params), keys, episodes)


def maps_of() -> list[tuple[str, str]]:
    return [(name, function) for name in NAMES for function in CASES[name].maps]


def everything(part: Part) -> Params:
    named = {"sums": part.sums, "metrics": part.metrics, "rows": part.rows}
    return {f"{kind} {name}": value for kind, values in named.items() for name, value in values.items()}


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize(("name", "function"), maps_of())
def test_a_map_is_finite_and_the_same_bits_again(name: str, function: str) -> None:
    one, other = (everything(made(name).part(function)) for _ in range(2))
    assert one
    for key, value in one.items():
        assert value.isfinite().all(), key
        assert torch.equal(value, other[key]), key


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize(("name", "function"), maps_of())
def test_side_by_side_equals_one_after_another(name: str, function: str) -> None:
    one, other = (everything(made(name, vectorize).part(function)) for vectorize in ("vmap", "loop"))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-8, atol=1e-10, msg=f"{key}: {value} {other[key]}")


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize(("name", "function"), maps_of())
@pytest.mark.parametrize("vectorize", ["vmap", "loop"])
def test_nothing_that_is_given_is_written(name: str, function: str, vectorize: str) -> None:
    case = made(name, vectorize)
    learned = Learned(*({n: v.clone() for n, v in part.items()} for part in case.learned))
    episodes = each(torch.clone, case.episodes)
    case.part(function)
    for before, now in zip(learned, case.learned, strict=True):
        assert all(torch.equal(value, now[name]) for name, value in before.items())
    for side, now_side in zip(episodes, case.episodes, strict=True):
        assert all(a is None or torch.equal(a, b) for a, b in zip(side, now_side, strict=True))


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if not CASES[name].pseudo])
def test_the_meta_gradient_is_that_of_differences(name: str) -> None:
    case = made(name)
    sums = case.part(TASK_GRADIENT).sums
    generator = torch.Generator().manual_seed(2)
    direction = {
        n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in case.learned.params.items()
    }

    def loss(shift: float) -> float:
        params = {n: v + shift * direction[n] for n, v in case.learned.params.items()}
        return _outer_loss(case, case.learned._replace(params=params))

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert float(sum((sums[n] * d).sum() for n, d in direction.items())) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def _outer_loss(case: Made, learned: Learned) -> float:
    """The sum over tasks of what the outer loop minimises, one task after another."""
    phase = Phase(way=case.problem.way_of(case.episodes))
    noise = case.algorithm.noise(case.problem, case.keys, case.episodes, phase)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(len(case.keys)):
        episode = Episode(*(type(side)(*(None if v is None else v[t] for v in side)) for side in case.episodes))  # type: ignore[arg-type]
        own = {n: v[t].double() if v.is_floating_point() else v[t] for n, v in noise.items()}
        loss, _ = case.algorithm.task_loss(case.problem, learned, episode, noise=own, phase=phase)
        total = total + loss.detach()
    return float(total)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_plain_data(name: str) -> None:
    algorithm = load_config(overrides={"algorithm": name, "tasks": CASES[name].tasks}).config.algorithm
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    assert hash(algorithm) == hash(pickle.loads(pickle.dumps(algorithm)))


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].lowers])
def test_adapting_lowers_the_loss_on_the_support(name: str) -> None:
    case = made(name)
    batch = Episode(case.episodes.support, case.episodes.support)
    phase = Phase(training=False, way=case.problem.way_of(batch))
    case.problem.set_training(False)
    noise = case.algorithm.noise(case.problem, case.keys, batch, phase)
    noise = {n: v.double() if v.is_floating_point() else v for n, v in noise.items()}
    loss = case.algorithm.scores(case.problem, case.learned, batch, noise=noise, phase=phase)["loss"]
    assert (loss[:, -1] < loss[:, 0]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", RUN_WHOLE)
def test_whole_runs_have_equal_bits(name: str, local_ray: Any, tmp_path: Path) -> None:
    """On 0 and 2 workers, and stopped in the middle and resumed; other methods have this test beside their own laws, or
    add nothing to what a run carries."""
    case = CASES[name]
    require_equal_bits(tmp_path, algorithm=name, tasks=case.tasks, **case.options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", ["maml", "l2l", "meta_weight_net", "nas_evolution"])
def test_a_worker_killed_inside_each_map_changes_no_bits(name: str, local_ray: Any, tmp_path: Path) -> None:
    """In the step after the first, before its first map; in the next one before its second map, and so on.

    Methods of one map are all asked in one way, so one of them stands for the others.
    """
    case = CASES[name]
    sizes = {"meta_batch_size": 4, "shard_size": 1, "steps": 6, "validate_every": 0, "test_episodes": 2}
    overrides = {"algorithm": name, "tasks": case.tasks, **case.options, **sizes, "device": "cpu"}
    config = load_config(overrides=overrides).config
    expected, asked = trained_alone(config, tmp_path / "quiet")
    maps_a_step = max(sum(step == one for step, _ in asked) for one in range(6))

    def kills(so_far: Sequence[tuple[int, str]]) -> bool:
        step = so_far[-1][0]
        place = sum(one == step for one, _ in so_far)
        return step == place and step <= maps_a_step

    found, maps, events = trained_with_kills(config, tmp_path / "killed", kills)
    assert found == expected
    assert maps == asked
    assert events.count("worker_lost") == maps_a_step


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_equals_as_it_is(name: str) -> None:
    case, function = made(name, num_tasks=2), CASES[name].maps[0]
    case.problem.set_training(True)
    phase = Phase(way=case.problem.way_of(case.episodes))
    noise = case.algorithm.noise(case.problem, case.keys, case.episodes, phase)
    noise = {n: v.double() if v.is_floating_point() else v for n, v in noise.items()}
    layouts = Layout.of(case.learned.params), Layout.of(case.learned.state)
    plain, compiled = (
        ShardFunction(case.algorithm, case.problem, *layouts, compiled=compiles)(
            case.learned, Asked(function, case.episodes, noise, phase)
        )
        for compiles in (False, True)
    )
    assert compiled.outline == plain.outline
    torch.testing.assert_close(compiled.vector, plain.vector, rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_run_ends_with_its_score(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    run = raymeta.meta_train(
        algorithm=name, tasks=case.tasks, output=str(tmp_path), steps=2, meta_batch_size=2, validate_every=1,
        validation_episodes=2, test_episodes=2, **case.options,
    )  # fmt: skip
    config = load_config(overrides={"algorithm": name, "tasks": case.tasks}).config
    assert run.summary["headline"]["name"] == config.algorithm.score_of(config.tasks.goal)
    values: Tensor = torch.tensor(run.summary["by_inner_step"])
    assert values.isfinite().all()
