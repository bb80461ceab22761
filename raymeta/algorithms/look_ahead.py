"""What methods share that learn something by what one step of a model with it does for a clean batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.adaptation.through_step import along, slopes, stepped
from raymeta.adaptation.weighted import gradient_on_queries
from raymeta.algorithms.base import Compute, Outer, TrainedModel
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.models.layers.beside import BODY
from raymeta.options import STRICT
from raymeta.tasks.episodes import Episode, Examples, Noise
from raymeta.trackers.names import OUTER_GRAD_NORM
from raymeta.tree import Params


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LookAhead(TrainedModel):
    """Base of the methods whose training loss f(w, h) of the model w also reads something learned, h.

    A step is:
    1. a virtual step w'(h) = w − λ ∇_w f(w, h) on the support sets;
    2. h is stepped along ∇_h L(w'(h)), L the loss on the query sets, differentiated through 1.;
    3. w is stepped along ∇_w f(w, h) with the new h, on the same support sets.
    """

    virtual_lr: NonNegativeFloat | None = None
    """rate λ of the virtual step; the model's rate of the moment unless given"""

    @property
    def looks_ahead(self) -> bool:
        """Whether h is learned; without that a step is 3. alone."""
        return True

    def learned_parts(self, params: Params) -> Mapping[str, Params]:
        return {"the model": model_of(params)}

    @abstractmethod
    def is_meta(self, name: str) -> bool:
        """Whether the learned parameter `name` is of h."""

    @abstractmethod
    def training_loss(
        self, problem: Problem, learned: Learned, support: Examples, *, noise: Noise, phase: Phase
    ) -> Tensor:
        """f of one task."""

    def step(self, outer: Outer, compute: Compute, phase: Phase) -> dict[str, float]:
        if self.looks_ahead:
            now = compute("training_gradient").means()
            rates = {name: outer.lr(name) if self.virtual_lr is None else self.virtual_lr for name in now}
            clean = compute("clean_gradient", given=stepped(outer.params, now, rates)).means()
            outer.update(compute("meta_gradient", given=along(rates, clean)).means())
        return {OUTER_GRAD_NORM: outer.update(compute("training_gradient").means())}

    def training_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇_w f on the support."""

        def loss_of(own: Params) -> Tensor:
            there = learned._replace(params=learned.params | own)
            return self.training_loss(problem, there, episode.support, noise=noise, phase=phase)

        gradient, loss = gradient_and_value(loss_of, model_of(learned.params))
        return Part(gradient, {"train/support_loss": loss.detach()})

    def clean_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """∇L on the queries at the model that is given."""
        return gradient_on_queries(problem, learned, learned.given, episode, phase)

    def meta_gradient(
        self, problem: Problem, learned: Learned, episode: Episode, *, noise: Noise, phase: Phase
    ) -> Part:
        """−∇_h ⟨∇_w f(w, h), d⟩ for the direction d that is given."""

        def loss_of(own: Params, meta: Params) -> Tensor:
            there = learned._replace(params=learned.params | own | meta)
            return self.training_loss(problem, there, episode.support, noise=noise, phase=phase)

        meta = {name: value for name, value in learned.params.items() if self.is_meta(name)}
        found = slopes(loss_of, model_of(learned.params), meta, learned.given)
        return Part({name: -value for name, value in found.items()})


def model_of(params: Params) -> Params:
    """The parameters of the model alone, which stands beside other networks."""
    return {name: value for name, value in params.items() if name.startswith(BODY)}
