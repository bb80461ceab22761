"""Methods that compare queries with a support set: Matching Networks, Siamese networks, distances of ProtoNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta import Episode, Examples, MatchingNet, ProtoNet, Siamese
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.algorithms.matching import attention
from raymeta.algorithms.siamese import balanced, most_alike, triplet_loss
from raymeta.keys import TaskKey
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.lstm_cell import LSTMCell
from raymeta.tasks.episodes import stack_episodes

WAY, PHASE = 3, Phase(way=3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episode(shot: int = 2) -> Episode:
    y = torch.arange(WAY).repeat(shot)
    return Episode(Examples(draw(WAY * shot, 4, seed=1), y), Examples(draw(6, 4, seed=2), torch.arange(WAY).repeat(2)))


def problem(model: nn.Module | None = None) -> tuple[Problem, Learned]:
    made = Problem((model or nn.Identity()).double(), goal="classification", vectorize="loop")
    return made, Learned(made.initial_params(), {})


def outputs(algorithm: Algorithm, task: Episode, model: nn.Module | None = None, seed: int = 0) -> Tensor:
    made, learned = problem(model)
    keys = [TaskKey(seed, "train", 0, 0)]
    noise = {n: v[0] for n, v in algorithm.noise(made, keys, stack_episodes([task]), PHASE).items()}
    adaptation = algorithm.adapt(made, learned, task.support, noise=noise, phase=PHASE)
    return adaptation.predictors[-1](task.query.x)


# Matching networks


def test_probabilities_of_the_classes_sum_to_one() -> None:
    torch.testing.assert_close(outputs(MatchingNet(), episode()).exp().sum(1), torch.ones(6, dtype=torch.float64))
    sums = attention(draw(4, 5), draw(7, 5, seed=1), 3.0).sum(1)
    torch.testing.assert_close(sums, torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)


def test_one_shot_is_the_nearest_neighbour_by_cosine() -> None:
    task = episode(shot=1)
    nearest = (F.normalize(task.query.x, dim=1) @ F.normalize(task.support.x, dim=1).T).argmax(1)
    assert torch.equal(outputs(MatchingNet(), task).argmax(1), task.support.y[nearest])


def test_a_large_scale_is_the_nearest_neighbour_for_any_shot() -> None:
    task = episode(shot=3)
    nearest = (F.normalize(task.query.x, dim=1) @ F.normalize(task.support.x, dim=1).T).argmax(1)
    assert torch.equal(outputs(MatchingNet(scale=1e4), task).argmax(1), task.support.y[nearest])


def test_support_twice_is_support_once() -> None:
    task = episode()
    twice = task._replace(support=Examples(task.support.x.repeat(2, 1), task.support.y.repeat(2)))
    torch.testing.assert_close(outputs(MatchingNet(), twice), outputs(MatchingNet(), task), rtol=1e-10, atol=1e-12)


def test_cosines_of_unit_vectors_are_distances() -> None:
    z, s = F.normalize(draw(4, 5), dim=1), F.normalize(draw(6, 5, seed=1), dim=1)
    by_distance = (-torch.cdist(z, s).square() / 2).softmax(1)
    torch.testing.assert_close(attention(z, s, 1.0), by_distance, rtol=1e-10, atol=1e-12)


def contextual() -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cells = {name: LSTMCell(4, 4) for name in ("support_forward", "support_backward")}
        return Beside(nn.Identity(), **cells, reading=LSTMCell(8, 4))


def test_full_context_looks_at_the_whole_support_and_at_one_query() -> None:
    task, algorithm = episode(), MatchingNet(full_context=True)
    plain = outputs(algorithm, task, contextual())
    fewer = task._replace(query=Examples(task.query.x[:2], task.query.y[:2]))
    torch.testing.assert_close(outputs(algorithm, fewer, contextual()), plain[:2], rtol=1e-10, atol=1e-12)
    x = task.support.x.clone()
    x[-1] += 1
    moved = outputs(algorithm, task._replace(support=task.support._replace(x=x)), contextual())
    assert not torch.allclose(moved, plain)


def test_the_order_of_reading_is_that_of_the_key() -> None:
    task, algorithm = episode(), MatchingNet(full_context=True)
    one, again, other = (outputs(algorithm, task, contextual(), seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_the_cell_is_torchs_with_an_open_forget_gate() -> None:
    cell, theirs = LSTMCell(3, 4).double(), nn.LSTMCell(3, 4).double()
    with torch.no_grad():
        theirs.weight_ih.copy_(cell.of_input.weight)
        theirs.bias_ih.copy_(cell.of_input.bias)
        theirs.bias_ih[4:8] += 1
        theirs.weight_hh.copy_(cell.of_state.weight)
        theirs.bias_hh.zero_()
    x, h, c = draw(5, 3), draw(5, 4, seed=1), draw(5, 4, seed=2)
    for mine, other in zip(cell(x, h, c), theirs(x, (h, c)), strict=True):
        torch.testing.assert_close(mine, other)


# Siamese networks


@pytest.mark.parametrize("pair_loss", ["contrastive", "triplet"])
def test_one_shot_is_the_nearest_neighbour(pair_loss: Any) -> None:
    task = episode(shot=1)
    x, s = task.query.x, task.support.x
    if pair_loss == "triplet":
        x, s = F.normalize(x, dim=1), F.normalize(s, dim=1)
    nearest = torch.cdist(x, s).argmin(1)
    assert torch.equal(outputs(Siamese(pair_loss=pair_loss), task).argmax(1), task.support.y[nearest])


@pytest.mark.parametrize("pair_loss", ["koch", "contrastive", "triplet"])
def test_a_pair_turned_round_is_as_alike(pair_loss: Any) -> None:
    model = Beside(nn.Identity(), comparison=nn.Linear(4, 1)) if pair_loss == "koch" else None
    task = episode(shot=1)
    turned = Episode(Examples(task.query.x[:WAY], torch.arange(WAY)), Examples(task.support.x, task.support.y))
    first = task._replace(query=Examples(task.query.x[:WAY], torch.arange(WAY)))
    one, other = (outputs(Siamese(pair_loss=pair_loss), both, model) for both in (first, turned))
    torch.testing.assert_close(one, other.T, rtol=1e-12, atol=1e-12)


def pair_gradient(pair_loss: Any, distance: float, same: bool) -> Tensor:
    """The gradient of the loss of one pair and a fixed other one in the embedding of the first."""
    algorithm = Siamese(pair_loss=pair_loss)
    x = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([distance, 0.0], dtype=torch.float64)
    alike = torch.stack([-((x - other).square().sum() + 1e-12).sqrt(), torch.tensor(-0.5, dtype=torch.float64)])[None]
    loss = algorithm.loss(alike, torch.tensor([[same, not same]]))
    return torch.autograd.grad(loss, x)[0]


def test_contrastive_leaves_what_is_far_enough_and_pulls_what_belongs_together() -> None:
    assert torch.equal(pair_gradient("contrastive", 1.5, same=False), torch.zeros(2, dtype=torch.float64))
    expected = torch.tensor([2 * -0.8, 0.0], dtype=torch.float64) / 2  # 2 (x − x'), of one kind of two
    torch.testing.assert_close(pair_gradient("contrastive", 0.8, same=True), expected, rtol=1e-9, atol=1e-12)


def test_the_signs_of_a_triplet() -> None:
    same = torch.tensor([[True, False]])
    distances = torch.tensor([[0.3, 0.9]], dtype=torch.float64, requires_grad=True)
    loss = triplet_loss(distances, same, margin=1.0)
    assert float(loss) == pytest.approx(1 + 0.3 - 0.9)
    assert torch.autograd.grad(loss, distances)[0].tolist() == [[1.0, -1.0]], "towards the positive, from the negative"
    satisfied = torch.tensor([[0.3, 1.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(triplet_loss(satisfied, same, margin=1.0), satisfied)[0].tolist() == [[0.0, 0.0]]


def test_koch_is_the_cross_entropy_of_same_and_different() -> None:
    alike, same = draw(6, 5), torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    each = F.binary_cross_entropy_with_logits(alike, same.double(), reduction="none")
    expected = (each[same].mean() + each[~same].mean()) / 2
    torch.testing.assert_close(Siamese().loss(alike, same), expected)
    torch.testing.assert_close(balanced(each, same), expected)


def test_a_class_is_as_alike_as_its_most_alike_example() -> None:
    alike = torch.tensor([[1.0, 5.0, 2.0, 3.0]])
    assert most_alike(alike, torch.tensor([0, 0, 1, 1]), 2).tolist() == [[5.0, 3.0]]


# Distances of prototypical networks


def test_cosine_and_temperature() -> None:
    task = episode()
    means = torch.stack([task.support.x[task.support.y == c].mean(0) for c in range(WAY)])
    cosines = F.cosine_similarity(task.query.x[:, None], means, dim=-1)
    torch.testing.assert_close(outputs(ProtoNet(distance="cosine", temperature=0.1), task), (cosines - 1) / 0.1)
    plain, cool = (outputs(ProtoNet(temperature=t), task) for t in (1.0, 4.0))
    torch.testing.assert_close(plain / 4, cool)
