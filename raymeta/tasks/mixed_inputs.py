"""Examples with what they are mixed with: several tensors by name, for a network whose features are mixed.

Shape suffixes: n examples, P places (the input and the layers after which is mixed), G groups of channels.
"""

from __future__ import annotations

from torch import Tensor

from raymeta.tasks.inputs import Inputs

OWN, PARTNER, PICKED, SHARE = "x", "x|partner", "x|picked", "x|share"
"""The examples [n, ...]; a batch [m, ...] of those that they are mixed with, and which one of it each is [n], unless
they stand in the same order, as they must where batches are joined; the shares of the first [n, P] at each place, 1
where nothing is mixed."""
GROUPS, TWIN, PARTNER_TWIN = "x|groups", "x|twin", "x|partner twin"
"""Which groups of channels come from another example [n, P, G], 1 where they do, the same for all of a task; and which
one of its batch that is, [n] and [m]."""
INPUT = "input"
"""What the place before all layers is called."""
NUM_GROUPS = 6


def is_mixed(x: Inputs) -> bool:
    """Whether these are examples with what they are mixed with."""
    return isinstance(x, dict) and (SHARE in x or GROUPS in x)


def mixture(h: Tensor, other: Tensor, share_n: Tensor) -> Tensor:
    """λ h + (1 − λ) h' for each example: h itself where λ is 1."""
    share = share_n.view(-1, *[1] * (h.dim() - 1))
    return share * h + (1 - share) * other
