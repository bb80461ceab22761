"""HSML: an initialisation that is modulated by what kind of task it is, found by a hierarchical clustering of tasks.

Shape suffixes: S support examples, I numbers of an example with its label, E size of an embedding, C leaves, P parents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.descent import descend, steps_in
from raymeta.adaptation.embedding import one_hot
from raymeta.adaptation.outcome import Adaptation, Predictor
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.gru import GRU
from raymeta.models.layers.set_encoder import perceptron
from raymeta.models.reader import reader_of
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tasks.inputs import only
from raymeta.tree import Params

READER, ENCODER, DECODER, TREE, GATE = "reader", "encoder", "decoder", "tree", "gate"
"""Names of the networks beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HSML(Algorithm):
    """Yao, Wei, Huang, Li. Hierarchically Structured Meta-learning. ICML 2019.

    A task is embedded, assigned to clusters, and starts from an initialisation that is theirs:
    - embedding: codes of the support examples (x, y) from an auto-encoder, τ their mean, L_r its mean squared error;
    - leaves: p_c = softmax(−‖τ − e_c‖² / 2σ), h_c = p_c tanh(W_c τ + b_c);
    - parents: h_p = Σ_c softmax_p(gate(h_c)) tanh(W_p h_c + b_p), and the root ρ = Σ_p tanh(W_r h_p + b_r);
    - modulation: η = sigmoid(W_η [τ, ρ] + b_η), one number for each parameter, and θ_0 = η ⊙ φ.
    K inner steps θ_{k+1} = θ_k − α ∇L_S(θ_k) follow. The outer loop learns φ and all networks of the embedding by
    L_Q(θ_K) + ξ L_r, through the inner steps. With η = 1 and ξ = 0 it is MAML.

    It is registered as `metail`, too: a system of that name, ascribed to Yao et al., is described as learning a
    similarity between tasks that guides what a network extracts. No paper of that name could be identified; HSML is
    the published method that fits the description.

    Differences from the paper's code:
    1. Images are read by a convolutional network of their own without norm, whose 32 features are embedded.
    2. `encoder: recurrent` decodes its codes by a second GRU in the same order. It depends on the order of the support.
    """

    queries_apart: ClassVar[bool] = True
    reads_inputs: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    inner_lr: NonNegativeFloat = 1e-3
    """inner learning rate α"""
    inner_steps: NonNegativeInt = 5
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    first_order: bool = False
    """drop the derivatives of the inner gradients"""
    encoder: Literal["recurrent", "mean"] = "recurrent"
    """auto-encoder of the support: a GRU over its examples, or a perceptron on each, whatever their order"""
    embedding: PositiveInt = 40
    """size of τ and of all nodes of the tree (the paper: 128 on images)"""
    leaves: PositiveInt = 4
    """clusters of the first layer"""
    parents: PositiveInt = 2
    """clusters of the second layer"""
    sigma: PositiveFloat = 2.0
    """σ, how soft the assignment to leaves is (the paper: 10 on images)"""
    reconstruction: NonNegativeFloat = 0.01
    """ξ, the weight of the error of the auto-encoder"""
    init_gate: float = Field(default=0.5, gt=0, lt=1)
    """η at the start, about; the paper's 0.5 halves all weights"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        body = super().network(spec, tasks)
        reader, features = reader_of(tasks.input_shape)
        num_params = sum(p.numel() for p in body.parameters())
        return Beside(body, **{READER: reader}, **self.networks(features + (self.num_outputs(tasks) or 0), num_params))

    def networks(self, inputs: int, num_params: int) -> dict[str, nn.Module]:
        """Auto-encoder, tree and modulation for so many numbers of an example with its label, and parameters."""
        gate = nn.Linear(2 * self.embedding, num_params)
        nn.init.constant_(gate.bias, math.log(self.init_gate / (1 - self.init_gate)))
        tree = Tree(self.embedding, self.leaves, self.parents, self.sigma)
        if self.encoder == "mean":
            sizes = inputs, self.embedding, self.embedding
            return {ENCODER: perceptron(*sizes), DECODER: perceptron(*reversed(sizes)), TREE: tree, GATE: gate}
        decoder = nn.Sequential(GRU(self.embedding, self.embedding), nn.Linear(self.embedding, inputs))
        return {ENCODER: GRU(inputs, self.embedding), DECODER: decoder, TREE: tree, GATE: gate}

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        start, error = self.initialisation(problem, learned, support)

        def with_theta(theta: Params) -> Learned:
            return learned._replace(params=learned.params | theta)

        def predictor(theta: Params) -> Predictor:
            return lambda x: problem.predict(with_theta(theta), x, phase, support_x=support.x)

        trajectory = descend(
            lambda theta: problem.loss(problem.predict(with_theta(theta), support.x, phase), support.y),
            start,
            lambda step: self.inner_lr,
            num_steps=steps_in(phase, self.inner_steps, self.test_inner_steps),
            first_order=self.first_order,
        )
        predictors = [predictor(theta) for theta in trajectory.params]
        return Adaptation(predictors, trajectory.first_loss, penalty=self.reconstruction * error)

    def initialisation(self, problem: Problem, learned: Learned, support: Examples) -> tuple[Params, Tensor]:
        """θ_0 for a task, and the error of the auto-encoder on its support."""
        task_E, error = self.embedded(problem, learned, support)
        root_E = problem.beside(TREE, learned, task_E)
        eta = problem.beside(GATE, learned, torch.cat([task_E, root_E])).sigmoid()
        pieces = _pieces(problem.model.get_submodule("body"), eta)
        return {name: eta * learned.params[name] for name, eta in pieces if name in learned.params}, error

    def embedded(self, problem: Problem, learned: Learned, support: Examples) -> tuple[Tensor, Tensor]:
        """τ of a task, and the error of the auto-encoder on its support."""
        z_SF, y = problem.beside(READER, learned, only(support.x)), support.y
        if problem.goal == "classification":
            labels = _inputs_of(problem.model.get_submodule(ENCODER)) - z_SF.shape[1]
            y = one_hot(y, labels, z_SF.dtype)
        examples_SI = torch.cat([z_SF, y], 1)
        codes_SE = problem.beside(ENCODER, learned, examples_SI)
        again_SI = problem.beside(DECODER, learned, codes_SE)
        return codes_SE.mean(0), (again_SI - examples_SI).square().mean()


class Tree(nn.Module):
    """An embedding τ [E] to the root ρ [E] of two layers of clusters."""

    def __init__(self, embedding: int, leaves: int, parents: int, sigma: float) -> None:
        super().__init__()
        self.sigma, self.sizes = sigma, (leaves, parents)
        self.centres = nn.Parameter(torch.randn(leaves, embedding))
        self.of_leaves = nn.Linear(embedding, leaves * embedding)
        self.gate = nn.Linear(embedding, parents)
        self.of_parents = nn.Linear(embedding, parents * embedding)
        self.of_root = nn.Linear(embedding, embedding)

    def assignment(self, task_E: Tensor) -> Tensor:
        """How much the task belongs to each leaf [C]; the sum is 1."""
        return (-(task_E - self.centres).square().sum(1) / (2 * self.sigma)).softmax(0)

    def forward(self, task_E: Tensor) -> Tensor:
        leaves, parents = self.sizes
        leaf_CE = self.assignment(task_E)[:, None] * self.of_leaves(task_E).view(leaves, -1).tanh()
        gate_CP1 = self.gate(leaf_CE).softmax(1)[..., None]
        parent_PE = (gate_CP1 * self.of_parents(leaf_CE).view(leaves, parents, -1).tanh()).sum(0)
        root_E: Tensor = self.of_root(parent_PE).tanh().sum(0)
        return root_E


def _pieces(body: nn.Module, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    """One number for each parameter, in the shapes of the body's parameters, under their full names."""
    shapes = {f"body.{name}": p.shape for name, p in body.named_parameters()}
    parts = torch.split(values, [shape.numel() for shape in shapes.values()])
    yield from ((name, part.view(shape)) for (name, shape), part in zip(shapes.items(), parts, strict=True))


def _inputs_of(encoder: nn.Module) -> int:
    first = next(module for module in encoder.modules() if isinstance(module, nn.Linear))
    return first.in_features
