"""A learned optimiser as one of torch.optim takes the steps that the run itself takes."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import raymeta
from raymeta import Phase, RunView, TaskKey
from raymeta.algorithms.l2l import L2L
from raymeta.algorithms.learned_optimizer import LearnedOptimizer
from raymeta.api.checkpoints import best_checkpoint, run_config
from raymeta.config.build import build
from raymeta.errors import CheckpointError, ConfigError
from raymeta.tasks.episodes import Episode
from raymeta.tree import Layout
from raymeta.use.optimizer import TrainedOptimizer

pytestmark = pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
QUICK: dict[str, Any] = {"steps": 2, "meta_batch_size": 2, "validate_every": 0, "test_episodes": 2, "device": "cpu"}
NETWORK: dict[str, Any] = {"model": "mlp", "model.hidden": [5], "model.shrink": 7, "tasks.way": 3, "tasks.shot": 4}
SMALL: dict[str, Any] = {"algorithm.hidden": 4, "algorithm.unroll": 6, "algorithm.windows": 2}


def trained(folder: Path, name: str, tasks: str) -> RunView:
    own = NETWORK | {"algorithm.batch_size": 6} if tasks == "glyphs" else {}
    return raymeta.meta_train(algorithm=name, tasks=tasks, output=str(folder), **QUICK, **SMALL, **own)


def own_unroll(run: RunView, key: TaskKey) -> tuple[Episode, dict[str, Tensor], Tensor]:
    """One test task of a run: its episode, its noise, and the values that the run's own scores give."""
    config = run_config(run, {})
    assert isinstance(config.algorithm, LearnedOptimizer)
    problem, learned = build(config, ()).blueprint.problem(), best_checkpoint(run).learned
    batch, phase = config.tasks.episodes([key]), Phase(training=False)
    noise = config.algorithm.noise(problem, [key], batch, phase)
    scores = config.algorithm.scores(problem, learned, batch, noise=noise, phase=phase)
    return config.tasks.episode(key), {name: value[0] for name, value in noise.items()}, scores["loss"][0]


@pytest.mark.parametrize("name", ["l2l", "learned_mlp"])
def test_a_quadratic_of_ones_own_is_minimised_as_in_the_run(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path, name, "quadratics")
    episode, noise, expected = own_unroll(run, TaskKey(5, "test", 0, 0))
    theta = noise["theta"].clone().requires_grad_()
    optimizer, found = raymeta.load_optimizer(str(run.path), [theta]), []
    for _ in range(13):
        optimizer.zero_grad()
        loss = (episode.support.x @ theta - episode.support.y[:, 0]).square().sum()  # type: ignore[operator]
        found.append(loss.detach())
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(expected[0], expected[-1], rtol=1e-3), "something happened"


def test_a_network_of_ones_own_is_trained_as_in_the_run_and_goes_on_from_its_state(tmp_path: Path) -> None:
    run = trained(tmp_path, "learned_mlp", "glyphs")
    episode, noise, expected = own_unroll(run, TaskKey(5, "test", 0, 0))
    model: nn.Module = run_config(run, {}).model.build((1, 28, 28), 3)
    layout = Layout.of(dict(model.named_parameters()))
    model.load_state_dict(layout.unflatten(noise["theta"]))
    optimizer, found = raymeta.load_optimizer(run, model.parameters()), []
    for step, batch in enumerate(noise["batch"]):
        if step == 4:  # somebody stops here and goes on
            state = pickle.loads(pickle.dumps(optimizer.state_dict()))
            optimizer = raymeta.load_optimizer(run, model.parameters())
            optimizer.load_state_dict(state)

        def closure(batch: Tensor = batch, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            outputs = model(episode.support.x[batch])  # type: ignore[index]
            loss = nn.functional.cross_entropy(outputs, episode.support.y[batch])
            loss.backward()
            return loss.detach()

        found.append(optimizer.step(closure))
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-5)
    require_exact_state_of_rounded_parameters(run)


