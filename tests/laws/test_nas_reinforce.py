"""Search by reinforcement: its gradient is that of the enumerated expectation, and it samples what it says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import raymeta
from raymeta import Episode, Learned, Phase, Problem, Reinforce, TaskKey
from raymeta.adaptation.policy import log_prob
from raymeta.algorithms.nas_reinforce import CONTROLLER
from raymeta.algorithms.search import BEST
from raymeta.tasks import CellTable, Perceptrons
from raymeta.tasks.episodes import in_type
from raymeta.tree import Params

TABLE = CellTable(edges=2, operations=3)
CELLS = [torch.tensor(cell).double() for cell in itertools.product(range(3), repeat=2)]


class Made:
    def __init__(self, tasks: CellTable = TABLE, **options: Any) -> None:
        torch.manual_seed(0)
        self.algorithm = Reinforce(hidden=5, layers=2, **options)
        model = self.algorithm.network(None, tasks)  # type: ignore[arg-type]
        for name, parameter in model.named_parameters():
            if name != BEST:
                torch.nn.init.normal_(parameter)
        self.problem = Problem(model.double(), goal="regression", vectorize="loop")
        baseline = {"baseline": torch.tensor([0.3]).double()}
        self.learned = Learned(self.problem.initial_params(), {}, baseline)
        self.episode: Episode = in_type(torch.float64, tasks.episode(TaskKey(0, "train", 0, 0)))

    def log_prob(self, cell: Tensor, learned: Learned | None = None) -> Tensor:
        logits: Tensor = self.problem.beside(CONTROLLER, learned or self.learned, cell)
        return log_prob(logits, cell)

    def expectation(self, entropy_weight: float = 0.0) -> Params:
        """∇ of Σ π(a) R(a), with the entropy of π."""
        params = {n: v.clone().requires_grad_() for n, v in self.learned.params.items() if n != BEST}
        learned, total = self.learned._replace(params=params), torch.zeros(()).double()
        for cell, accuracy in zip(CELLS, self.episode.support.y[:, 0], strict=True):
            value = self.log_prob(cell, learned)
            total = total + value.exp() * (accuracy - entropy_weight * value)
        return dict(zip(params, torch.autograd.grad(total, list(params.values())), strict=True))


@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
def test_the_gradient_over_all_architectures_is_that_of_the_expectation(entropy_weight: float) -> None:
    """Whatever the baseline is."""
    made = Made(entropy_weight=entropy_weight)
    mean: Params = {}
    for cell, accuracy in zip(CELLS, made.episode.support.y[:, 0], strict=True):
        share = made.log_prob(cell).exp()
        part = made.algorithm.score_function(made.problem, made.learned, cell, accuracy)
        mean = {name: mean.get(name, 0) - share * value for name, value in part.items()}
    expected = made.expectation(entropy_weight)
    assert mean.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(mean[name], value, rtol=1e-10, atol=1e-12)


def test_the_baseline_lowers_what_an_architecture_is_worth() -> None:
    """An accuracy that equals it teaches nothing."""
    made = Made()
    part = made.algorithm.score_function(made.problem, made.learned, CELLS[4], torch.tensor(0.3).double())
    assert all(not value.any() for value in part.values())


def test_what_is_chosen_changes_what_comes_after() -> None:
    """And not what came before."""
    made = Made(CellTable(edges=4, operations=3))
    cells = torch.tensor([[0.0, 1, 2, 0], [0, 2, 2, 0]]).double()
    one, other = (made.problem.beside(CONTROLLER, made.learned, cell) for cell in cells)
    assert torch.equal(one[:2], other[:2])
    assert not torch.isclose(one[2:], other[2:]).any()


def test_on_one_edge_it_is_a_bandit() -> None:
    """The expected update of logit k is p_k (R_k − Σ p_j R_j)."""
    made = Made(CellTable(edges=1, operations=3))
    rewards, bias = made.episode.support.y[:, 0], f"{CONTROLLER}.logits.bias"
    cells = [torch.tensor([k]).double() for k in range(3)]
    shares = torch.stack([made.log_prob(cell).exp() for cell in cells])
    parts = [
        made.algorithm.score_function(made.problem, made.learned, *pair) for pair in zip(cells, rewards, strict=True)
    ]
    found = -sum(share * part[bias] for share, part in zip(shares, parts, strict=True))
    torch.testing.assert_close(found, shares * (rewards - shares @ rewards), rtol=1e-10, atol=1e-12)


def test_probabilities_add_up_and_samples_have_them() -> None:
    """A grid of uniform numbers gives every architecture its share."""
    made, side = Made(), 40
    shares = [float(made.log_prob(cell).exp()) for cell in CELLS]
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    grid = torch.cartesian_prod(*[(torch.arange(side) + 0.5) / side] * 2).double()

    def sampled(draws: Tensor) -> Tensor:
        part = made.algorithm.sampled(made.problem, made.learned, made.episode, noise={"draws": draws}, phase=Phase())
        return part.rows["cell"]

    found = torch.vmap(sampled)(grid)
    for cell, share in zip(CELLS, shares, strict=True):
        assert float((found == cell).all(1).double().mean()) == pytest.approx(share, abs=2 / side)


class Maps:
    """Maps whose accuracies are told; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None]] = []

    def __call__(self, function: str, given: Params | None = None) -> Maps:
        self.asked.append((function, None if given is None else float(given["baseline"])))
        return self

    def tasks(self) -> Params:
        return {"cell": torch.zeros(2, 2), "accuracy": torch.tensor([0.0, 1.0]) / len(self.asked)}

    def means(self) -> Params:
        return {"gradient": torch.ones(1)}


class Outer:
    def __init__(self) -> None:
        self.memory: Params = {}
        self.updates = 0

    def assign(self, values: Params) -> None:
        pass

    def update(self, gradients: Params) -> float:
        self.updates += 1
        return 1.0


def test_the_baseline_is_the_moving_mean_of_what_came_before() -> None:
    maps, outer, algorithm = Maps(), Outer(), Reinforce(baseline_decay=0.75)
    for step in range(3):
        algorithm.step(outer, maps, Phase(step=step))  # type: ignore[arg-type]
    second = 0.75 * 0.5 + 0.25 * 0.25
    assert maps.asked == [("sampled", None), ("policy_gradient", 0.5), ("policy_gradient", pytest.approx(second))]
    assert outer.updates == 2
    assert float(outer.memory["baseline"]) == pytest.approx(0.75 * second + 0.25 / 6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_it_learns_to_choose_the_top_of_real_networks(tmp_path: Path) -> None:
    """In 640 of 4,096 evaluations: the best one is in the top per cent, and what it chooses is in the top fifth."""
    accuracies = Perceptrons().table()[1][:, 0]
    run = raymeta.meta_train(
        algorithm="nas_reinforce", tasks="perceptrons", model="mlp", output=str(tmp_path), steps=80, meta_batch_size=8,
        validate_every=0, **{"outer.lr": 0.02},
    )  # fmt: skip
    assert run.summary["headline"]["value"] <= float(accuracies.max() - accuracies.sort(descending=True).values[40])
    last = run.frames()["metrics"]["train/query_accuracy"].iloc[-10:].mean()
    assert float((accuracies < last).float().mean()) > 0.8
