"""Derivatives of what random choices lead to: REINFORCE with a learned control variate (RELAX).

Grathwohl, Choi, Wu, Roeder, Duvenaud. Backpropagation through the Void. ICLR 2018. A choice b = H(z) is where a
continuous z, a function of logits and of uniform numbers u, has its largest value or is positive. z̃ is drawn anew, by
numbers v, given b. For a value f(b) and any surrogate c the estimate of ∇ E f(b) in the logits is

    ĝ = (f(b) − c(z̃)) ∇ log p(b) + ∇ c(z) − ∇ c(z̃)

With c = 0 it is REINFORCE, and its mean does not depend on c, which is trained so that ĝ² becomes small.

Shape suffixes: n choices, K categories or switches of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tree import Params

Surrogate = Callable[[Tensor], Tensor]
"""c of choices [n, K] to [n]."""


class Choice(ABC):
    """Random choices by logits [n, K]."""

    @abstractmethod
    def relaxed(self, logits_nK: Tensor, u_nK: Tensor) -> Tensor:
        """z [n, K] by uniform numbers."""

    @abstractmethod
    def chosen(self, z_nK: Tensor) -> Tensor:
        """b = H(z) [n, K], of zeros and ones."""

    @abstractmethod
    def again(self, logits_nK: Tensor, b_nK: Tensor, v_nK: Tensor) -> Tensor:
        """z̃ [n, K] given b."""

    @abstractmethod
    def score(self, logits_nK: Tensor, b_nK: Tensor) -> Tensor:
        """∇ log p(b) in the logits [n, K]."""

    @abstractmethod
    def softened(self, z_nK: Tensor, temperature: float) -> Tensor:
        """b as it would be with a soft H [n, K]; b itself as the temperature goes to 0."""


class OneOf(Choice):
    """One of K categories: z has Gumbel noise."""

    def relaxed(self, logits_nK: Tensor, u_nK: Tensor) -> Tensor:
        return logits_nK.log_softmax(1) - torch.log(-u_nK.log())

    def chosen(self, z_nK: Tensor) -> Tensor:
        places = torch.arange(z_nK.shape[1], device=z_nK.device)
        return (places == z_nK.argmax(1, keepdim=True)).to(z_nK.dtype)

    def again(self, logits_nK: Tensor, b_nK: Tensor, v_nK: Tensor) -> Tensor:
        """The largest of all is Gumbel; the others are, below it (Maddison et al., ICLR 2017, appendix C)."""
        cost = -v_nK.log()
        largest = (b_nK * cost).sum(1, keepdim=True)
        return -torch.log(torch.where(b_nK > 0, largest, cost / logits_nK.softmax(1) + largest))

    def score(self, logits_nK: Tensor, b_nK: Tensor) -> Tensor:
        return b_nK - logits_nK.softmax(1)

    def softened(self, z_nK: Tensor, temperature: float) -> Tensor:
        return (z_nK / temperature).softmax(1)


class Switches(Choice):
    """K switches, each of them on with probability σ(logit): z has logistic noise."""

    def relaxed(self, logits_nK: Tensor, u_nK: Tensor) -> Tensor:
        return logits_nK + torch.logit(u_nK)

    def chosen(self, z_nK: Tensor) -> Tensor:
        return (z_nK > 0).to(z_nK.dtype)

    def again(self, logits_nK: Tensor, b_nK: Tensor, v_nK: Tensor) -> Tensor:
        """z > 0 where u > 1 − p, so that given b the numbers are uniform above or below it."""
        off = (-logits_nK).sigmoid()
        return logits_nK + torch.logit(torch.where(b_nK > 0, off + v_nK * (1 - off), v_nK * off))

    def score(self, logits_nK: Tensor, b_nK: Tensor) -> Tensor:
        return b_nK - logits_nK.sigmoid()

    def softened(self, z_nK: Tensor, temperature: float) -> Tensor:
        return (z_nK / temperature).sigmoid()


def estimate(
    choice: Choice,
    logits_nK: Tensor,
    u_nK: Tensor,
    v_nK: Tensor,
    value_n: Tensor,
    surrogate: Surrogate,
) -> Tensor:
    """ĝ [n, K] of choices that u made, for their values; differentiable in what the surrogate reads besides."""
    b = choice.chosen(choice.relaxed(logits_nK, u_nK))

    def difference(logits: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        of_again = surrogate(choice.again(logits["l"], b, v_nK))
        return (surrogate(choice.relaxed(logits["l"], u_nK)) - of_again).sum(), of_again

    slope: Params
    slope, (_, of_again) = gradient_and_value(difference, {"l": logits_nK}, has_aux=True)
    error_n: Tensor = value_n - of_again
    return error_n[:, None] * choice.score(logits_nK, b) + slope["l"]
