"""ENAS: shared weights are trained as those of the architecture that is drawn, and the controller by REINFORCE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from one_step import Recorded, keys_of, one_step
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from raymeta import ENAS, Episode, Examples, Plain
from raymeta.adaptation.policy import log_prob
from raymeta.adaptation.problem import Learned, Problem
from raymeta.algorithms.enas import CONTROLLER, is_controller
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.errors import ConfigError
from raymeta.models import Derived, Supernet
from raymeta.models.genotype import KINDS, Genotype, chosen, parsed
from raymeta.models.layers.beside import BODY, Beside
from raymeta.models.layers.controller import Controller
from raymeta.models.supernet import SearchNetwork
from raymeta.tree import Params

SIZE: dict[str, Any] = {"width": 2, "cells": 3, "norm": "layer"}
OPERATIONS = ("skip", "none", "sep_conv_3")
CHOSEN = ("skip", "sep_conv_3")
SHAPE, CLASSES, RATE, TASKS = (1, 6, 6), 3, 0.2, 3
VECTORIZE = ("vmap", "loop")


def examples(count: int, generator: torch.Generator) -> Examples:
    y = torch.randint(CLASSES, (count,), generator=generator)
    return Examples(torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64), y)


def episodes() -> list[Episode]:
    generator = torch.Generator().manual_seed(4)
    return [Episode(examples(5, generator), examples(7, generator)) for _ in range(TASKS)]


def network() -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = Supernet(**SIZE, nodes=1, operations=OPERATIONS).build(SHAPE, CLASSES)
        assert isinstance(body, SearchNetwork)
        sizes = body.choice_sizes
        controller = Controller(max(sizes), 4, 1, sizes)
        for parameter in controller.parameters():
            nn.init.normal_(parameter)
        return Beside(body, **{CONTROLLER: controller}).double()


def body_alone(params: Params, genotype: Genotype) -> tuple[nn.Module, Params]:
    """The network of an architecture, and its weights by the names that it has."""
    module = Derived(genotype=str(genotype), affine=False, **SIZE).build(SHAPE, CLASSES).double()
    return module, {name: params[BODY + name].detach().clone() for name, _ in module.named_parameters()}


# Shared weights


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_with_one_architecture_it_is_plain_training_of_that(vectorize: Any) -> None:
    """Three steps with momentum and decay."""
    certain = torch.full((8, 2), -1e4, dtype=torch.float64)
    choices = [1, 0, 1, 0, 0, 0, 0, 1]
    certain[range(8), choices] = 1e4
    options: dict[str, Any] = {"params": {f"{CONTROLLER}.places": certain}, "steps": 3}
    options |= {"momentum": 0.9, "weight_decay": 0.01}
    algorithm = ENAS(controller_lr=1e-300)
    outer, before = one_step(algorithm, network(), episodes(), RATE, vectorize, **options)
    module, start = body_alone(before, chosen(choices, CHOSEN))
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(start[name])
    plain, _ = one_step(Plain(), module, episodes(), RATE, **(options | {"params": None}))
    for name, value in plain.params.items():
        torch.testing.assert_close(outer.params[BODY + name], value, rtol=1e-11, atol=1e-13)
        assert not torch.equal(value, start[name])


def test_every_task_trains_the_architecture_that_it_draws_first() -> None:
    """The mean of their gradients, which is zero for operations that none of them has."""
    outer, start = stepped(1)
    expected = {name: torch.zeros_like(value) for name, value in outer.updates[0].items()}
    for key, episode in zip(keys_of(0, TASKS), episodes(), strict=True):
        choices = drawn(start, torch.from_numpy(key.generator("noise").random((2, 8)))[0])
        module, own = body_alone(start, chosen(choices, CHOSEN))
        own = {name: value.requires_grad_() for name, value in own.items()}
        loss = F.cross_entropy(functional_call(module, own, (episode.support.x,)), episode.support.y)
        for name, slope in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            expected[BODY + name] += slope / TASKS
    assert any(not value.any() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(outer.updates[0][name], value, rtol=1e-9, atol=1e-12)


# The controller


def stepped(steps: int, **options: Any) -> tuple[Recorded, Params]:
    return one_step(ENAS(**options), network(), episodes(), RATE, "loop", steps=steps)


def possibilities(params: Params, choices: list[int]) -> Tensor:
    """Logits after `choices`, of which the next is made: the last row, by the module alone."""
    own = {n.removeprefix(f"{CONTROLLER}."): v for n, v in params.items() if is_controller(n)}
    cell = torch.tensor([*choices, 0])
    logits: Tensor = functional_call(network().get_submodule(CONTROLLER), own, (cell,))
    return logits[-1]


def drawn(params: Params, draws: Tensor) -> list[int]:
    choices: list[int] = []
    for u in draws.tolist():
        shares = possibilities(params, choices).softmax(0).detach().numpy()
        choices.append(int((u >= np.cumsum(shares)[:-1]).sum()))
    return choices


def accuracies_and_choices(step: int, weights: Params, controller: Params) -> tuple[list[float], list[list[int]]]:
    """Of the architectures that each task judges in a step."""
    found, made = [], []
    for key, episode in zip(keys_of(step, TASKS), episodes(), strict=True):
        draws = torch.from_numpy(key.generator("noise").random((2, 8)))[1]
        choices = drawn(controller, draws)
        module, own = body_alone(weights, chosen(choices, CHOSEN))
        outputs = functional_call(module, own, (episode.query.x,))
        found.append(float((outputs.argmax(1) == episode.query.y).double().mean()))
        made.append(choices)
    return found, made


@pytest.mark.parametrize("entropy_weight", [0.0, 0.1])
def test_the_controller_follows_the_accuracies_above_the_baseline(entropy_weight: float) -> None:
    """Its update in the second step, by plain autograd: accuracies are of the weights after their step."""
    options = {"entropy_weight": entropy_weight, "baseline_decay": 0.75}
    first, start = stepped(1, **options)
    second, _ = stepped(2, **options)
    assert len(first.updates) == 1
    baseline = np.mean(accuracies_and_choices(0, first.params, start)[0])
    rewards, choices = accuracies_and_choices(1, second.params, start)
    own = {name: value.clone().requires_grad_() for name, value in start.items() if is_controller(name)}
    total = torch.zeros((), dtype=torch.float64)
    for reward, made in zip(rewards, choices, strict=True):
        logits = torch.stack([possibilities(own, made[:place]) for place in range(8)])
        value = log_prob(logits, torch.tensor(made))
        total = total - (reward - entropy_weight * value.detach() - baseline) * value
    expected = torch.autograd.grad(total / TASKS, list(own.values()))
    for (name, value), found in zip(own.items(), expected, strict=True):
        torch.testing.assert_close(second.updates[2][name], found, rtol=1e-9, atol=1e-11)
        assert not torch.equal(second.params[name], value)
    assert any(value.abs().max() > 1e-3 for value in expected)
    assert float(second.memory["baseline"]) == pytest.approx(0.75 * baseline + 0.25 * np.mean(rewards), rel=1e-12)


def test_the_controller_has_adam_whatever_rule_the_weights_have() -> None:
    both = [
        one_step(ENAS(), network(), episodes(), RATE, "loop", steps=2, **options)[0].params
        for options in ({}, {"rule": "torch.optim:SGD", "arguments": {"dampening": 0.0}})
    ]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-12, atol=1e-14)


def test_what_is_found_is_the_best_of_the_last_step() -> None:
    outer, start = stepped(1)
    rewards, choices = accuracies_and_choices(0, outer.params, start)
    assert len(set(rewards)) > 1
    best = chosen(choices[int(np.argmax(rewards))], CHOSEN)
    problem = Problem(network(), goal="classification")
    assert ENAS().found(problem, Learned(outer.params, {})) == {"genotype": str(best)}
    assert outer.updates[0].keys() == {n for n in start if n.startswith(BODY) and "alpha" not in n}


def test_probabilities_of_all_architectures_add_up() -> None:
    model = network()
    sizes = model.body.choice_sizes  # type: ignore[union-attr]
    total = 0.0
    for choices in np.ndindex(*sizes):
        cell = torch.tensor(choices)
        total += float(log_prob(model.controller(cell), cell).detach().exp())  # type: ignore[operator]
    assert total == pytest.approx(1, abs=1e-12)
    almost = torch.full((len(sizes),), 1 - 2**-53, dtype=torch.float64)
    most = model.controller(almost, sample=True)  # type: ignore[operator]
    assert most.tolist() == [size - 1 for size in sizes]
    assert not model.controller(0 * almost, sample=True).any()  # type: ignore[operator]


@pytest.mark.parametrize("nodes", [1, 3])
def test_choices_are_the_same_architecture_as_parameters(nodes: int) -> None:
    """Of which the softmax is exactly one or zero."""
    model = Supernet(**SIZE, nodes=nodes, operations=OPERATIONS).build(SHAPE, CLASSES)
    assert isinstance(model, SearchNetwork)
    generator = np.random.Generator(np.random.Philox(key=3))
    for _ in range(30):
        choices = [int(generator.integers(size)) for size in model.choice_sizes]
        alpha = model.alpha_of(torch.tensor(choices))
        assert model.genotype(alpha) == chosen(choices, CHOSEN) == parsed(str(chosen(choices, CHOSEN)))
        for kind in KINDS:
            shares = alpha[kind].softmax(1)
            assert torch.equal(shares, (shares > 0.5).float())
            assert int(shares[:, [0, 2]].sum()) == 2 * nodes


def test_a_model_without_a_search_network_is_refused() -> None:
    for model in ({"model": "conv4"}, {"model": "supernet", "model.operations": ["skip", "sep_conv_3"]}):
        config = load_config(overrides={"algorithm": "enas", "tasks": "classification", **model}).config
        with pytest.raises(ConfigError, match="must hold none"):
            build(config)
