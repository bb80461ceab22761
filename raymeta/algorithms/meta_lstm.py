"""Meta-learner LSTM: the update of every parameter is a cell of an LSTM, whose gates are learned."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymeta.adaptation.descent import adaptable, after, steps_in
from raymeta.adaptation.outcome import Adaptation, Predictor
from raymeta.adaptation.problem import Learned, Phase, Problem
from raymeta.algorithms.base import Algorithm
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.beside import Beside
from raymeta.models.layers.coordinate_lstm import GatedUpdate, preprocess
from raymeta.models.layers.inner_step import inner_step
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Examples, Noise
from raymeta.tree import Layout, Params

UPDATE = "update"
"""Name of the network beside the model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetaLSTM(Algorithm):
    """Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017.

    θ_t = f_t ⊙ θ_{t−1} − i_t ⊙ ∇_t with ∇_t = ∇L_S(θ_{t−1}), θ_0 = φ: the update of an LSTM's cell state, whose gates
    are i_t = σ(W_I [h_t, θ_{t−1}, i_{t−1}] + b_I) and f_t likewise, with h_t of an LSTM that reads ∇_t and
    L_S(θ_{t−1}), both on a scale of logarithms. One LSTM serves all coordinates. The outer loop learns φ and the LSTM
    by ∇L_Q(θ_K) through all K updates; ∇_t and the loss are inputs, so their own derivatives are dropped (a named
    pseudo-gradient). With f ≡ 1 and i ≡ α it is FOMAML. f begins near 1 and i near 0.01.

    Differences from the authors' code:
    1. A step sees the whole support set, as theirs does too at the batch sizes of the paper (5 with one shot, 25 with
       five).
    2. The ranges in which the gates' biases begin are options: a short run needs a larger rate to begin with than
       the paper's long one, such as `init_write` (-2, -1).
    3. Batch norm at test is by the batch unless --batch_norm running is given, which is theirs.
    """

    queries_apart: ClassVar[bool] = True
    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3, "clip_norm": 0.25}

    inner_steps: NonNegativeInt = 12
    """updates K in training (the paper: 12 with one shot, 8 with five)"""
    test_inner_steps: NonNegativeInt | None = None
    """updates at validation and test; the same as `inner_steps` unless given"""
    hidden: PositiveInt = 20
    """units of the LSTM that reads gradients and losses"""
    init_forget: tuple[float, float] = (4.0, 6.0)
    """range of the forget gate's bias at the start; its sigmoid is what is kept of a parameter in a step"""
    init_write: tuple[float, float] = (-5.0, -4.0)
    """range of the write gate's bias at the start; its sigmoid is the step's rate, first about 0.01"""
    log_range: PositiveFloat = 10.0
    """p: values of magnitude from e^−p are given to the LSTM as (log|v| / p, sign v), smaller ones as (−1, e^p v)"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        return Beside(
            super().network(spec, tasks), **{UPDATE: GatedUpdate(self.hidden, self.init_forget, self.init_write)}
        )

    def adapt(self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase) -> Adaptation:
        names = tuple(name for name in adaptable(problem, learned) if not name.startswith(f"{UPDATE}."))
        if len(names) == len(problem.param_names):
            raise ConfigError(
                "meta_lstm learns an LSTM beside the model: train it with meta_train, which puts it there"
            )
        own = {name: learned.params[name] for name in names}
        layout = Layout.of(own)

        def loss(theta: Params) -> Tensor:
            here = learned._replace(params=learned.params | theta)
            return problem.loss(problem.predict(here, support.x, phase), support.y)

        theta = layout.flatten(own)
        state, gates = theta.new_zeros(len(theta), 1, 2, self.hidden), theta.new_zeros(len(theta), 2)
        trajectory, first_loss = [theta], None
        for step in range(steps_in(phase, self.inner_steps, self.test_inner_steps)):
            with torch.no_grad(), inner_step(step):
                slope, value = gradient_and_value(loss, layout.unflatten(theta))
            first_loss = value if first_loss is None else first_loss
            flat = layout.flatten(slope)
            inputs = torch.cat([self._read(flat), self._read(value[None]).expand(len(flat), -1)], 1)
            theta, state, gates = problem.beside(UPDATE, learned, inputs, flat, theta, state, gates)
            trajectory.append(theta)

        def predictor(theta: Tensor) -> Predictor:
            here = learned._replace(params=learned.params | layout.unflatten(theta))
            return lambda x: problem.predict(here, x, phase, support_x=support.x)

        return Adaptation([after(k, predictor(theta)) for k, theta in enumerate(trajectory)], first_loss)

    def _read(self, value: Tensor) -> Tensor:
        return preprocess(value, self.log_range)
