"""Checkpointed inner steps: the bits of one graph of everything, in the memory of one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import raymeta
from raymeta import ANIL, CAVIA, MAML, Episode, Examples, MAMLPlusPlus, MetaSGD
from raymeta.adaptation.problem import BatchNormPolicy, Part, Phase, Problem, Vectorize
from raymeta.algorithms.base import Algorithm
from raymeta.config.load import load_config
from raymeta.config.schema import RunConfig
from raymeta.errors import ConfigError
from raymeta.models.conv4 import Conv4
from raymeta.models.habits import Habits
from raymeta.models.layers.context import WithContext
from raymeta.models.layers.convert import convert
from raymeta.models.layers.norm import NormKind
from raymeta.options import FREE_ON_RESUME, marked

WAY, TASKS = 3, 3
VECTORIZE: tuple[Vectorize, ...] = ("vmap", "loop")
METHODS: dict[str, Algorithm] = {
    "maml": MAML(inner_lr=0.3, inner_steps=4),
    "multi-step": MAML(inner_lr=0.3, inner_steps=3, step_weights=(0.2, 0.0, 0.8)),
    "some adapt": MAML(inner_lr=0.3, inner_steps=3, adapt_only=("*.weight",), inner_loss_reduction="sum_over_classes"),
    "multi-step, some adapt": MAML(inner_lr=0.3, inner_steps=2, step_weights=(0.3, 0.7), adapt_only=("head.*",)),
    "meta-sgd": MetaSGD(inner_steps=3),
    "anil": ANIL(inner_lr=0.3, inner_steps=3),
    "maml++": MAMLPlusPlus(inner_steps=3),
    "first order": MAML(inner_lr=0.3, inner_steps=3, first_order=True),
    "no step": MAML(inner_steps=0),
}


class Dropping(nn.Module):
    """A network with dropout and a norm; `scale` is a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(81, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, WAY)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(nn.functional.dropout(self.body(x), 0.3, self.training))
        return outputs


def network(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return convert(make())


def conv(norm: NormKind = "batch", depth: int = 2) -> nn.Module:
    return network(lambda: Conv4(width=4, depth=depth, norm=norm, groups=2).build((1, 9, 9), WAY))


def episodes() -> Episode:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(TASKS, 2 * WAY, 1, 9, 9, generator=generator)
    y = torch.arange(WAY).expand(TASKS, WAY)
    return Episode(Examples(x[:, :WAY], y), Examples(x[:, WAY:], y))


def sums(model: nn.Module, algorithm: Algorithm, checkpointed: bool, **options: Any) -> tuple[Part, Tensor]:
    """A shard's sums, and the random numbers that come after it."""
    problem = Problem(model, goal="classification", checkpoint_inner_steps=checkpointed, **options)
    learned = algorithm.init(problem, problem.initial_params(), torch.Generator().manual_seed(2))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = algorithm.contribution(problem, learned, episodes(), noise={}, phase=Phase())
        return found, torch.rand(4)


def assert_equal_bits(model: nn.Module, algorithm: Algorithm, **options: Any) -> None:
    (one, after_one), (other, after_other) = (sums(model, algorithm, flag, **options) for flag in (False, True))
    for ours, theirs in zip(other, one, strict=True):
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            # Adding zero makes -0 to 0: the rate of a parameter that nothing uses has either as its derivative.
            assert (value + 0.0).numpy().tobytes() == (theirs[name] + 0.0).numpy().tobytes(), name
    assert torch.equal(after_one, after_other), "what comes after draws the same"


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_equal_bits(method: str, vectorize: Vectorize) -> None:
    assert_equal_bits(conv(), METHODS[method], vectorize=vectorize)


@pytest.mark.parametrize("norm", ["group", "layer", "instance"])
def test_every_norm_has_equal_bits(norm: NormKind) -> None:
    assert_equal_bits(conv(norm), METHODS["maml"])


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_a_context_has_equal_bits(vectorize: Vectorize) -> None:
    model = network(lambda: WithContext(Conv4(width=4, depth=2).build((3, 9, 9), WAY), 2))
    assert_equal_bits(model, CAVIA(inner_steps=3), vectorize=vectorize)


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("policy", ["support", "running"])
@pytest.mark.parametrize("method", ["maml", "multi-step", "anil"])
def test_every_batch_norm_policy_has_equal_bits(method: str, policy: BatchNormPolicy, vectorize: Vectorize) -> None:
    assert_equal_bits(conv(), METHODS[method], vectorize=vectorize, batch_norm=policy)


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("method", ["maml", "multi-step", "meta-sgd", "anil"])
def test_dropout_draws_the_same_masks_again(method: str, vectorize: Vectorize) -> None:
    model = network(Dropping)
    assert_equal_bits(model, METHODS[method], vectorize=vectorize, habits=Habits(head="head"))
    drawn, kept = sums(model, METHODS[method], True), sums(model.eval(), METHODS[method], True)
    assert not torch.equal(drawn[0].sums["head.weight"], kept[0].sums["head.weight"]), "there is dropout"


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that tensors held at once beyond those that were there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    held = most = 0
    for event in results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def test_memory_grows_by_the_parameters_of_a_step_alone() -> None:
    model = conv(depth=1)
    parameters = 4 * TASKS * sum(p.numel() for p in model.parameters())

    def peak(num_steps: int, checkpointed: bool) -> int:
        return peak_bytes(lambda: sums(model, MAML(inner_lr=0.1, inner_steps=num_steps), checkpointed))

    least = peak(20, checkpointed=True)
    assert least <= peak(20, checkpointed=False) / 3
    assert least - peak(10, checkpointed=True) <= 10 * (parameters + torch.get_rng_state().nbytes)


def test_a_loop_of_ones_own_can_checkpoint() -> None:
    batch = episodes()
    tasks = [Episode(*(Examples(side.x[t], side.y[t]) for side in batch)) for t in range(TASKS)]
    one, other = (
        raymeta.meta_gradient(conv(), METHODS["maml"], tasks, checkpoint_inner_steps=flag) for flag in (False, True)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"algorithm": "protonet"}, "protonet has no inner steps that checkpoint_inner_steps could"),
        ({"algorithm": "reptile"}, "reptile has no inner steps"),
        ({"compile": True}, "checkpoint_inner_steps and compile do not go together"),
    ],
)
def test_what_cannot_be_checkpointed_is_told(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config(preset="glyphs-5w1s-maml", overrides={"checkpoint_inner_steps": True, **options})


def test_a_resumed_run_may_switch_it() -> None:
    assert "checkpoint_inner_steps" in marked(RunConfig, FREE_ON_RESUME), "since it changes no bits"
