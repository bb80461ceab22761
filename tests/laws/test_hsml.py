"""HSML: the start of a task by its formula, MAML as a special case, clusters, and its GRU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import draw, shaken
from torch import Tensor, nn

from raymeta import HSML, MAML, Beside, Episode, Examples, meta_gradient
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.hsml import GATE, READER, TREE, Tree
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.config.variants import name_of
from raymeta.models.layers.gru import GRU

SMALL = HSML(embedding=3, leaves=4, parents=2, inner_lr=0.1, inner_steps=2, encoder="mean")
RECURRENT = HSML(embedding=3, leaves=4, parents=2, inner_lr=0.1, inner_steps=2)


def body() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))


def problem_of(algorithm: HSML) -> Problem:
    model = body()
    count = sum(p.numel() for p in model.parameters())
    return Problem(
        shaken(Beside(model, **{READER: nn.Flatten()}, **algorithm.networks(3, count)), 0.5), goal="regression"
    )


def side(seed: int, count: int = 4) -> Examples:
    return Examples(draw(count, 2, seed=seed), draw(count, 1, seed=seed + 50))


def learned_of(problem: Problem) -> Learned:
    return Learned(problem.initial_params(), {})


def by_hand(params: dict[str, Tensor], codes: Tensor, sigma: float) -> dict[str, Tensor]:
    """θ_0 from the codes of the support, one node after another."""

    def linear(name: str, x: Tensor) -> Tensor:
        return params[f"{name}.weight"] @ x + params[f"{name}.bias"]

    task = codes.mean(0)
    logits = torch.stack([-((task - centre) ** 2).sum() / (2 * sigma) for centre in params["tree.centres"]])
    share = logits.exp() / logits.exp().sum()
    leaves = [share[c] * linear("tree.of_leaves", task)[3 * c : 3 * c + 3].tanh() for c in range(4)]
    parents = []
    for p in range(2):
        parent = torch.zeros(3).double()
        for leaf in leaves:
            gate = linear("tree.gate", leaf).exp()
            parent = parent + gate[p] / gate.sum() * linear("tree.of_parents", leaf)[3 * p : 3 * p + 3].tanh()
        parents.append(parent)
    root = sum((linear("tree.of_root", parent).tanh() for parent in parents), torch.zeros(3).double())
    eta = 1 / (1 + (-linear("gate", torch.cat([task, root]))).exp())
    start, place = {}, 0
    for name in (n for n in params if n.startswith("body.")):
        size = params[name].numel()
        start[name] = eta[place : place + size].view_as(params[name]) * params[name]
        place += size
    return start


@pytest.mark.parametrize("algorithm", [SMALL, RECURRENT], ids=["mean", "recurrent"])
def test_the_start_is_the_formula(algorithm: HSML) -> None:
    problem, support = problem_of(algorithm), side(0)
    learned, model = learned_of(problem), problem.model
    codes = model.get_submodule("encoder")(torch.cat([support.x, support.y], 1)).detach()
    found, error = algorithm.initialisation(problem, learned, support)
    expected = by_hand(learned.params, codes, algorithm.sigma)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
    again = model.get_submodule("decoder")(codes).detach()
    assert error.item() == pytest.approx((again - torch.cat([support.x, support.y], 1)).square().mean().item())


def test_gates_of_one_and_no_reconstruction_are_maml() -> None:
    algorithm = HSML(embedding=3, inner_lr=0.1, inner_steps=2, encoder="mean", reconstruction=0.0)
    problem = problem_of(algorithm)
    gate: Any = problem.model.get_submodule(GATE)
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, 50.0)
    tasks = [Episode(side(0), side(1)), Episode(side(2), side(3))]
    found = meta_gradient(problem.model, algorithm, tasks)
    expected = meta_gradient(problem.model.body, MAML(inner_lr=0.1, inner_steps=2), tasks)  # type: ignore[arg-type]
    for name, value in expected.items():
        torch.testing.assert_close(found[f"body.{name}"], value, rtol=1e-10, atol=1e-12)
    others = [value for name, value in found.items() if not name.startswith("body.")]
    assert all(float(value.abs().max()) < 1e-12 for value in others)


def test_the_outer_loss_has_the_error_of_the_auto_encoder() -> None:
    problem, episode = problem_of(SMALL), Episode(side(0), side(1))
    learned, phase = learned_of(problem), Phase()
    _, error = SMALL.initialisation(problem, learned, episode.support)
    without = HSML(embedding=3, inner_lr=0.1, inner_steps=2, encoder="mean", reconstruction=0.0)
    losses = [one.task_loss(problem, learned, episode, noise={}, phase=phase)[0].item() for one in (SMALL, without)]
    assert losses[0] - losses[1] == pytest.approx(0.01 * error.item(), rel=1e-9)


def test_assignments_sum_to_one_and_grow_even_with_sigma() -> None:
    task = draw(3, seed=0)
    tree: Any = shaken(Tree(3, 4, 2, 2.0))
    assert tree.assignment(task).sum().item() == pytest.approx(1, abs=1e-14)
    tree.sigma = 1e12
    torch.testing.assert_close(tree.assignment(task), torch.full((4,), 0.25).double(), rtol=1e-9, atol=0)
    assert shaken(Tree(3, 1, 2, 2.0)).assignment(task).tolist() == [1.0]  # type: ignore[operator]


def test_equal_supports_start_alike_in_any_order_and_others_do_not() -> None:
    problem, support = problem_of(SMALL), side(0)
    learned, order = learned_of(problem), torch.tensor([2, 0, 3, 1])
    start, _ = SMALL.initialisation(problem, learned, support)
    turned, _ = SMALL.initialisation(problem, learned, Examples(support.x[order], support.y[order]))
    other, _ = SMALL.initialisation(problem, learned, side(7))
    for name, value in start.items():
        torch.testing.assert_close(turned[name], value, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(other[name], value)


def test_the_recurrent_unit_is_that_of_torch() -> None:
    ours, theirs = GRU(3, 4).double(), nn.GRU(3, 4).double()
    pairs = ((theirs.weight_ih_l0, ours.of_input.weight), (theirs.weight_hh_l0, ours.of_state.weight))
    pairs += ((theirs.bias_ih_l0, ours.of_input.bias), (theirs.bias_hh_l0, ours.of_state.bias))  # type: ignore[assignment]
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)
    sequence = draw(5, 3, seed=0)
    torch.testing.assert_close(ours(sequence), theirs(sequence)[0], rtol=1e-12, atol=1e-14)


def test_metail_is_a_second_name() -> None:
    one, other = (
        load_config(overrides={"algorithm": name, "tasks": "mixture", "model": "mlp"}).config.algorithm
        for name in ("hsml", "metail")
    )
    assert one == other == HSML()
    assert name_of(other) == "hsml"


def test_gates_start_where_they_are_told() -> None:
    options = {"algorithm": "hsml", "tasks": "glyphs", "model": "conv4", "model.width": 4, "algorithm.init_gate": 0.9}
    built = build(load_config(overrides=options).config)
    torch.testing.assert_close(
        built.initial.params["gate.bias"].sigmoid(), torch.full_like(built.initial.params["gate.bias"], 0.9)
    )
    assert len(built.initial.params["gate.bias"]) == sum(
        v.numel() for n, v in built.initial.params.items() if n.startswith("body.")
    )
    assert built.initial.params[f"{TREE}.centres"].shape == (4, 40)
