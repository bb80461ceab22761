"""What searches share that train one network for all architectures: its two kinds of parameters, and what is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raymeta.adaptation.problem import Learned, Part, Phase, Problem
from raymeta.algorithms.base import TrainedModel
from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.errors import ConfigError
from raymeta.models.genotype import KINDS, Kind
from raymeta.models.layers.beside import BODY
from raymeta.models.supernet import SearchNetwork
from raymeta.tasks.episodes import Episode
from raymeta.trackers.names import ARCHITECTURE
from raymeta.tree import Params

ALPHA = "alpha."
"""What names of architecture parameters begin with, in a model by itself or beside others."""


class SharedWeightsSearch(TrainedModel):
    """Base of the methods that search with one network for all architectures.

    Its parameters are those of the architecture, α, named `alpha.…`, and its weights, w. The support sets of a step are
    its batch of training examples, the query sets its validation batch.
    """

    def init(self, problem: Problem, params: Params, generator: torch.Generator) -> Learned:
        if not architecture(params):
            raise ConfigError(
                f"{type(self).__name__} needs a model with architecture parameters, named `{ALPHA}*`: use "
                "--model supernet"
            )
        self._require_both_kinds(problem, params)
        return super().init(problem, params, generator)

    def _require_both_kinds(self, problem: Problem, params: Params) -> None:
        body = getattr(problem.model, "body", problem.model)
        names = {name.removeprefix(BODY) for name in params}
        for frozen in (ALPHA + kind for kind in KINDS if ALPHA + kind not in names and isinstance(body, SearchNetwork)):
            raise ConfigError(f"freeze holds {frozen}, and a search learns the architecture of both cells: freeze less")

    def found(self, problem: Problem, learned: Learned) -> Mapping[str, Any]:
        body = getattr(problem.model, "body", problem.model)
        return {"genotype": str(body.genotype(_by_kind(learned.params)))} if isinstance(body, SearchNetwork) else {}

    def shares(self, problem: Problem, params: Params) -> dict[str, Tensor]:
        """Metrics: how much each operation weighs in a search network whose architecture parameters are in `params`."""
        body = getattr(problem.model, "body", problem.model)
        if not isinstance(body, SearchNetwork):
            return {}
        return {ARCHITECTURE + name: value.detach() for name, value in body.shares(_by_kind(params)).items()}

    def support_loss(self, problem: Problem, learned: Learned, own: Params, episode: Episode, phase: Phase) -> Tensor:
        """L_train with the parameters `own` in place of those learned."""
        there = learned._replace(params=learned.params | own)
        return problem.loss(problem.predict(there, episode.support.x, phase), episode.support.y)

    def gradient_on_support(
        self, problem: Problem, learned: Learned, own: Params, episode: Episode, phase: Phase
    ) -> Part:
        """∇ L_train in the parameters `own`, at their values."""
        gradient, loss = gradient_and_value(lambda own: self.support_loss(problem, learned, own, episode, phase), own)
        return Part(gradient, {"train/support_loss": loss.detach()})


def _by_kind(params: Params) -> dict[Kind, Tensor]:
    named = {name.removeprefix(BODY): value for name, value in params.items()}
    return {kind: named[ALPHA + kind] for kind in KINDS}


def is_architecture(name: str) -> bool:
    """Whether a learned parameter is one of the architecture."""
    return name.removeprefix(BODY).startswith(ALPHA)


def architecture(params: Mapping[str, Tensor]) -> Params:
    """The architecture parameters α alone."""
    return {name: value for name, value in params.items() if is_architecture(name)}
