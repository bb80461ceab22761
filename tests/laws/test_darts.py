"""DARTS: the gradient of an architecture is that of the validation loss after a step of the weights, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from noisy_labels import FEATURES, NoisyLabels
from one_step import Recorded, one_step
from torch import Tensor, nn
from torch.nn import functional as F

import raymeta
from raymeta import DARTS, Episode, Examples, TaskKey
from raymeta.adaptation.problem import Problem
from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.tasks.episodes import in_type
from raymeta.tree import Params

TASKS = NoisyLabels(way=3, shot=3)
RATE = 0.3
VECTORIZE = ("vmap", "loop")
DECAYED = {"momentum": 0.9, "weight_decay": 0.1}


# The paper's toy, figure 2


class Toy(nn.Module):
    """The terms of both losses: w², αw, α², α and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.ParameterDict({"x": nn.Parameter(torch.tensor(2.0, dtype=torch.float64))})
        self.w = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        a, w = self.alpha["x"], self.w
        return torch.stack([w * w, a * w, a * a, a, torch.ones_like(a)])[None] * x


def toy() -> tuple[Problem, list[Episode]]:
    """L_train = w² − 2αw + α² on support, L_val = αw − 2α + 1 on queries."""
    ones = torch.ones(1, 1, dtype=torch.float64)
    train, val = (torch.tensor([y], dtype=torch.float64) for y in ([1, -2, 1, 0, 0], [0, 1, 0, -2, 1]))
    loss: Any = lambda outputs, y: (outputs * y).sum()  # noqa: E731
    problem = Problem(Toy(), goal="regression", loss=loss, vectorize="loop", judged=False)
    return problem, [Episode(Examples(ones, train), Examples(ones, val))]


@pytest.mark.parametrize(("order", "end"), [("second", 1.0), ("finite_differences", 1.0), ("first", 2.0)])
def test_the_papers_toy_ends_where_the_paper_says(order: Any, end: float) -> None:
    """With a look-ahead of 0.5 at the minimum (1, 1), and without one at (2, 2)."""
    problem, tasks = toy()
    algorithm = DARTS(order=order, architecture_lr=0.2, architecture_decay=0)
    outer, _ = one_step(algorithm, problem, tasks, 0.5, steps=120)
    assert float(outer.params["alpha.x"]) == pytest.approx(end, abs=2e-3)
    assert float(outer.params["w"]) == pytest.approx(end, abs=2e-3)


def test_differences_are_exact_where_slopes_are_linear() -> None:
    problem, tasks = toy()
    orders: Any = ("second", "finite_differences")
    found = [one_step(DARTS(order=o), problem, tasks, 0.5)[0].updates[0]["alpha.x"] for o in orders]
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)


# A small network


