"""CAVIA: with a context that is the first layer's bias it is MAML on that bias; a plain loop elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raymeta import CAVIA, MAML, Episode, Examples, Learned, Phase, Problem, meta_gradient
from raymeta.adaptation.problem import Part, Vectorize
from raymeta.errors import ConfigError
from raymeta.models import MLP, Conv4
from raymeta.models.layers.context import WithContext
from raymeta.tasks import Glyphs, Sinusoid
from raymeta.tasks.episodes import stack_episodes
from raymeta.tree import Params

VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")
IN, HIDDEN, WAY = 4, 5, 3


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int = 2) -> list[Episode]:
    y = torch.arange(WAY).repeat_interleave(3)
    return [Episode(*(Examples(draw(9, IN, seed=20 * t + s), y) for s in (0, 1))) for t in range(count)]


def network(inputs: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, WAY)).double()
    for seed, p in enumerate(model.parameters()):
        p.data = 0.5 * draw(*p.shape, seed=seed)
    return model


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_a_context_that_is_the_bias_is_maml_on_the_bias(vectorize: Vectorize, first_order: bool) -> None:
    options: dict[str, Any] = {"inner_lr": 0.4, "inner_steps": 3, "first_order": first_order}
    plain = network(IN)
    model = WithContext(network(IN + HIDDEN), HIDDEN).double()
    with torch.no_grad():
        model.body[0].weight.copy_(torch.cat([plain[0].weight, torch.eye(HIDDEN).double()], 1))  # type: ignore[index,operator]
        for theirs, ours in zip(
            [plain[0].bias, *plain[2].parameters()], [model.body[0].bias, *model.body[2].parameters()], strict=True
        ):  # type: ignore[index,union-attr]
            ours.copy_(theirs)  # type: ignore[operator]
    expected = meta_gradient(plain, MAML(adapt_only=("0.bias",), **options), episodes(), vectorize=vectorize)
    found = meta_gradient(model, CAVIA(clip_task_value=None, **options), episodes(), vectorize=vectorize)
    assert found.keys() == {f"body.{name}" for name in expected}, "nothing is learned of where the context begins"
    for name, value in expected.items():
        ours = found[f"body.{name}"]
        torch.testing.assert_close(ours[:, :IN] if name == "0.weight" else ours, value, rtol=1e-11, atol=1e-13)


def test_one_step_moves_the_bias_by_the_product_with_its_weights() -> None:
    """By −α W_c W_cᵀ ∇_b L_S."""
    model = WithContext(network(IN + 2), 2).double()
    support = episodes(1)[0].support
    problem = Problem(model, goal="classification", vectorize="loop")
    learned = Learned(problem.initial_params(), {})
    descent = CAVIA(inner_lr=0.7).descent(problem, learned, support, Phase(way=WAY))
    context = descent.run(learned.params | descent.start, 1).params[-1]["context"]
    weight, bias = learned.params["body.0.weight"], learned.params["body.0.bias"].clone().requires_grad_()
    hidden = torch.tanh(F.linear(support.x, weight[:, :IN], bias))
    loss = F.cross_entropy(F.linear(hidden, *(learned.params[f"body.2.{n}"] for n in ("weight", "bias"))), support.y)
    (slope,) = torch.autograd.grad(loss, bias)
    torch.testing.assert_close(weight[:, IN:] @ context, -0.7 * weight[:, IN:] @ weight[:, IN:].T @ slope)


# FiLM in conv4


def film_case(vectorize: Vectorize, **options: Any) -> tuple[CAVIA, Problem, Learned]:
    algorithm = CAVIA(enters="film", film_layer="norm2", num_context=3, inner_lr=0.5, inner_steps=2, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = algorithm.network(Conv4(width=4, depth=2), Glyphs(way=WAY)).double()
    problem = Problem(
        model, goal="classification", vectorize=vectorize, checkpoint_inner_steps=options.pop("checkpointed", False)
    )
    return algorithm, problem, Learned(problem.initial_params(), {})


def images() -> Episode:
    y = torch.arange(WAY).repeat(2)
    return Episode(*(Examples(draw(6, 1, 28, 28, seed=s), y) for s in (0, 1)))


def by_hand(params: Params, episode: Episode) -> Tensor:
    def loss(c: Tensor, side: Examples) -> Tensor:
        h = side.x
        for i, name in enumerate(("norm1.", "norm2.layer."), start=1):
            h = F.conv2d(h, params[f"conv{i}.weight"], stride=2, padding=1)
            h = F.batch_norm(h, None, None, params[f"{name}weight"], params[f"{name}bias"], training=True)
            if i == 2:
                gain, shift = F.linear(c, *(params[f"norm2.generator.{n}"] for n in ("weight", "bias"))).chunk(2)
                h = h * (1 + gain)[:, None, None] + shift[:, None, None]
            h = h.relu()
        return F.cross_entropy(F.linear(h.mean((2, 3)), params["head.weight"], params["head.bias"]), side.y)

    c = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        (slope,) = torch.autograd.grad(loss(c, episode.support), c, create_graph=True)
        c = c - 0.5 * slope
    return loss(c, episode.query)


def gradient_of(algorithm: CAVIA, problem: Problem, learned: Learned) -> Part:
    return algorithm.contribution(problem, learned, stack_episodes([images()]), noise={}, phase=Phase(way=WAY))


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_film_is_the_plain_loop(vectorize: Vectorize) -> None:
    algorithm, problem, learned = film_case(vectorize, clip_task_value=None)
    found = gradient_of(algorithm, problem, learned).sums
    params = {n: p.clone().requires_grad_() for n, p in learned.params.items()}
    gradient = torch.autograd.grad(by_hand(params, images()), list(params.values()))
    assert found.keys() == params.keys()
    for name, expected in zip(params, gradient, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-8, atol=1e-11, msg=name)
    assert found["norm2.generator.weight"].abs().max() > 1e-6


def test_each_task_is_clipped_before_the_mean() -> None:
    whole = gradient_of(*film_case("vmap", clip_task_value=None)).sums
    cut = gradient_of(*film_case("vmap", clip_task_value=0.01)).sums
    assert max(value.abs().max() for value in whole.values()) > 0.02
    assert all(torch.equal(cut[name], value.clamp(-0.01, 0.01)) for name, value in whole.items())


def test_wrong_layers_and_models_are_told() -> None:
    with pytest.raises(ConfigError, match=r"film_layer norm3 is no layer of the model; it has .*norm1"):
        CAVIA(enters="film").network(MLP(), Sinusoid())
    with pytest.raises(ConfigError, match="adapts a context, and this model has none"):
        meta_gradient(network(IN), CAVIA(), episodes())
