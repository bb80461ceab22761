"""Inputs of several tensors by name: every law of inputs of one tensor holds for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentences
import torch
from equal_bits import require_equal_bits
from sentences import LENGTH, WAY, Sentences, WordModel, Words
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

import raymeta
from raymeta import ANIL, MAML, Episode, Examples, ProtoNet, TaskKey, meta_gradient
from raymeta.errors import ConfigError, DataError
from raymeta.tasks.inputs import Inputs, only

SENT = [sentences]
EPISODES = [Sentences().episode(TaskKey(0, "train", 0, index)) for index in range(3)]


def model(num_outputs: int | None = WAY, *, norm: bool = False) -> Words:
    torch.manual_seed(0)
    return Words(num_outputs, norm=norm).double()


def query_loss_after_steps(net: Words, params: dict[str, Tensor], episode: Episode, *, steps: int, lr: float) -> Tensor:
    def loss(values: dict[str, Tensor], side: Examples) -> Tensor:
        return F.cross_entropy(functional_call(net, values, (), dict(side.x)), side.y)

    for _ in range(steps):
        gradients = torch.autograd.grad(loss(params, episode.support), list(params.values()), create_graph=True)
        params = {name: p - lr * g for (name, p), g in zip(params.items(), gradients, strict=True)}
    return loss(params, episode.query)


@pytest.mark.parametrize("vectorize", ["loop", "vmap"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_meta_gradient_is_that_of_plain_autograd(vectorize: Any, checkpointed: bool) -> None:
    net = model()
    algorithm = MAML(inner_steps=2, inner_lr=0.3)
    found = meta_gradient(net, algorithm, EPISODES, vectorize=vectorize, checkpoint_inner_steps=checkpointed)
    params = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    losses = [query_loss_after_steps(net, dict(params), episode, steps=2, lr=0.3) for episode in EPISODES]
    expected = torch.autograd.grad(sum(losses, torch.zeros(())) / len(losses), list(params.values()))
    for (name, value), right in zip(found.items(), expected, strict=True):
        assert torch.allclose(value, right, rtol=1e-11, atol=1e-14), name


@pytest.mark.parametrize("policy", ["transductive", "support"])
@pytest.mark.parametrize(("algorithm", "outputs"), [(MAML(inner_steps=2), WAY), (ANIL(), WAY), (ProtoNet(), None)])
def test_loop_and_vmap_agree_under_batch_norm(policy: Any, algorithm: Any, outputs: int | None) -> None:
    net = model(outputs, norm=True)
    both = [meta_gradient(net, algorithm, EPISODES, batch_norm=policy, vectorize=way) for way in ("loop", "vmap")]
    for name, value in both[0].items():
        assert torch.allclose(value, both[1][name], rtol=1e-9, atol=1e-13), name


def test_the_order_of_names_changes_nothing() -> None:
    def turned(side: Examples) -> Examples:
        assert isinstance(side.x, dict)
        return side._replace(x=dict(reversed(side.x.items())))

    straight = meta_gradient(model(), MAML(), EPISODES)
    mixed = [Episode(turned(one.support), turned(one.query)) if i % 2 else one for i, one in enumerate(EPISODES)]
    assert all(torch.equal(value, straight[name]) for name, value in meta_gradient(model(), MAML(), mixed).items())


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("reptile", "protonet", "joint")]


@pytest.mark.parametrize("algorithm", ["maml", *SLOW])
def test_runs_give_equal_bits_on_workers_and_after_resume(algorithm: str, tmp_path: Path, by_value: None) -> None:
    run = require_equal_bits(tmp_path, tasks=Sentences(), model=WordModel(), algorithm=algorithm)
    shapes = run.path.joinpath("data.json").read_text()
    assert '"tokens"' in shapes
    assert run.summary is not None
    assert raymeta.meta_test(run, episodes=4).headline.value == run.summary["headline"]["value"]


@pytest.mark.slow
def test_compiled_runs_agree(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": Sentences(), "model": WordModel(), "steps": 3, "meta_batch_size": 2}
    options |= {"validate_every": 0, "test_episodes": 2, "device": "cpu"}
    plain = raymeta.meta_train(output=str(tmp_path / "plain"), **options)
    compiled = raymeta.meta_train(output=str(tmp_path / "compiled"), compile=True, **options)
    one, other = ((run.summary or {})["headline"]["value"] for run in (plain, compiled))
    assert other == pytest.approx(one, rel=1e-4)


def changed(x: Inputs, **values: Any) -> Episode:
    """An episode whose support inputs hold other values."""
    episode = EPISODES[0]
    assert isinstance(x, dict)
    return episode._replace(support=episode.support._replace(x={**x, **values}))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"other": torch.zeros(6, 2)}, "inputs of the same names in both"),
        ({"mask": torch.zeros(4, LENGTH)}, 'x["mask"] has 4 examples and x["tokens"] 6'),
        ({"mask": [1, 2]}, 'x["mask"] is a list'),
        ({"mask": torch.full((6, LENGTH), torch.nan)}, 'x["mask"] is float32 [6, 5] in support and bool'),
        ({"tokens": torch.tensor(3)}, 'x["tokens"] is a single number'),
        ({"no name": torch.zeros(6, 2)}, "the names of forward's arguments"),
    ],
)
def test_what_is_wrong_is_named(values: Any, text: str) -> None:
    episode = changed(EPISODES[0].support.x, **values)
    with pytest.raises(DataError) as told:
        meta_gradient(model(), MAML(), [episode])
    assert text in str(told.value)


def test_a_network_of_one_input_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mlp needs one input, and this task set gives several"):
        raymeta.meta_train(output=str(tmp_path), tasks=Sentences(), model="mlp", steps=1)


def test_a_method_of_one_input_says_so() -> None:
    with pytest.raises(DataError, match="one tensor, and these have several: tokens, mask"):
        only(EPISODES[0].support.x)


def test_a_model_that_lacks_an_argument_is_named() -> None:
    class OnlyTokens(Words):
        def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(torch.ones_like(tokens), tokens)

    with pytest.raises(ConfigError, match=r"cannot take inputs mask \[n, 5\], tokens \[n, 5\]"):
        meta_gradient(OnlyTokens(), MAML(), EPISODES)
