"""CNAPs: FiLM as a change of parameters, heads that are written, a body that stays, and its special cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from draws import answers, draw, shaken
from equal_bits import last_params
from torch import Tensor, nn

import raymeta
from raymeta import Beside, CNAPs, Episode, Examples, ProtoNet, meta_gradient
from raymeta.adaptation.film import film_layers, modulated
from raymeta.adaptation.problem import Learned, Problem
from raymeta.algorithms.cnaps import ADAPTER, HEADS, READER
from raymeta.errors import ConfigError
from raymeta.models.layers.norm import BatchNorm, LayerNorm

WAY, SHOT, FEATURES, HIDDEN = 3, 2, 4, 5
SMALL = CNAPs(hidden=6, freeze_body=False)


class ProtoHead(nn.Module):
    """w = 2c and b = −‖c‖²."""

    def forward(self, means: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * means, -means.square().sum(1)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, HIDDEN), LayerNorm(HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, FEATURES))


def model_of(**others: nn.Module) -> Beside:
    networks = {READER: nn.Flatten(), **SMALL.networks(FEATURES, 4, HIDDEN), **others}
    return shaken(Beside(body(), **networks))  # type: ignore[return-value]


def side(seed: int) -> Examples:
    y = torch.arange(WAY).repeat_interleave(SHOT)
    return Examples(draw(len(y), 4, seed=seed), y)


def test_film_is_a_scale_and_a_shift_of_what_a_layer_gives() -> None:
    gamma, beta = draw(HIDDEN, seed=0), draw(HIDDEN, seed=1)
    for layer, shape in ((nn.Linear(4, HIDDEN), (3, 4)), (nn.Conv2d(2, HIDDEN, 3), (3, 2, 5, 5)),
                         (LayerNorm(HIDDEN), (3, HIDDEN)), (BatchNorm(HIDDEN), (3, HIDDEN, 2))):  # fmt: skip
        network = shaken(nn.Sequential(layer))
        x, params = draw(*shape, seed=2), dict(network.named_parameters())
        assert film_layers(network) == {"0": HIDDEN}
        changed = modulated(params, {"0": HIDDEN}, gamma, beta)
        found = torch.func.functional_call(network, changed, (x,))
        each = (1, HIDDEN, *[1] * (found.dim() - 2))
        torch.testing.assert_close(found, gamma.view(each) * network(x) + beta.view(each), rtol=1e-12, atol=1e-12)
        same = modulated(params, {"0": HIDDEN}, torch.ones(HIDDEN), torch.zeros(HIDDEN))
        assert all(torch.equal(same[name], value) for name, value in params.items())


def test_norms_are_modulated_and_layers_where_there_are_none() -> None:
    assert film_layers(body(), "body.") == {"body.1": HIDDEN}
    assert film_layers(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4, bias=False))) == {"0": 3}
    with pytest.raises(ConfigError, match="no layer of the model has a weight and a bias"):
        film_layers(nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU()))


def test_without_modulation_the_body_is_bit_for_bit_the_same() -> None:
    model: Any = model_of()
    nn.init.zeros_(model.adapter.size)
    problem = Problem(model, goal="classification")
    learned = Learned(problem.initial_params(), {})
    adapted = SMALL.adapted(problem, learned, side(0))
    assert adapted.params.keys() == learned.params.keys()
    assert all(torch.equal(adapted.params[name], value) for name, value in learned.params.items())


def test_a_head_of_prototypes_and_a_still_body_are_a_prototypical_network() -> None:
    model: Any = model_of(**{HEADS: ProtoHead()})
    nn.init.zeros_(model.adapter.size)
    support, x = side(0), draw(5, 4, seed=9)
    found = answers(SMALL, Problem(model, goal="classification"), support, x, way=WAY).log_softmax(1)
    expected = answers(ProtoNet(), Problem(model.body, goal="classification"), support, x, way=WAY).log_softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_an_adapter_of_constants_is_a_network_with_these_parameters() -> None:
    """All tasks have one body then, and the constants have its gradient, that of training without tasks."""
    model: Any = model_of(**{HEADS: ProtoHead()})
    nn.init.zeros_(model.adapter.both[-1].weight)
    nn.init.ones_(model.adapter.size)
    tasks = [Episode(side(0), side(1)), Episode(side(2), side(3))]
    found = meta_gradient(model, SMALL, tasks)
    gamma, beta = (model.adapter.both[-1].bias + torch.cat([torch.ones(HIDDEN), torch.zeros(HIDDEN)])).chunk(2)
    plain = body().double()
    plain.load_state_dict(model.body.state_dict())
    changed = modulated(dict(plain.named_parameters()), {"1": HIDDEN}, gamma, beta)
    plain.load_state_dict(plain.state_dict() | changed)
    expected = meta_gradient(plain, ProtoNet(), tasks)
    own = model.body.state_dict()
    of_gamma = expected["1.weight"] * own["1.weight"] + expected["1.bias"] * own["1.bias"]
    constants = found["adapter.both.2.bias"]
    torch.testing.assert_close(constants, torch.cat([of_gamma, expected["1.bias"]]), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found["body.0.weight"], expected["0.weight"], rtol=1e-9, atol=1e-11)


def test_heads_are_written_for_each_class() -> None:
    model: Any = model_of()
    problem, support, x = Problem(model, goal="classification"), side(0), draw(5, 4, seed=9)
    plain = answers(SMALL, problem, support, x, way=WAY)
    order = torch.tensor([2, 0, 1])
    renamed = answers(SMALL, problem, support._replace(y=order[support.y]), x, way=WAY)
    torch.testing.assert_close(renamed[:, order], plain, rtol=1e-12, atol=1e-12)
    adapted = SMALL.adapted(problem, Learned(problem.initial_params(), {}), support)
    own = {name.removeprefix("body."): v for name, v in adapted.params.items() if name.startswith("body.")}
    z, q = (torch.func.functional_call(model.body, own, (one,)) for one in (support.x, x))
    means = torch.stack([z[support.y == n].mean(0) for n in range(WAY)])
    weights, biases = means + model.heads.weights(means), model.heads.biases(means)[:, 0]
    torch.testing.assert_close(plain, (q @ weights.T + biases).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::raymeta.errors.RaymetaWarning")
def test_a_frozen_body_is_that_of_the_run_it_starts_from(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": "glyphs", "model": "conv4", "model.width": 4, "meta_batch_size": 2}
    options |= {"validate_every": 0, "test_episodes": 2, "output": str(tmp_path)}
    first = raymeta.meta_train(algorithm="protonet", steps=2, **options)
    run = raymeta.meta_train(algorithm="cnaps", steps=2, seed=5, start=str(first.path), **options)
    learned, model = last_params(run), dict(raymeta.load_run(run.path).model().named_parameters())
    assert {name.partition(".")[0] for name in learned} == {READER, ADAPTER, HEADS}
    for name, value in last_params(first).items():
        assert torch.equal(model[f"body.{name}"].detach(), value)
