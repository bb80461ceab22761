"""MANN: a network with an external memory that learns from one presentation to the next.

Shape suffixes: L instances of a sequence, D features, W way, H controller units, R read heads, N memory slots, M their
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.embedding import one_hot
from raymeta.adaptation.outcome import training_metrics
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import ScoredAlgorithm
from raymeta.errors import ConfigError
from raymeta.keys import TaskKey
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.shapes import require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import Goal, TaskSet
from raymeta.tasks.episodes import Episode, Noise
from raymeta.tasks.inputs import only
from raymeta.trackers.axes import AxisName
from raymeta.tree import Params

CONTROLLER = "controller"
"""Name of the network beside the model."""
SMALL = 1e-8
"""Added to squared norms, so that cosines of an empty slot are 0 and smooth."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MANN(ScoredAlgorithm):
    """Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. Meta-Learning with Memory-Augmented Neural Networks.
    ICML 2016.

    All examples of an episode, support and query alike, come one after another in an order drawn from the task's key.
    At step t an LSTM sees (f(x_t), y_{t−1}, r_{t−1}): the label comes one step late, so it must be kept until its class
    comes again. The LSTM emits keys k for its memory M:
    - write: w = σ(α) w^r_{t−1} + (1 − σ(α)) w^lu_{t−1}, M_i ← M_i + w_i k, the least used slots emptied before;
    - read: w^r = softmax of the cosines of k with the slots, r_t = Σ_i w^r_i M_i;
    - usage: w^u_t = γ w^u_{t−1} + w^r_t + w_t, and w^lu_t is 1 for the slots of smallest usage.
    Logits come from (h_t, r_t). The outer loop learns f, the LSTM and what reads it by the mean cross-entropy over the
    sequence, through all steps. Memory and LSTM start afresh in every task.

    Its scores stand where other methods have those of inner steps: entry k is of the (k + 1)-th instance of each class,
    and the headline is the last one. Of a first instance nothing is known but that it is none of the classes seen.

    Differences from the paper:
    1. Each of the R heads writes to a slot of its own, the j-th least used, and all R are emptied before; in the paper
       all heads write to all R, of which one is emptied.
    2. Slots start with small unlike usages, so that none tie.
    3. Cosines are multiplied by a factor that each head emits, 1 + softplus, as in the Neural Turing Machine.
    4. The outer optimiser is Adam instead of RMSProp.
    """

    goals: ClassVar[tuple[Goal, ...]] = ("classification",)
    uses_queries: ClassVar[bool] = False
    at_once: ClassVar[bool] = True
    reads_inputs: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "clip_norm": 10.0}
    axis: ClassVar[AxisName] = "instance"

    hidden: PositiveInt = 200
    """units of the LSTM"""
    memory_slots: PositiveInt = 128
    """slots of the memory, at least as many as `read_heads`"""
    memory_width: PositiveInt = 40
    """size of a slot"""
    read_heads: PositiveInt = 4
    """keys that are emitted at a step, each of which reads and writes"""
    usage_decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    """share γ of a slot's usage that is left after a step"""

    @model_validator(mode="after")
    def _every_head_has_a_slot(self) -> MANN:
        if self.memory_slots < self.read_heads:
            raise ValueError(f"memory_slots {self.memory_slots} is below read_heads {self.read_heads}: raise it")
        return self

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = spec.build(tasks.input_shape, None)
        features = require_outputs("the model", body, tasks.input_shape, None).shape[1]
        return Beside(body, **{CONTROLLER: self.controller(features, self.num_outputs(tasks) or 0)})

    def controller(self, features: int, way: int) -> Controller:
        """The network beside the model, for so many features and classes."""
        sizes = Sizes(features, way, self.hidden, self.read_heads, self.memory_slots, self.memory_width)
        return Controller(sizes, self.usage_decay)

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if problem.policy_name() != "none":
            raise ConfigError(
                "mann presents one example after another, and batch norm would show it those to come: use a model "
                "without it (--model mlp, or --model.norm layer)"
            )
        return super().init(problem, params, generator)

    def noise(self, problem: Problem, keys: Sequence[TaskKey], episodes: Episode, phase: Phase) -> Noise:
        num_instances = episodes.support.y.shape[1] + episodes.query.y.shape[1]
        orders = [key.generator("noise").permutation(num_instances) for key in keys]
        return {"order": torch.from_numpy(np.stack(orders))}

    def task_loss(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits_LW, y_L = self.presented(problem, learned, episode, noise, phase)
        loss = problem.loss(logits_LW, y_L)
        return loss, training_metrics(problem, loss, logits_LW, y_L, None)

    def presented(
        self, problem: Problem, learned: Learned, episode: Episode, noise: Noise, phase: Phase
    ) -> tuple[Tensor, Tensor]:
        """Logits [L, W] at each step of the sequence, and the labels [L], which come a step later."""
        support, query, order = *episode, noise["order"]
        x_L, y_L = torch.cat([only(support.x), only(query.x)])[order], torch.cat([support.y, query.y])[order]
        z_LD = problem.forward(learned, x_L, phase).flatten(1)
        labels_LW = one_hot(y_L, len(learned.params[f"{CONTROLLER}.logits.bias"]), z_LD.dtype)
        late_LW = torch.cat([torch.zeros_like(labels_LW[:1]), labels_LW[:-1]])
        return problem.of_way(problem.beside(CONTROLLER, learned, torch.cat([z_LD, late_LW], 1)), phase), y_L

    def scores(
        self, problem: Problem, learned: Learned, episodes: Episode, *, noise: Noise, phase: Phase
    ) -> dict[str, Tensor]:
        """Loss and accuracy of each task [T, I], of the 1st, 2nd, ... instance of its classes."""
        phase = phase._replace(way=phase.way or problem.way_of(episodes))

        def one(episode: Episode, noise: Noise) -> dict[str, Tensor]:
            logits_LW, y_L = self.presented(problem, learned, episode, noise, phase)
            instances = instance_numbers(y_L, phase.way).argsort(stable=True).view(-1, phase.way)
            by_instance = [problem.metrics(logits_LW[places], y_L[places]) for places in instances]
            return {name: torch.stack([metrics[name] for metrics in by_instance]) for name in by_instance[0]}

        with torch.no_grad():
            result: dict[str, Tensor] = problem.map_over_tasks(one, episodes, noise)
        return result


def instance_numbers(y_L: Tensor, way: int) -> Tensor:
    """How often the class of each instance [L] was presented before."""
    labels_LW = one_hot(y_L, way, torch.int64)
    return (labels_LW * (labels_LW.cumsum(0) - labels_LW)).sum(1)


class Sizes(NamedTuple):
    """Sizes of a controller and its memory."""

    features: int
    way: int
    hidden: int
    heads: int
    slots: int
    width: int


class State(NamedTuple):
    """What is carried from one step of a sequence to the next."""

    hidden: Tensor  # [H]
    cell: Tensor  # [H]
    read: Tensor  # [R, M]
    memory: Tensor  # [N, M]
    read_weights: Tensor  # [R, N]
    usage: Tensor  # [N]


class Controller(nn.Module):
    """An LSTM with a memory: a sequence of inputs [L, D + W] to logits [L, W].

    Its cell is written from primitives, since torch's own cannot be vectorised over tasks.
    """

    def __init__(self, sizes: Sizes, usage_decay: float) -> None:
        super().__init__()
        self.sizes, self.usage_decay = sizes, usage_decay
        read = sizes.heads * sizes.width
        self.gates = nn.Linear(sizes.features + sizes.way + read + sizes.hidden, 4 * sizes.hidden)
        self.heads = nn.Linear(sizes.hidden, sizes.heads * (sizes.width + 2))
        self.logits = nn.Linear(sizes.hidden + read, sizes.way)

    def forward(self, inputs: Tensor) -> Tensor:
        state, logits = self.start(inputs), []
        for step_input in inputs:
            state = self.step(step_input, state)
            logits.append(self.logits(torch.cat([state.hidden, state.read.flatten()])))
        return torch.stack(logits)

    def start(self, like: Tensor) -> State:
        """An empty memory, whose slots are to be used in their order."""
        _, _, hidden, heads, slots, width = self.sizes
        shapes = (hidden,), (hidden,), (heads, width), (slots, width), (heads, slots)
        h_H, c_H, read_RM, memory_NM, read_RN = (like.new_zeros(shape) for shape in shapes)
        usage_N = torch.arange(slots, dtype=like.dtype, device=like.device) * (1e-3 / slots)
        return State(h_H, c_H, read_RM, memory_NM, read_RN, usage_N)

    def step(self, step_input: Tensor, state: State) -> State:
        h_H, c_H = self.cell(torch.cat([step_input, state.read.flatten(), state.hidden]), state.cell)
        key_RM, gate_R, sharpness_R = self.emitted(h_H)
        least_RN = least_used(state.usage, self.sizes.heads)
        write_RN = gate_R[:, None] * state.read_weights + (1 - gate_R[:, None]) * least_RN
        memory_NM = state.memory * (1 - least_RN.sum(0))[:, None] + write_RN.T @ key_RM
        read_RN = (sharpness_R[:, None] * cosines(key_RM, memory_NM)).softmax(-1)
        usage_N = self.usage_decay * state.usage + read_RN.sum(0) + write_RN.sum(0)
        return State(h_H, c_H, read_RN @ memory_NM, memory_NM, read_RN, usage_N)

    def cell(self, inputs: Tensor, c_H: Tensor) -> tuple[Tensor, Tensor]:
        """One step of an LSTM; its forget gate starts open."""
        forget, add, candidate, out = self.gates(inputs).chunk(4)
        c_H = (forget + 1).sigmoid() * c_H + add.sigmoid() * candidate.tanh()
        return out.sigmoid() * c_H.tanh(), c_H

    def emitted(self, h_H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys [R, M], write gates [R] in (0, 1) and factors on cosines [R] above 1."""
        emitted = self.heads(h_H).view(self.sizes.heads, -1)
        return emitted[:, 2:].tanh(), emitted[:, 0].sigmoid(), 1 + nn.functional.softplus(emitted[:, 1])


def least_used(usage_N: Tensor, count: int) -> Tensor:
    """The `count` slots of smallest usage, one in each row [count, N]: a product instead of an index (vmap)."""
    places = usage_N.topk(count, largest=False).indices
    return one_hot(places, len(usage_N), usage_N.dtype)


def cosines(key_RM: Tensor, memory_NM: Tensor) -> Tensor:
    """Cosine of each key with each slot [R, N]."""
    lengths = [(rows.square().sum(-1) + SMALL).sqrt() for rows in (key_RM, memory_NM)]
    return key_RM @ memory_NM.T / (lengths[0][:, None] * lengths[1])
