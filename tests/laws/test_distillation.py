"""Teachers that learn to teach: by the derivative of the quiz loss through the student's step, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from noisy_labels import FEATURES, NoisyLabels
from one_step import one_step
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import MKD, Episode, MetaDistil, Plain, RunView, TaskKey
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.distillation import TEACHER, Distillation, is_teacher
from raymeta.algorithms.look_ahead import model_of
from raymeta.algorithms.mkd import LOG_TEMPERATURE
from raymeta.api.checkpoints import best_checkpoint
from raymeta.errors import ConfigError, DataError, RaymetaWarning
from raymeta.export import main as export
from raymeta.models.backbones import Backbone
from raymeta.models.conv4 import Conv4
from raymeta.models.layers.beside import Beside
from raymeta.models.mlp import MLP
from raymeta.tasks.episodes import in_type
from raymeta.tree import Params

TASKS = NoisyLabels(way=3, shot=3)
RATE, ALPHA, TEMPERATURE = 0.3, 0.7, 2.0
VECTORIZE = ("vmap", "loop")
OPTIONS: dict[str, Any] = {"alpha": ALPHA, "temperature": TEMPERATURE, "teacher_lr": 0.5}
METHODS = (MetaDistil(**OPTIONS), MKD(**OPTIONS, temperature_lr=0.1))


def episodes(count: int = 3) -> list[Episode]:
    return [in_type(torch.float64, TASKS.episode(TaskKey(0, "train", 0, index))) for index in range(count)]


def network(*, linear: bool = False) -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if linear:
            both = [nn.Linear(FEATURES, TASKS.way, bias=False) for _ in range(2)]
            return Beside(both[0], **{TEACHER: both[1]}).double()
        bodies = [nn.Sequential(nn.Linear(FEATURES, k), nn.Tanh(), nn.Linear(k, TASKS.way)) for k in (4, 7)]
        return Beside(bodies[0], **{TEACHER: bodies[1]}).double()


def stepped(algorithm: Distillation, vectorize: Any = "vmap", module: nn.Module | None = None, **options: Any) -> Any:
    return one_step(algorithm, module or network(), episodes(), RATE, vectorize, **options)


# Plain autograd: no part of raymeta is used


def outputs(params: Params, prefix: str, x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ params[f"{prefix}.0.weight"].T + params[f"{prefix}.0.bias"])
    return hidden @ params[f"{prefix}.2.weight"].T + params[f"{prefix}.2.bias"]


def loss_of(params: Params, episode: Episode) -> Tensor:
    """ℓ of the student, by the formula of a cross-entropy and of an entropy."""
    taus = [params.get(f"{LOG_TEMPERATURE}{name}") for name in ("teacher", "student")]
    by_teacher, by_student = (
        torch.tensor(TEMPERATURE, dtype=torch.float64) if tau is None else tau.exp() for tau in taus
    )
    x, y = episode.support.x, episode.support.y
    logits = outputs(params, "body", x)
    p = (outputs(params, TEACHER, x) / by_teacher).softmax(1)
    q = (logits / by_student).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    return ALPHA * by_teacher * by_student * divergence + (1 - ALPHA) * F.cross_entropy(logits, y)


def descended(params: Params) -> Params:
    """The student after a plain step on the mean loss of all tasks."""
    own = {name: value.clone().requires_grad_() for name, value in model_of(params).items()}
    loss = torch.stack([loss_of(params | own, episode) for episode in episodes()]).mean()
    gradients = torch.autograd.grad(loss, list(own.values()))
    return {name: (value - RATE * g).detach() for (name, value), g in zip(own.items(), gradients, strict=True)}


def quiz(params: Params) -> float:
    """The quiz loss after the step, as a function of everything else."""
    ahead = descended(params)
    losses = [F.cross_entropy(outputs(ahead, "body", e.query.x), e.query.y) for e in episodes()]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("algorithm", METHODS, ids=["metadistil", "mkd"])
def test_what_learns_to_teach_follows_finite_differences(algorithm: Distillation, vectorize: Any) -> None:
    outer, params = stepped(algorithm, vectorize)
    first, second = outer.updates
    assert set(first) == {name for name in params if algorithm.is_meta(name)}
    assert set(second) == set(model_of(params))
    for name, gradient in first.items():
        generator = torch.Generator().manual_seed(1)
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ends = [quiz(params | {name: params[name] + s * direction}) for s in (1e-4, -1e-4)]
        found = float((gradient * direction).sum())
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6, abs=1e-11)
        assert abs(found) > 1e-6


@pytest.mark.parametrize("algorithm", METHODS, ids=["metadistil", "mkd"])
def test_the_student_steps_with_what_was_learned(algorithm: Distillation) -> None:
    outer, params = stepped(algorithm)
    new = {name: value for name, value in outer.params.items() if algorithm.is_meta(name)}
    assert not any(torch.equal(value, params[name]) for name, value in new.items())
    for name, value in descended(params | new).items():
        torch.testing.assert_close(outer.params[name], value, rtol=1e-11, atol=1e-13)
        assert not torch.allclose(descended(params)[name], value, rtol=1e-8)
    fixed = [name for name in params if is_teacher(name) and name not in new]
    assert all(torch.equal(outer.params[name], params[name]) for name in fixed)


def test_of_linear_networks_both_gradients_are_closed_forms() -> None:
    """∇_S KD = (softmax(S x) − p)ᵀ x / n, and for u = g x the teacher's is λ (p (u − ⟨p, u⟩))ᵀ x / n."""
    algorithm = MetaDistil(alpha=1, temperature=1, teacher_lr=1e-300)
    outer, params = stepped(algorithm, module=network(linear=True))
    s, t = params["body.weight"], params["teacher.weight"]
    x, query = (torch.cat([getattr(e, side).x for e in episodes()]) for side in ("support", "query"))
    y = torch.cat([e.query.y for e in episodes()])
    p = (x @ t.T).softmax(1)
    of_student = ((x @ s.T).softmax(1) - p).T @ x / len(x)
    torch.testing.assert_close(outer.updates[1]["body.weight"], of_student, rtol=1e-11, atol=1e-14)
    ahead = s - RATE * of_student
    g = ((query @ ahead.T).softmax(1) - F.one_hot(y, TASKS.way)).T @ query / len(query)
    u = x @ g.T
    of_teacher = RATE * (p * (u - (p * u).sum(1, keepdim=True))).T @ x / len(x)
    torch.testing.assert_close(outer.updates[0]["teacher.weight"], of_teacher, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("still", [{"alpha": 0.0}, {"virtual_lr": 0.0}], ids=["no word", "no step"])
def test_a_teacher_without_influence_learns_nothing(still: dict[str, Any]) -> None:
    """And the student's step is then, bit for bit, that of distillation from a fixed teacher."""
    outer, params = stepped(MetaDistil(**OPTIONS | still))
    taught, _ = outer.updates
    assert all(not value.any() for value in taught.values())
    fixed, _ = stepped(MetaDistil(**OPTIONS | still, teach=False))
    assert len(fixed.updates) == 1
    for name, value in outer.params.items():
        assert torch.equal(value, fixed.params[name]), name
        assert torch.equal(value, params[name]) == is_teacher(name)


def test_without_the_teachers_word_it_is_plain_training() -> None:
    outer, _ = stepped(MetaDistil(alpha=0, teach=False), "loop")
    plain, _ = one_step(Plain(), network(), episodes(), RATE, "loop")
    for name in outer.updates[0]:
        assert torch.equal(outer.params[name], plain.params[name])


@pytest.mark.parametrize("algorithm", [MetaDistil, MKD])
def test_its_first_steps_train_the_teacher_alone_as_plain_training_does(algorithm: Any) -> None:
    outer, params = stepped(algorithm(teacher_steps=1, teacher_lr=RATE), "loop")
    plain, _ = one_step(Plain(), network().get_submodule(TEACHER), episodes(), RATE, "loop")
    for name, value in params.items():
        expected = plain.params[name.removeprefix(f"{TEACHER}.")] if is_teacher(name) else value
        assert torch.equal(outer.params[name], expected), name


@pytest.mark.parametrize("algorithm", METHODS, ids=["metadistil", "mkd"])
def test_the_virtual_step_is_plain_whatever_the_outer_optimiser(algorithm: Distillation) -> None:
    plain, _ = stepped(algorithm)
    other, _ = stepped(algorithm, momentum=0.9, weight_decay=0.1)
    for name, value in plain.updates[0].items():
        assert torch.equal(other.updates[0][name], value)


def test_what_a_method_steps_must_not_be_frozen() -> None:
    module = network()
    module.get_submodule(TEACHER).requires_grad_(False)
    problem = Problem(module, goal="classification")
    with pytest.raises(ConfigError, match="no parameter of the teacher"):
        MetaDistil().init(problem, problem.initial_params(), torch.Generator())
    outer, _ = one_step(MKD(), module, episodes(), RATE)
    assert len(outer.updates) == 2


def test_features_are_the_students() -> None:
    bodies = [MLP(hidden=(size,)).build((FEATURES,), TASKS.way) for size in (4, 7)]
    problem = Problem(Beside(bodies[0], **{TEACHER: bodies[1]}), goal="classification")
    learned, x = Learned(problem.initial_params(), {}), torch.randn(5, FEATURES)
    torch.testing.assert_close(problem.features(learned, x, Phase()), bodies[0][:-1](x))


def test_a_run_that_trains_the_teacher_alone_says_so(tmp_path: Path) -> None:
    sizes = {"tasks.classes": 3, "tasks.drawers": 12, "tasks.clean": 3, "tasks.test": 2, "tasks.batch": 6}
    sizes |= {"tasks.clean_batch": 4}
    options = {**sizes, "algorithm": "mkd", "algorithm.teacher_steps": 2, "model": "mlp", "model.hidden": [4]}
    with pytest.warns(RaymetaWarning, match=r"all 2 steps train the teacher \(algorithm.teacher_steps 2\)"):
        raymeta.meta_train(tasks="classification", output=str(tmp_path), validate_every=0, steps=2, **options)
    assert MKD(teacher_steps=2).doubts(3) == ()
    assert "as it was initialised" in MKD(teacher_steps=0).doubts(3)[0]
    assert MKD(teacher_steps=0).doubts(3, started=True) == ()


TAUGHT: dict[str, Any] = {
    "tasks": "classification", "tasks.classes": 3, "tasks.drawers": 12, "tasks.clean": 3, "tasks.test": 2,
    "tasks.batch": 6, "tasks.clean_batch": 4, "steps": 2, "meta_batch_size": 2, "validate_every": 0, "model": "mlp",
}  # fmt: skip
FIXED: dict[str, Any] = {"algorithm": "metadistil", "algorithm.teach": False, "model.hidden": [4]}


def learned_by(run: RunView, prefix: str = "") -> Params:
    params = best_checkpoint(run).learned.params
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_teacher_comes_from_a_trained_run(tmp_path: Path) -> None:
    """By id, as an exported folder, as a file, and from a run that has a teacher: the same tensors bit for bit."""
    given = TAUGHT | {"output": str(tmp_path / "runs")}
    teacher = raymeta.meta_train(algorithm="plain", **{**given, "model.hidden": [8]})
    expected = learned_by(teacher)
    save_file({name: value.contiguous() for name, value in expected.items()}, tmp_path / "it.safetensors")
    assert export([str(teacher.path), "--out", str(tmp_path / "model")]) == 0
    for source in (teacher.id, str(tmp_path / "model"), str(tmp_path / "it.safetensors"), "latest"):
        run = raymeta.meta_train(**given, **FIXED, **{"algorithm.teacher": source, "algorithm.teacher_width": 8})
        found = learned_by(run, "teacher.")
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert found.keys() == expected.keys()
        told = [event["message"] for event in run.events()]
        assert f"the teacher starts with 4 of 4 tensors from {source}" in told
        assert not any("as it was initialised" in text for text in told)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"algorithm.teacher_width": 5},
            ConfigError,
            r"algorithm\.teacher: teacher\.linear1\.weight is \[5, 784\] here and",
        ),
        (
            {"algorithm.teacher_depth": 1, "algorithm.teacher": "deep.safetensors"},
            ConfigError,
            r"algorithm\.teacher: teacher\.linear2 is in deep\.safetensors and missing here",
        ),
        ({"algorithm.teacher": "none-such"}, DataError, r"algorithm\.teacher: none-such is no file of tensors"),
        ({"algorithm.teacher": "it.pt"}, DataError, r"algorithm\.teacher: it\.pt cannot be read"),
    ],
)
def test_a_teacher_that_does_not_fit_is_told(
    options: Any, error: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "it.safetensors"
    save_file({"linear1.weight": torch.ones(8, 784), "head.weight": torch.ones(3, 8), "head.bias": torch.ones(3)}, file)
    deep = MLP(hidden=(8, 8)).build((1, 28, 28), 3).state_dict()
    save_file({name: value.contiguous() for name, value in deep.items()}, tmp_path / "deep.safetensors")
    own = TAUGHT | FIXED | {"algorithm.teacher": str(file), "algorithm.teacher_width": 8} | options
    with pytest.raises(error, match=text):
        raymeta.meta_train(output=str(tmp_path / "runs"), **own)
    assert not (tmp_path / "runs").exists()


def test_a_teacher_has_sizes_of_its_own() -> None:
    assert Conv4(width=8).resized(64, None) == Conv4(width=64)
    assert Conv4(width=8, depth=4).resized(None, 2) == Conv4(width=8, depth=2)
    assert MLP(hidden=(6, 5)).resized(9, None) == MLP(hidden=(9, 9))
    assert MLP(hidden=(6, 5)).resized(None, 3) == MLP(hidden=(5, 5, 5))
    assert MLP(hidden=()).resized(4, 1) == MLP(hidden=(4,))
    assert MLP(hidden=(6, 5)).resized(None, None) == MLP(hidden=(6, 5))
    with pytest.raises(ConfigError, match="give both"):
        MLP(hidden=()).resized(4, None)
    with pytest.raises(ConfigError, match="no width and depth"):
        Backbone().resized(8, None)