class Mixed(nn.Module):
    """Two operations mixed before a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.ParameterDict({"edge": nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))})
        self.inner = nn.Linear(FEATURES, FEATURES, dtype=torch.float64)
        self.head = nn.Linear(FEATURES, TASKS.way, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.alpha["edge"].softmax(0)
        outputs: Tensor = self.head(first * torch.tanh(self.inner(x)) + second * x)
        return outputs


def network() -> Mixed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixed()


def episodes(count: int = 3) -> list[Episode]:
    return [in_type(torch.float64, TASKS.episode(TaskKey(0, "train", 0, index))) for index in range(count)]


def stepped(order: Any, vectorize: Any = "vmap", steps: int = 1, **options: Any) -> tuple[Recorded, Params]:
    return one_step(DARTS(order=order), network(), episodes(), RATE, vectorize, steps=steps, **options)


# Plain autograd: no part of raymeta is used


def outputs(params: Params, x: Tensor) -> Tensor:
    first, second = params["alpha.edge"].softmax(0)
    hidden = first * torch.tanh(x @ params["inner.weight"].T + params["inner.bias"]) + second * x
    return hidden @ params["head.weight"].T + params["head.bias"]


def mean_loss(params: Params, side: str) -> Tensor:
    parts = [getattr(episode, side) for episode in episodes()]
    return torch.stack([F.cross_entropy(outputs(params, part.x), part.y) for part in parts]).mean()


def weights_of(params: Params) -> Params:
    return {name: value for name, value in params.items() if name != "alpha.edge"}


def slope_of(params: Params) -> Params:
    own = {name: value.clone().requires_grad_() for name, value in weights_of(params).items()}
    slopes = torch.autograd.grad(mean_loss(params | own, "support"), list(own.values()))
    return dict(zip(own, slopes, strict=True))


def loss_ahead(params: Params, moments: Params, momentum: float, decay: float) -> float:
    """L_val where momentum SGD would go with α as it is in `params`."""
    slope = slope_of(params)
    ahead = {
        n: w - RATE * (momentum * moments.get(n, torch.zeros_like(w)) + slope[n] + decay * w)
        for n, w in weights_of(params).items()
    }
    return float(mean_loss(params | ahead, "query"))


def numeric(params: Params, loss: Any) -> Tensor:
    """The gradient in α by central differences."""
    found = []
    for basis in torch.eye(2, dtype=torch.float64):
        ends = [loss(params | {"alpha.edge": params["alpha.edge"] + s * basis}) for s in (1e-5, -1e-5)]
        found.append((ends[0] - ends[1]) / 2e-5)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("options", [{}, DECAYED])
def test_the_gradient_goes_through_the_look_ahead(options: dict[str, float], vectorize: Any) -> None:
    """In the first step, and in the second, where momentum is part of the look-ahead."""
    outer, before = stepped("second", vectorize, steps=2, **options)
    momentum, decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    first, of_weights, second, _ = outer.updates
    assert set(first) == {"alpha.edge"}
    found = numeric(before, lambda params: loss_ahead(params, {}, momentum, decay))
    torch.testing.assert_close(first["alpha.edge"], found, rtol=1e-6, atol=1e-10)

    between = _after_one(options)
    moments = {n: of_weights[n] + decay * before[n] for n in weights_of(before)}
    found = numeric(between, lambda params: loss_ahead(params, moments, momentum, decay))
    torch.testing.assert_close(second["alpha.edge"], found, rtol=1e-6, atol=1e-10)


def _after_one(options: dict[str, float]) -> Params:
    return dict(stepped("second", **options)[0].params)


def test_the_look_ahead_matters() -> None:
    """Else the laws here would hold of the first order, too."""
    first, second = (stepped(order)[0].updates[0]["alpha.edge"] for order in ("first", "second"))
    assert not torch.allclose(first, second, rtol=0.05)


def test_the_first_order_is_the_gradient_where_the_weights_are() -> None:
    outer, before = stepped("first")
    found = numeric(before, lambda params: float(mean_loss(params, "query")))
    torch.testing.assert_close(outer.updates[0]["alpha.edge"], found, rtol=1e-6, atol=1e-10)


def test_differences_are_close_to_the_exact_product() -> None:
    exact, close = (stepped(order, **DECAYED)[0].updates[0]["alpha.edge"] for order in ("second", "finite_differences"))
    torch.testing.assert_close(close, exact, rtol=1e-4, atol=1e-8)
    assert not torch.equal(close, exact)


@pytest.mark.parametrize("order", ["first", "second", "finite_differences"])
def test_the_weights_step_with_the_new_architecture(order: str) -> None:
    outer, before = stepped(order)
    slope = slope_of(before | {"alpha.edge": outer.params["alpha.edge"]})
    for name, value in weights_of(before).items():
        torch.testing.assert_close(outer.params[name], value - RATE * slope[name], rtol=1e-11, atol=1e-13)
    assert not torch.equal(outer.params["alpha.edge"], before["alpha.edge"])


def test_the_architecture_steps_as_adam_of_the_paper() -> None:
    """Betas 0.5 and 0.999, whatever the optimiser of the weights."""
    outer, before = stepped("second", steps=3, **DECAYED)
    alpha = before["alpha.edge"].clone().requires_grad_()
    adam = torch.optim.Adam([alpha], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    for update in outer.updates[::2]:
        alpha.grad = update["alpha.edge"]
        adam.step()
    torch.testing.assert_close(outer.params["alpha.edge"], alpha.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", ["second", "finite_differences"])
def test_loop_equals_vmap(order: str) -> None:
    both = [stepped(order, v)[0].params for v in VECTORIZE]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


def test_a_model_without_an_architecture_is_refused() -> None:
    problem = Problem(nn.Linear(2, 2), goal="classification")
    with pytest.raises(ConfigError, match="--model supernet"):
        DARTS().init(problem, problem.initial_params(), torch.Generator())


# Whole runs

SMALL: dict[str, Any] = {"tasks": "classification", "tasks.classes": 3, "tasks.drawers": 12, "tasks.clean": 3}
SMALL |= {"tasks.test": 2, "tasks.batch": 6, "tasks.clean_batch": 4, "steps": 2, "meta_batch_size": 2}
SMALL |= {"validate_every": 0, "model.width": 2, "model.cells": 3, "model.stem_stride": 2}


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_what_a_search_finds_is_trained(tmp_path: Path) -> None:
    """By its folder; the configuration of the training has the text, and the shared weights are a start."""
    own: dict[str, Any] = {"algorithm": "darts", "model": "supernet", "model.nodes": 1}
    search = raymeta.meta_train(output=str(tmp_path), **SMALL, **own)
    text = (search.summary or {})["found"]["genotype"]
    assert "architecture" in search.figures()
    for row in search.metrics():
        assert sum(v for name, v in row.items() if name.startswith("architecture/")) == pytest.approx(1, abs=1e-6)
    training: dict[str, Any] = {"algorithm": "plain", "model": "derived", "model.genotype": str(search.path)}
    run = raymeta.meta_train(output=str(tmp_path), **SMALL, **training, start=str(search.path))
    assert run.config["model"]["genotype"] == text
    notes = [event["message"] for event in run.events() if event["kind"] == "note"]
    assert any("starts with" in note for note in notes)
    for reference in (search.id, search.id[:-1]):
        named = SMALL | training | {"model.genotype": reference, "output": str(tmp_path)}
        assert load_config(overrides=named).config.model.genotype == text  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"classification-plain.* is no finished run of a search"):
        load_config(overrides=SMALL | training | {"model.genotype": "latest", "output": str(tmp_path)})
