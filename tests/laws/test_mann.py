"""MANN: what it can know at each step, its memory by hand, and the gradient through the whole sequence."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equal_bits import require_equal_bits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raymeta import MANN, Episode, Examples, meta_gradient
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.mann import CONTROLLER, Controller, cosines, instance_numbers, least_used
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.layers.beside import Beside
from raymeta.tasks.episodes import stack_episodes

VECTORIZE = ("vmap", "loop")
WAY, SHOT, QUERY_SHOT, FEATURES = 3, 1, 2, 4
LENGTH = WAY * (SHOT + QUERY_SHOT)
SMALL = MANN(hidden=6, memory_slots=5, memory_width=3, read_heads=2)
PHASE = Phase(training=False, way=WAY)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def episodes(count: int) -> list[Episode]:
    def side(shot: int, seed: int) -> Examples:
        y = torch.arange(WAY).repeat_interleave(shot)
        return Examples(draw(len(y), 4, seed=seed), y)

    return [Episode(side(SHOT, 20 * t), side(QUERY_SHOT, 20 * t + 1)) for t in range(count)]


def network() -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(4, FEATURES), nn.Tanh())
        model = Beside(body, **{CONTROLLER: SMALL.controller(FEATURES, WAY)}).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def problem() -> Problem:
    return Problem(network(), goal="classification")


@pytest.fixture
def learned(problem: Problem) -> Learned:
    return SMALL.init(problem, problem.initial_params(), torch.Generator())


def order(seed: int = 0) -> dict[str, Tensor]:
    return {"order": torch.randperm(LENGTH, generator=torch.Generator().manual_seed(seed))}


def changed(episode: Episode, places: Tensor, seed: int, *, x: bool) -> Episode:
    """Other inputs, or other labels, at some places of the episode."""
    sides = []
    for side, part in zip(episode, places.tensor_split([len(episode.support.y)]), strict=True):
        other_x = torch.where(part[:, None], draw(*side.x.shape, seed=seed), side.x)
        other_y = torch.where(part, (side.y + 1 + seed % 2) % WAY, side.y)
        sides.append(side._replace(x=other_x) if x else side._replace(y=other_y))
    return Episode(*sides)


# What can be known


@pytest.mark.parametrize("step", range(LENGTH))
def test_no_step_sees_what_comes_after_it(step: int, problem: Problem, learned: Learned) -> None:
    """Inputs after `step`, and labels from `step` on, change nothing up to it; those before change something."""
    (episode,), noise = episodes(1), order()
    before, _ = SMALL.presented(problem, learned, episode, noise, PHASE)
    when = noise["order"].argsort()  # the step of each example
    for other in (changed(episode, when > step, 3, x=True), changed(episode, when >= step, 4, x=False)):
        after, _ = SMALL.presented(problem, learned, other, noise, PHASE)
        assert torch.equal(after[: step + 1], before[: step + 1])
    for other in (changed(episode, when <= step, 3, x=True), changed(episode, when < step, 4, x=False)):
        after, _ = SMALL.presented(problem, learned, other, noise, PHASE)
        assert step == 0 or not torch.allclose(after[step], before[step])


def test_first_instances_are_chance(problem: Problem, learned: Learned) -> None:
    """Over all bindings of labels to classes: 1/W at the first step, and at most 1/(W − m) after m classes."""
    (episode,), noise = episodes(1), order(1)
    right, losses = [], []
    for binding in map(torch.tensor, permutations(range(WAY))):
        bound = Episode(*(side._replace(y=binding[side.y]) for side in episode))
        logits, y = SMALL.presented(problem, learned, bound, noise, PHASE)
        right.append((logits.argmax(1) == y).double())
        losses.append(F.cross_entropy(logits, y, reduction="none"))
    first = (instance_numbers(y, WAY) == 0).nonzero()[:, 0]
    accuracy, loss = torch.stack(right).mean(0)[first], torch.stack(losses).mean(0)[first]
    left = torch.arange(WAY, 0, -1).double()
    assert first[0] == 0
    assert accuracy[0].item() == pytest.approx(1 / WAY, abs=1e-14)
    assert (accuracy <= 1 / left + 1e-12).all()
    assert (loss >= left.log() - 1e-12).all()


def test_the_order_comes_from_the_key_and_nothing_else() -> None:
    keys, problem = [TaskKey(0, "train", 5, i) for i in range(4)], Problem(network(), goal="classification")
    whole = SMALL.noise(problem, keys, stack_episodes(episodes(4)), Phase())["order"]
    assert (whole.sort(1).values == torch.arange(LENGTH)).all()
    assert len({tuple(row.tolist()) for row in whole}) > 1
    alone = SMALL.noise(problem, keys[2:3], stack_episodes(episodes(1)), Phase())["order"]
    assert torch.equal(alone[0], whole[2])


def test_batch_norm_is_refused() -> None:
    model = Beside(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), **{CONTROLLER: SMALL.controller(4, WAY)}).double()
    with pytest.raises(ConfigError, match="would show it those to come"):
        meta_gradient(model, SMALL, episodes(1))
    with pytest.raises(ValueError, match="memory_slots 1 is below read_heads 2"):
        MANN(memory_slots=1, read_heads=2)


# Scores


def test_scores_are_by_instance_of_a_class(problem: Problem, learned: Learned) -> None:
    batch, noise = stack_episodes(episodes(2)), {"order": torch.stack([order(1)["order"], order(2)["order"]])}
    scores = SMALL.scores(problem, learned, batch, noise=noise, phase=Phase(training=False))
    for t, episode in enumerate(episodes(2)):
        logits, y = SMALL.presented(problem, learned, episode, {"order": noise["order"][t]}, PHASE)
        seen: dict[int, int] = dict.fromkeys(range(WAY), 0)
        by_instance: list[list[float]] = [[] for _ in range(SHOT + QUERY_SHOT)]
        for row, label in zip(logits, y.tolist(), strict=True):
            by_instance[seen[label]].append(F.cross_entropy(row, torch.tensor(label)).item())
            seen[label] += 1
        np.testing.assert_allclose(scores["loss"][t], np.mean(by_instance, axis=1), rtol=1e-12)
    assert scores["accuracy"].shape == (2, SHOT + QUERY_SHOT)


# Memory and controller


def test_the_cell_is_an_lstm() -> None:
    controller, cell = Controller(SMALL.controller(FEATURES, WAY).sizes, 0.95).double(), nn.LSTMCell(13, 6).double()
    gates = controller.gates
    forget, add, candidate, out = gates.weight.detach().chunk(4)
    biases = gates.bias.detach().chunk(4)
    with torch.no_grad():  # torch's order is (input, forget, candidate, output)
        for target, part in ((cell.weight_ih, slice(0, 13)), (cell.weight_hh, slice(13, 19))):
            target.copy_(torch.cat([add, forget, candidate, out])[:, part])
        cell.bias_ih.copy_(torch.cat([biases[1], biases[0] + 1, biases[2], biases[3]]))
        cell.bias_hh.zero_()
    x, h, c = draw(13, seed=0), draw(6, seed=1), draw(6, seed=2)
    found = controller.cell(torch.cat([x, h]), c)
    for ours, theirs in zip(found, cell(x[None], (h[None], c[None])), strict=True):
        torch.testing.assert_close(ours, theirs[0], rtol=1e-12, atol=1e-14)


def test_a_step_of_the_memory_by_hand() -> None:
    controller = network().controller
    state = controller.start(draw(1, FEATURES + WAY, seed=0))
    for t in range(4):
        after = controller.step(draw(FEATURES + WAY, seed=t), state)
        key, gate, sharpness = controller.emitted(after.hidden)
        memory, slots = state.memory.clone(), state.usage.argsort()[:2]
        memory[slots] = 0
        write = gate[:, None] * state.read_weights
        for head, slot in enumerate(slots):
            write[head, slot] += 1 - gate[head]
        for head in range(2):
            memory += write[head][:, None] * key[head]
        torch.testing.assert_close(after.memory, memory, rtol=1e-12, atol=1e-14)
        for head in range(2):
            similar = F.cosine_similarity(key[head][None], memory)
            weights = (sharpness[head] * similar).softmax(0)
            torch.testing.assert_close(after.read_weights[head], weights, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(after.read[head], after.read_weights[head] @ memory)
        usage = 0.95 * state.usage + after.read_weights.sum(0) + write.sum(0)
        torch.testing.assert_close(after.usage, usage, rtol=1e-12, atol=1e-14)
        assert after.read_weights.sum(1).tolist() == pytest.approx([1, 1])
        state = after


def test_least_used_slots_are_one_for_each_head() -> None:
    found = least_used(torch.tensor([0.5, 0.1, 0.9, 0.2]), 2)
    assert found.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert cosines(torch.ones(1, 3), torch.zeros(2, 3)).tolist() == [[0, 0]]


# Derivatives


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_gradient_equals_finite_differences_of_the_sequence_loss(vectorize: Any) -> None:
    tasks, problem = episodes(2), Problem(network(), goal="classification")
    gradient = meta_gradient(network(), SMALL, tasks, vectorize=vectorize)
    params = problem.initial_params()
    noise = SMALL.noise(problem, [TaskKey(0, "train", 0, i) for i in range(2)], stack_episodes(tasks), Phase())["order"]

    def loss(params: dict[str, Tensor]) -> float:
        both = [
            SMALL.presented(problem, Learned(params, {}), e, {"order": o}, PHASE)
            for e, o in zip(tasks, noise, strict=True)
        ]
        return float(sum(F.cross_entropy(*pair) for pair in both)) / 2

    assert list(gradient) == list(params)
    for name, value in params.items():
        direction = draw(*value.shape, seed=1)
        measured = (
            loss(params | {name: value + 1e-5 * direction}) - loss(params | {name: value - 1e-5 * direction})
        ) / 2e-5
        assert float((gradient[name] * direction).sum()) == pytest.approx(measured, rel=1e-6, abs=1e-8), name


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is computed."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(v.numel() for v in tree_leaves(result) if isinstance(v, Tensor))])
        return result


def test_a_shard_makes_no_gradient_for_each_task() -> None:
    """Of the LSTM's weights it would be by far the largest tensor, at every step of the sequence."""
    count, weights = 64, network().controller.gates.weight.numel()
    with Largest() as largest:
        meta_gradient(network(), SMALL, episodes(count), vectorize="vmap")
    assert 0 < largest.numbers < count * weights / 2


def test_loop_equals_vmap() -> None:
    both = [meta_gradient(network(), SMALL, episodes(3), vectorize=v) for v in VECTORIZE]
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_bits(local_ray: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": "glyphs", "tasks.query_shot": 3, "model": "mlp", "model.hidden": [8]}
    sizes = {"hidden": 8, "memory_slots": 6, "memory_width": 4, "read_heads": 2}
    options |= {f"algorithm.{name}": value for name, value in sizes.items()}
    run = require_equal_bits(tmp_path, algorithm="mann", **options)
    assert len((run.summary or {})["by_inner_step"]) == 4, "one support and three query examples of each class"
    assert not (run.path / "eval" / "episodes").exists(), "there are no predictors to show"
    assert not [event for event in run.events() if event["kind"] == "warning"]
