"""SNAIL: nothing sees what comes later, all of a sequence is seen, and shared places change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import answers, draw, shaken
from torch import nn
from torch.nn import functional as F

from raymeta import SNAIL, Beside, Episode, Examples, TaskKey
from raymeta.adaptation.problem import Phase, Problem
from raymeta.algorithms.snail import SEQUENCE, Attention, DenseBlock, Snail
from raymeta.config.build import build
from raymeta.config.load import load_config
from raymeta.tasks.episodes import stack_episodes

WAY, SHOT, FEATURES = 3, 2, 4
SMALL = SNAIL(scale=16)
SUPPORT, QUERIES = draw(6, FEATURES + WAY, seed=0), draw(3, FEATURES + WAY, seed=1)
NETWORK: Any = shaken(Snail(FEATURES, WAY, 7, 16), 0.5)


def whole(network: Any, sequence: torch.Tensor) -> torch.Tensor:
    """Logits at the last place of one sequence, as the paper has it: all of it through every layer."""
    nothing = sequence[:0]
    for layer in network.layers:
        sequence, nothing = layer(sequence, nothing.new_zeros(0, sequence.shape[1]))
    return network.logits(sequence[-1])


def test_shared_places_are_those_of_whole_sequences() -> None:
    expected = torch.stack([whole(NETWORK, torch.cat([SUPPORT, query[None]])) for query in QUERIES])
    torch.testing.assert_close(NETWORK(SUPPORT, QUERIES), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [DenseBlock(4, 3, 2), Attention(4, 3, 5)], ids=["conv", "attention"])
def test_no_place_sees_a_later_one(layer: Any) -> None:
    layer, nothing = shaken(layer), torch.zeros(0, 4).double()
    derivative = torch.func.jacrev(lambda x: layer(x, nothing)[0])(draw(6, 4, seed=2)).abs().sum((1, 3))
    assert (derivative.triu(1) == 0).all()
    assert (derivative.diagonal() > 0).all()


def test_a_dense_block_is_two_gated_convolutions() -> None:
    block: Any = shaken(DenseBlock(4, 3, 2))
    x = draw(6, 4, seed=2)
    weight = torch.stack(block.both.weight.split(4, 1), -1)
    value, gate = F.conv1d(F.pad(x.T[None], (2, 0)), weight, block.both.bias, dilation=2)[0].T.chunk(2, 1)
    expected = torch.cat([x, value.tanh() * gate.sigmoid()], 1)
    torch.testing.assert_close(block(x, x[:0])[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("longest", [2, 3, 4, 7, 8, 16])
def test_convolutions_alone_see_the_whole_sequence(longest: int) -> None:
    network: Any = shaken(Snail(2, 2, longest, 16), 0.5)
    blocks = [layer for layer in network.layers if isinstance(layer, DenseBlock)]
    first = [block.dilation for block in blocks[: len(blocks) // 2]]
    assert first == [2**i for i in range(len(first))]
    assert 2 ** len(first) >= longest > 2 ** (len(first) - 1)
    sees = {0}
    for dilation in first:
        sees |= {place + dilation for place in sees}
    assert set(range(longest)) <= sees


def test_queries_do_not_see_each_other_and_see_all_of_the_support() -> None:
    plain = NETWORK(SUPPORT, QUERIES)
    torch.testing.assert_close(NETWORK(SUPPORT, QUERIES[[2, 0]]), plain[[2, 0]], rtol=1e-12, atol=1e-12)
    derivative = torch.func.jacrev(lambda x: NETWORK(x, QUERIES))(SUPPORT).abs().sum((1, 3))
    assert (derivative > 0).all()


def episode() -> Episode:
    y = torch.arange(WAY).repeat_interleave(SHOT)
    return Episode(*(Examples(draw(len(y), 4, seed=seed), y) for seed in (5, 6)))


def test_labels_of_the_support_stand_in_the_sequence_in_the_drawn_order() -> None:
    model = Beside(nn.Identity(), **{SEQUENCE: shaken(SMALL.sequence(4, WAY, 7), 0.5)})
    problem, (support, query) = Problem(model, goal="classification"), episode()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    found = answers(SMALL, problem, support, query.x, noise={"order": order}, way=WAY)
    told = torch.cat([support.x, F.one_hot(support.y, WAY)], 1)[order]
    untold = torch.cat([query.x, torch.zeros(6, WAY)], 1)
    torch.testing.assert_close(found, model.sequence(told, untold).detach(), rtol=1e-12, atol=1e-12)


def test_the_order_comes_from_the_key() -> None:
    keys = [TaskKey(0, "train", 5, i) for i in range(4)]
    model = Beside(nn.Identity(), **{SEQUENCE: SMALL.sequence(4, WAY, 7)})
    drawn = SMALL.noise(Problem(model, goal="classification"), keys, stack_episodes([episode()] * 4), Phase())["order"]
    assert (drawn.sort(1).values == torch.arange(6)).all()
    assert len({tuple(row.tolist()) for row in drawn}) > 1


def test_the_network_is_as_long_as_the_longest_task_and_as_wide_as_the_paper_says() -> None:
    options = {"algorithm": "snail", "tasks": "glyphs", "model": "mlp", "model.hidden": [64], "tasks.shot": 2}
    network = build(load_config(overrides=options).config).blueprint.model.get_submodule(SEQUENCE)
    layers = [type(layer).__name__ for layer in network.layers]  # type: ignore[union-attr]
    assert layers == ["Attention", *["DenseBlock"] * 4, "Attention", *["DenseBlock"] * 4, "Attention"]
    assert network.logits.in_features == 64 + 5 + 32 + 4 * 128 + 128 + 4 * 128 + 256  # type: ignore[union-attr]