def require_exact_state_of_rounded_parameters(run: RunView) -> None:
    """What goes on from a state has it bit for bit, however few bits the parameters have."""
    model = nn.Linear(3, 2).bfloat16()
    optimizer = raymeta.load_optimizer(run, model.parameters())
    model(torch.ones(1, 3, dtype=torch.bfloat16)).square().sum().backward()
    optimizer.step()
    again = raymeta.load_optimizer(run, model.parameters())
    again.load_state_dict(optimizer.state_dict())
    for parameter in model.parameters():
        for name, value in optimizer.state[parameter].items():
            assert torch.equal(again.state[parameter][name], value)
            assert again.state[parameter][name].dtype == value.dtype


SCHEDULERS: dict[str, Any] = {
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5),
}
FACTORS = {"step": [1, 1, 0.5, 0.5, 0.25, 0.25], "cosine": [(1 + math.cos(math.pi * t / 5)) / 2 for t in range(6)]}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_torch_scales_the_updates_and_goes_on_from_its_state(name: str) -> None:
    """A slope of 1 in every step, so that the rule's answers are known without it."""
    rule = L2L(hidden=3).rule()
    theta = torch.zeros(2, requires_grad=True)
    optimizer = TrainedOptimizer(rule, [theta])
    scheduler, state = SCHEDULERS[name](optimizer), rule.start(torch.zeros(2))
    for step, factor in enumerate(FACTORS[name]):
        if step == 3:  # somebody stops here and goes on
            saved = pickle.loads(pickle.dumps((optimizer.state_dict(), scheduler.state_dict())))
            optimizer = TrainedOptimizer(rule, [theta])
            scheduler = SCHEDULERS[name](optimizer)
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        before, theta.grad = theta.detach().clone(), torch.ones(2)
        optimizer.step()
        scheduler.step()
        update, state = rule(torch.ones(2), state)
        torch.testing.assert_close(theta.detach() - before, factor * update, rtol=1e-4, atol=1e-7)
        assert update.abs().min() > 1e-5


def test_a_state_from_before_there_was_a_factor_goes_on_with_whole_updates() -> None:
    rule, theta = L2L(hidden=3).rule(), torch.ones(2, requires_grad=True)
    state = TrainedOptimizer(rule, [theta]).state_dict()
    del state["param_groups"][0]["lr"]
    optimizer = TrainedOptimizer(rule, [{"params": [theta], "lr": 0.5}])
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 1


def test_a_negative_factor_is_refused() -> None:
    theta = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="Invalid lr: -1"):
        TrainedOptimizer(L2L(hidden=3).rule(), [{"params": [theta], "lr": -1.0}])


def test_the_page_about_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained(Path("results"), "l2l", "quadratics")
    text = (Path(raymeta.__file__).parents[1] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(optimizer = .*?)```", text, flags=re.DOTALL)
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    batches = [(torch.ones(2, 3), torch.zeros(2, 1))] * 3
    exec(lines, {"raymeta": raymeta, "model": model, "batches": batches, "loss_of": nn.functional.mse_loss})
    assert not torch.equal(model.weight, before)


def test_what_has_learned_no_optimiser_is_refused(tmp_path: Path) -> None:
    run = raymeta.meta_train(algorithm="maml", tasks="sinusoid", model="mlp", output=str(tmp_path), **QUICK)
    with pytest.raises(ConfigError, match="has learned no optimiser: its algorithm is maml"):
        raymeta.load_optimizer(run, [torch.zeros(1, requires_grad=True)])


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, "l2l", "quadratics")
    other = run_config(run, {"algorithm.hidden": 5})
    monkeypatch.setattr("raymeta.use.optimizer.run_config", lambda *args, **kwargs: other)
    with pytest.raises(CheckpointError, match="does not fit its configuration"):
        raymeta.load_optimizer(run, [torch.zeros(1, requires_grad=True)])
