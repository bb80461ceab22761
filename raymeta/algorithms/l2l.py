"""Learning to learn by gradient descent by gradient descent."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.algorithms.learned_optimizer import LearnedOptimizer
from raymeta.models.layers.optimizer_rules import LSTMRule
from raymeta.options import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class L2L(LearnedOptimizer):
    """Andrychowicz et al. Learning to learn by gradient descent by gradient descent. NIPS 2016, arXiv:1606.04474.

    θ_{t+1} = θ_t + g_t with (g_t, h_{t+1}) = m(∇f(θ_t), h_t), one small LSTM m for every coordinate of θ. The outer
    loss is Σ f(θ_t) over a window of `unroll` steps, differentiated through the updates; ∇f is an input, so its own
    derivative is dropped, and windows do not differentiate through one another.

    Differences from the paper: (1) outer steps are counted in windows, so `steps` is `windows` times the number of
    tasks met; (2) `train` offers evolution strategies, which the paper does not use.
    """

    hidden: PositiveInt = 20
    """units of each LSTM layer"""
    layers: PositiveInt = 2
    """LSTM layers"""
    output_scale: PositiveFloat = 0.01
    """factor on the LSTM's output"""
    log_range: PositiveFloat = 10.0
    """p: gradients of magnitude from e^−p are given to the LSTM as (log|g| / p, sign g), smaller ones as (−1, e^p g)"""

    def rule(self) -> LSTMRule:
        return LSTMRule(self.hidden, self.layers, output_scale=self.output_scale, log_range=self.log_range)
