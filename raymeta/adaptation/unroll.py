"""An optimisee's steps under a rule, and the gradient of what a rule brings about: by derivatives or perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raymeta.autodiff.derivatives import gradient_and_value
from raymeta.tree import Layout, Params

Objective = Callable[[Tensor, int], Tensor]
"""The value at θ [n] in step t: another one in each step where batches are drawn."""
Rule = Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, Params]]
"""Slopes [n] and state to updates [n] and the next state."""
THETA = "theta"


class Unroll(NamedTuple):
    """What some steps did: values [K + 1] before and after each, and θ with the rule's state after the last."""

    losses: Tensor
    rows: Params


def unroll(objective: Objective, rule: Rule, rows: Mapping[str, Tensor], num_steps: int) -> Unroll:
    """θ_{t+1} = θ_t + g_t, where g_t is the rule's answer to ∇f_t(θ_t).

    ∇f_t is an input of the rule: the values may be differentiated in what the rule depends on, and then pass through
    the updates, but never through a slope.
    """
    theta, losses = rows[THETA], []
    state = {name: value for name, value in rows.items() if name != THETA}
    for t in range(num_steps):
        losses.append(objective(theta, t))
        update, state = rule(_slope(objective, theta, t), state)
        theta = theta + update
    losses.append(objective(theta, num_steps))
    return Unroll(torch.stack(losses), state | {THETA: theta})


def _slope(objective: Objective, theta: Tensor, t: int) -> Tensor:
    with torch.no_grad():  # so no derivative around it passes
        slope, _ = gradient_and_value(lambda at: objective(at[THETA], t), {THETA: theta})
    return slope[THETA]


class Perturbed(NamedTuple):
    """Both sides of antithetic pairs [2n, ...], first all φ + σε, then all φ − σε: losses of each, and rows."""

    losses: Tensor
    rows: Params


def perturbed(
    unrolled: Callable[[Params, Params], Unroll],
    params: Params,
    draws: Tensor,
    sigma: float,
    rows: Params,
    *,
    own: bool,
) -> Perturbed:
    """`unrolled(φ ± σε, rows)` for every row ε of `draws` [n, P]; with `own`, each side has its rows [2n, ...]."""
    layout, flat = Layout.of(params), Layout.of(params).flatten(params)

    def one(shift: Tensor, start: Params) -> Unroll:
        return unrolled(layout.unflatten(flat + sigma * shift), start)

    found = torch.vmap(one, in_dims=(0, 0 if own else None))(torch.cat([draws, -draws]), rows)
    return Perturbed(*found)


def antithetic(layout: Layout, losses: Tensor, draws: Tensor, sigma: float) -> Params:
    """The estimate Σ (L(φ + σε) − L(φ − σε)) ε / (2σn) of the gradient of L, from losses [2n] and draws [n, P].

    Evolution strategies (Salimans et al. 2017, arXiv:1703.03864). With the sums of all ε since the unroll began in
    place of `draws`, it has no bias of truncation (Vicol, Metz, Sohl-Dickstein. ICML 2021, arXiv:2112.13835).
    """
    up, down = losses.chunk(2)
    return layout.unflatten((up - down) @ draws / (2 * sigma * len(draws)))
