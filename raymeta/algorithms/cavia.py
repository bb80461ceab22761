"""CAVIA: a few context parameters adapt, and the network stays as it is."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn

from raymeta.adaptation.descent import Descent, LossReduction, fixed_rate_descent
from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import DescentAlgorithm
from raymeta.errors import ConfigError
from raymeta.models.base import ModelSpec
from raymeta.models.layers.context import CONTEXT, Modulated, WithContext
from raymeta.models.shapes import require_one, require_outputs
from raymeta.options import STRICT
from raymeta.tasks.base import TaskSet
from raymeta.tasks.episodes import Episode, Examples, Noise


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CAVIA(DescentAlgorithm):
    """Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson. Fast Context Adaptation via Meta-Learning. ICML 2019,
    arXiv:1810.03642.

    Inner: c_{k+1} = c_k − α ∇_c L_S(φ, c_k) from c_0 = 0, φ fixed. Outer: ∇_φ L_Q(φ, c_K), through all K steps. c_0 is
    not learned. `enters` says how the context gets into the network:
    - `input`: c stands beside each input, for images as constant channels (the paper's regression);
    - `film`: after the layer `film_layer`, channel j becomes (1 + γ_j) h_j + β_j with (γ, β) affine in c (the paper's
      images: 100 context parameters after the third block, two steps).
    The defaults are those of the paper's sinusoids.

    Differences from the paper:
    1. The gain is 1 + γ, so that a network without context is the plain one; theirs is γ with its own bias.
    2. The modulation follows the norm and comes before the ReLU.
    """

    outer: ClassVar[dict[str, Any]] = {"optimizer": "adam", "lr": 1e-3}

    inner_lr: NonNegativeFloat = 1.0
    """inner learning rate α of the context"""
    inner_steps: NonNegativeInt = 1
    """inner steps K in training"""
    test_inner_steps: NonNegativeInt | None = None
    """inner steps at validation and test; the same as `inner_steps` unless given"""
    num_context: PositiveInt = 5
    """context parameters"""
    enters: Literal["input", "film"] = "input"
    """how the context enters: beside each `input`, or by `film` as gains and shifts of channels"""
    film_layer: str = "norm3"
    """layer whose output `film` modulates, by its name in the model; conv4's blocks end their norms norm1 to norm4"""
    clip_task_value: PositiveFloat | None = 10.0
    """largest magnitude of an element of each task's meta-gradient; larger ones are cut before the mean is taken"""
    first_order: bool = False
    """drop the derivatives of the inner gradients"""
    inner_loss_reduction: LossReduction = "mean"
    """`mean` cross-entropy, or `sum_over_classes`: `way` times that"""

    def network(self, spec: ModelSpec, tasks: TaskSet) -> nn.Module:
        shape = require_one("cavia", tasks.input_shape)
        if self.enters == "input":
            widened = shape[0] + self.num_context, *shape[1:]
            return WithContext(spec.build(widened, self.num_outputs(tasks)), self.num_context)
        model = super().network(spec, tasks)
        parent, _, child = self.film_layer.rpartition(".")
        channels = _channels(model, self.film_layer, shape)
        layer = Modulated(model.get_submodule(self.film_layer), channels, self.num_context)
        setattr(model.get_submodule(parent), child, layer)
        return model

    def descent(self, problem: Problem, learned: Learned, support: Examples, phase: Phase) -> Descent:
        contexts = {name: value for name, value in problem.model.named_buffers() if name.rpartition(".")[2] == CONTEXT}
        if not contexts:
            raise ConfigError(
                "cavia adapts a context, and this model has none: train it with meta_train, which puts one into it, or "
                "give the model a buffer named context"
            )
        plain = fixed_rate_descent(self, problem, learned, support, phase, tuple(contexts))
        return plain._replace(queried=(*contexts, *plain.queried), start=contexts)

    def task_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        part, largest = super().task_gradient(problem, learned, episode, noise=noise, phase=phase), self.clip_task_value
        if largest is None:
            return part
        cut = {name: part.sums[name].clamp(-largest, largest) for name in learned.params}
        return part._replace(sums=part.sums | cut)


def _channels(model: nn.Module, layer: str, shape: tuple[int, ...]) -> int:
    """Channels of a layer's output; raises `ConfigError` where there is no such layer."""
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        names = ", ".join(name for name in modules if name)
        raise ConfigError(f"algorithm.film_layer {layer} is no layer of the model; it has {names}")
    seen: list[int] = []
    tried = copy.deepcopy(model).eval()
    tried.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    require_outputs("the model", tried, shape, None)
    if not seen:
        raise ConfigError(f"algorithm.film_layer {layer} is not called by the model's forward: name another layer")
    return seen[0]
