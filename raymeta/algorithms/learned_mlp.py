"""A learned optimiser that is a perceptron for every parameter."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.algorithms.learned_optimizer import LearnedOptimizer
from raymeta.models.layers.optimizer_rules import PerceptronRule
from raymeta.options import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LearnedMLP(LearnedOptimizer):
    """Metz, Maheswaranathan, Nixon, Freeman, Sohl-Dickstein. Understanding and correcting pathologies in the training
    of learned optimizers. ICML 2019, arXiv:1810.10180.

    θ_{t+1} = θ_t − λ d_t exp(m_t), where one small perceptron gives (d_t, m_t) for every coordinate of θ from its
    slope, running means of it, the running mean of its squares and the number of the step. The outer loss is Σ f(θ_t)
    over a window of `unroll` steps. ∇f is an input: its own derivative is dropped.

    Differences from the paper:
    1. Slope and means are divided by the root of the coordinate's own running mean of squares; the paper divides each
       feature by its root mean square over a tensor. So no coordinate depends on another one.
    2. The parameter itself is no feature; three decays of running means in place of five.
    3. λ is 0.01 and m is not scaled (0.001 for both in the paper), so that short trainings get anywhere.
    4. Windows have one length, and the estimate is `train`'s: the paper combines two estimates over windows that grow.
    """

    hidden: PositiveInt = 32
    """units of each hidden layer"""
    layers: PositiveInt = 2
    """hidden layers"""
    output_scale: PositiveFloat = 0.01
    """factor λ on the updates"""

    def rule(self) -> PerceptronRule:
        return PerceptronRule(self.hidden, self.layers, output_scale=self.output_scale)
